//! What a shard decides, without doing any of it: which slots become probes, on which connection, and what
//! their samples are.
//!
//! ```text
//!                 start_due                 Wire::{open, send, close}
//!   schedule ───────────────► [ Engine ] ───────────────────────────────► driver or simulation
//!                              │  ▲ │                                            │
//!            dns::Resolver ◄───┘  │ └── samples                                  │
//!                                 └──────────── handle(Event), settle ◄──────────┘
//! ```
//!
//! In scope: admission, connections and who may reuse them, names on their way to addresses, deadlines, the
//! accounting of slots. Out of scope: sockets (the driver's [`super::ring`]), the bytes ([`crate::probe`]), where
//! samples go.
//!
//! A question to a DNS server is a connection like any other: opened, sent on, received from, closed. So the wire
//! knows nothing of DNS.
//!
//! The shard's canary is an endpoint like any other, but that it is not counted, not shed, and not asked about at the
//! policy: it is ours.
//!
//! Invariants: `due = sampled + missed` once nothing is in flight. A slot is decided when it is due, whatever
//! became of the one before. Every connection that was opened is closed exactly once. The address that is connected
//! to is the one that the policy was asked about.
//!
//! ```text
//! a connection:  open ─► Probing ─┬─► Idle ─► Probing …        reuse, and nothing odd happened
//!                                 ├─► Lingering ─► Closing      done, the origin's FIN is awaited
//!                                 └─► Closing                   anything odd
//!                open ─► Asking ──► Closing                     a question of the resolver's
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use url::Host;

use super::deadlines::{ClassId, Deadlines};
use super::origins::{Full, Origins, Share};
use super::random::Random;
use super::restraint::{Budgets, Restraint};
use super::sight::Sight;
use super::slab::{Key, Slab};
use crate::clock::{Micros, Mono, Reading, Wall};
use crate::config;
use crate::dns::{Action, Known, Lookup, Mode, NameId, QueryId, Resolver, Transport};
use crate::endpoint::Connection;
use crate::http::coding::DecodeMemory;
use crate::policy::Policy;
use crate::probe::{
    Broken, ClosePolicy, Departure, Ending, Exchange, HostPort, Next, Parting, Plan, Probe, Profile, Source,
    Timeouts, Verdict,
};
use crate::sample::{EndpointId, Failure, MissReason, Sample};
use crate::schedule::Schedule;
use crate::tls;

/// A connection, from `open` to its [`Event::Released`].
pub type ConnId = Key;
/// A probe in flight.
type ProbeId = Key;

/// What the engine asks of whoever owns the sockets.
pub trait Wire {
    /// Connects along `route`, and receives until told to close.
    ///
    /// Refusing means that this process has no more sockets to give, which is no fault of the endpoint.
    fn open(&mut self, conn: ConnId, route: Route<'_>) -> Result<(), NoSocket>;
    /// Sends on a connection that stands, behind what is being sent. What cannot leave at once is heard of by
    /// [`Event::Sent`], and a failure by [`Event::Broken`].
    fn send(&mut self, conn: ConnId, bytes: &Arc<[u8]>) -> Departure;
    /// Whether something has come in on a connection that was not handed out yet.
    fn has_news(&mut self, conn: ConnId) -> bool;
    /// Makes sure that a break is heard of on a connection that lives on after it has received something. Asking
    /// again costs nothing.
    fn watch(&mut self, conn: ConnId);
    /// Gives the connection up, whatever is in flight on it; `abruptly` with a RST. Nothing more is heard of it but,
    /// if the answer is [`Close::Pending`], one [`Event::Released`].
    fn close(&mut self, conn: ConnId, abruptly: bool) -> Close;
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// A stream or datagrams.
    pub transport: Transport,
    /// Whence, if that matters.
    pub source: Option<&'a Source>,
}

/// Whether a connection that was told to close is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// It is, and its key is void.
    Done,
    /// Something is still in flight on it.
    Pending,
}

/// There is no socket to be had, and why the slot is missed for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSocket(pub MissReason);

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The handshake is done.
    Connected {
        /// How long the kernel says that it took, if nothing was lost on the way; its completion may be seen late.
        round_trip: Option<Micros>,
    },
    /// Bytes have left that could not when they were asked to be sent.
    Sent {
        /// How many.
        bytes: u64,
        /// When the kernel had taken them for certain: not when, which it does not tell.
        by: Mono,
    },
    /// Bytes, with the time at which the kernel had them.
    Received {
        /// The bytes.
        bytes: &'a [u8],
        /// When they arrived, if the kernel said so.
        arrived: Option<Mono>,
    },
    /// No more will come.
    Broken(Broken),
    /// The connection is closed and its key void.
    Released,
}

/// When probes start.
#[derive(Debug)]
pub enum Pace {
    /// At their slots.
    Scheduled(Schedule),
    /// As soon as the endpoint's last probe has ended: saturation.
    ClosedLoop,
    /// At once, and never again.
    Once,
}

/// A probe that has ended; its sample lacks only the cost of the handling that ended it.
#[derive(Debug)]
pub struct Finished {
    flight: Box<Flight>,
    /// `None` if its slot is missed after all.
    verdict: Result<Verdict, MissReason>,
}

/// Bounds of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Probes in flight.
    pub inflight_max: u32,
    /// Connections, idle and lingering ones included.
    pub connections_max: u32,
    /// What one origin address is spared.
    pub origin: Share,
    /// When slots are given up.
    pub budgets: Budgets,
}

/// What a shard has beside its endpoints.
#[derive(Debug)]
pub struct Surroundings {
    /// Joins wall and monotonic time, the same for all shards.
    pub anchor: Reading,
    /// Names to addresses.
    pub resolver: Resolver,
    /// Which addresses may be connected to.
    pub policy: Arc<Policy>,
    /// Whom to trust where an endpoint does not say.
    pub roots: tls::Roots,
    /// Where `${uuid}`s come from.
    pub random: Random,
}

/// What became of the slots so far, but for the canary's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Slots that fell due. A slot of an endpoint that probes every address of its name counts once for each.
    pub due: u64,
    /// Slots that have become a probe's sample.
    pub sampled: u64,
    /// Slots that were missed.
    pub missed: u64,
    /// Connections opened for probes.
    pub opened: u64,
    /// Connections for which there was no local port.
    pub portless: u64,
    /// Questions asked of DNS.
    pub questions: u64,
}

/// The deciding half of a shard.
#[derive(Debug)]
pub struct Engine {
    watched: Vec<Watched>,
    profiles: Vec<SharedProfile>,
    pace: Pace,
    /// Endpoints whose turn it is, in a closed loop.
    ready: VecDeque<u32>,
    probes: Slab<Box<Flight>>,
    conns: Slab<Conn>,
    /// When each probe must have its verdict, by the probe's index; not later than that.
    totals: Deadlines,
    /// When its present stage must be over, likewise.
    stages: Deadlines,
    /// When lingering ends, by the connection's index.
    lingers: Deadlines,
    linger: ClassId,
    resolver: Resolver,
    /// Probes that wait for a name.
    waiting: HashMap<(NameId, Mode), Vec<ProbeId>>,
    questions: HashMap<QueryId, ConnId>,
    /// Probes that have something to do at the next [`Engine::settle`].
    loose_ends: Vec<ProbeId>,
    /// Probes of which something came that was not looked at yet.
    behind: VecDeque<ProbeId>,
    memory: DecodeMemory,
    dns_stirred: bool,
    /// The resolver may have more to ask than a turn has time for.
    asks_left: bool,
    /// Turns for which what is out of time has waited for what has arrived: of probes, of their stages, of DNS.
    doubts: [u32; 3],
    origins: Origins,
    restraint: Restraint,
    policy: Arc<Policy>,
    random: Random,
    sight: Sight,
    counters: Counters,
    anchor: Reading,
    /// Slots at or after this instant are not due any more.
    stop_at: Mono,
}

#[derive(Debug)]
struct Watched {
    id: EndpointId,
    profile: u32,
    in_flight: u32,
    /// The probe in flight began so late that its next slot may find it there because of us; asked once.
    drags: bool,
    /// What the resolver calls the origin's name.
    name: Option<NameId>,
    /// The idle connection of an endpoint that reuses one.
    idle: Option<ConnId>,
    plan: Plan,
}

/// What a shard makes of a [`Profile`], once.
#[derive(Debug)]
struct SharedProfile {
    total: ClassId,
    tls: Option<tls::Config>,
    /// Whether any stage has a limit of its own.
    limited: bool,
}

/// A probe, where it belongs and what it is on.
#[derive(Debug)]
struct Flight {
    endpoint: u32,
    conn: Option<ConnId>,
    /// An exchange has ended, and the next is to begin.
    again: bool,
    /// It is among those that are behind,
    behind: bool,
    /// and late if the limit of its time is not after this, when everything that came by now has been looked at.
    overdue: Option<Mono>,
    /// The name that its present hop leads to, if that is not the endpoint's own.
    borrowed: Option<NameId>,
    /// The address that it counts for.
    counted: Option<IpAddr>,
    probe: Probe,
}

impl Flight {
    const fn new(endpoint: u32, probe: Probe) -> Self {
        let (conn, borrowed, counted) = (None, None, None);
        Self { endpoint, conn, again: false, behind: false, overdue: None, borrowed, counted, probe }
    }
}

#[derive(Debug)]
enum Conn {
    /// A probe is on it.
    Probing(ProbeId),
    /// Between two probes.
    Idle { endpoint: u32, address: SocketAddr, session: Option<Box<tls::Session>> },
    /// Done; the origin's FIN is awaited.
    Lingering,
    /// A question to a DNS server, and its message until that is sent.
    Asking(QueryId, Option<Arc<[u8]>>),
    /// Given up; its release is awaited.
    Closing,
}

impl Engine {
    /// An engine for these endpoints, in the order in which `pace` numbers them.
    #[must_use]
    pub fn new(
        endpoints: impl ExactSizeIterator<Item = (EndpointId, Plan)>,
        pace: Pace,
        limits: Limits,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings { anchor, mut resolver, policy, roots, random } = surroundings;
        let mut lingers = Deadlines::default();
        let linger = lingers.class(config::LINGER);
        let mut totals = Deadlines::default();
        let mut watched = Vec::with_capacity(endpoints.len());
        let mut profiles: Vec<SharedProfile> = Vec::new();
        let mut known: HashMap<*const Profile, u32> = HashMap::new();
        for (id, plan) in endpoints {
            let profile = *known.entry(Arc::as_ptr(&plan.profile)).or_insert_with(|| {
                profiles.push(SharedProfile::new(&plan.profile, &mut totals, &roots));
                u32::try_from(profiles.len() - 1).expect("no more than endpoints")
            });
            let name = match (&plan.origin.host, plan.known_address()) {
                (Host::Domain(name), None) => Some(resolver.intern(name, plan.profile.family)),
                _ => None,
            };
            watched.push(Watched { id, profile, in_flight: 0, drags: false, name, idle: None, plan });
        }
        let count = u32::try_from(watched.len()).expect("an EndpointId has 31 bits");
        let ready = match pace {
            Pace::ClosedLoop | Pace::Once => (0..count).collect(),
            Pace::Scheduled(_) => VecDeque::new(),
        };
        Self {
            watched,
            profiles,
            pace,
            ready,
            probes: Slab::new(limits.inflight_max),
            conns: Slab::new(limits.connections_max),
            totals,
            stages: Deadlines::default(),
            lingers,
            linger,
            resolver,
            waiting: HashMap::new(),
            questions: HashMap::new(),
            loose_ends: Vec::new(),
            behind: VecDeque::new(),
            memory: DecodeMemory::default(),
            dns_stirred: true,
            asks_left: false,
            doubts: [0; 3],
            origins: Origins::new(limits.origin),
            restraint: Restraint::new(limits.budgets),
            policy,
            random,
            sight: Sight::default(),
            counters: Counters::default(),
            anchor,
            stop_at: Mono::NEVER,
        }
    }

    /// Slots before `now` are nobody's: they fell due while the endpoints were being loaded.
    ///
    /// What names stand for is asked before the first slot needs it.
    pub fn begin(&mut self, now: Mono) {
        for watched in &self.watched {
            if let (Some(name), Mode::Cached) = (watched.name, watched.plan.profile.dns) {
                self.resolver.warm(name, now);
            }
        }
        if let Pace::Scheduled(schedule) = &mut self.pace {
            schedule.skip_to(self.anchor.wall_of(now));
        }
    }

    /// What became of the slots so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Probes in flight.
    #[must_use]
    pub fn inflight(&self) -> u32 {
        u32::try_from(self.probes.len()).unwrap_or(u32::MAX)
    }

    /// Slots given up for overload, of a thousand.
    #[must_use]
    pub fn shed_per_mille(&self) -> u64 {
        self.restraint.per_mille()
    }

    /// Slots due at or after `at`, which may be yet to come, are nobody's any more. Of several calls the
    /// earliest instant holds.
    pub fn stop(&mut self, at: Mono) {
        self.stop_at = self.stop_at.min(at);
    }

    /// Every slot before the stop is decided, and every probe has ended.
    #[must_use]
    pub fn is_drained(&self, now: Mono) -> bool {
        let ends = self.stop_at < Mono::NEVER || matches!(self.pace, Pace::Once);
        ends && self.probes.is_empty() && self.next_due(now).is_none()
    }

    /// When to come back if nothing happens: the next slot or the next deadline.
    #[must_use]
    pub fn next_wake(&self, now: Mono) -> Option<Mono> {
        let busy = (self.asks_left || self.is_behind()).then_some(now);
        [busy, self.next_due(now), self.next_deadline()].into_iter().flatten().min()
    }

    /// Not later than the first deadline.
    fn next_deadline(&self) -> Option<Mono> {
        let armed = [self.totals.next(), self.stages.next(), self.lingers.next(), self.resolver.next_wake()];
        armed.into_iter().flatten().min()
    }

    /// Decides one slot, if one is due; whether there is another.
    ///
    /// One at a time: the driver stamps each, and bounds how many it starts before it looks at what came back, so that
    /// what a stall has left behind does not become a burst.
    pub fn start_due(&mut self, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) -> bool {
        if let Some((endpoint, slot)) = self.pop_due(now) {
            self.counters.due += self.counts(endpoint);
            self.decide(endpoint, slot, now, wire, record);
            self.settle(now, wire, record);
        }
        self.next_due(now).is_some_and(|due| due <= now)
    }

    /// Ends what has run out of time.
    pub fn expire(&mut self, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        while let Some(index) = self.totals.due(now) {
            let key = self.probes.key_at(index).expect("only what lives is armed");
            let flight = self.probes.at(key).expect("the key is fresh");
            let (conn, deadline) = (flight.conn, flight.probe.deadline());
            if now >= deadline && self.is_doubtful(0, conn, wire) {
                break;
            }
            self.totals.disarm(index);
            let flight = self.probes.at(key).expect("as above");
            if now < deadline {
                // It has moved by what the origin had to wait for us.
                let class = self.totals.class(look_again_after(deadline.nanos_since(now) / 1_000));
                self.totals.arm(index, class, now);
            } else if flight.behind {
                // What came in time is looked at before anything is called late.
                flight.overdue = Some(Mono::NEVER);
            } else {
                self.time_up(key, now, wire, record);
            }
        }
        while let Some(index) = self.stages.due(now) {
            let key = self.probes.key_at(index).expect("only what lives is armed");
            let conn = self.probes.at(key).expect("the key is fresh").conn;
            if self.is_doubtful(1, conn, wire) {
                break;
            }
            self.stages.disarm(index);
            let flight = self.probes.at(key).expect("as above");
            if flight.behind {
                flight.overdue.get_or_insert(now);
            } else {
                self.time_up(key, now, wire, record);
            }
        }
        while let Some(index) = self.lingers.expire(now) {
            let key = self.conns.key_at(index).expect("only what lives is armed");
            self.close(key, false, wire);
        }
        let dns_is_due = self.resolver.next_wake().is_some_and(|at| at <= now);
        if dns_is_due && !doubted(&mut self.doubts[2], has_news(self.questions.values(), wire)) {
            self.resolver.expire(now);
            self.dns_stirred = true;
        }
        self.dns_stirred |= std::mem::take(&mut self.asks_left);
        self.settle(now, wire, record);
    }

    /// Whether something has come in meanwhile for what is out of time on `conn`, or, without one, waits for its name.
    ///
    /// Whatever arrived before the deadline must be looked at before the endpoint is called late: we may have been
    /// stopped since, and that is not its fault. What arrived after it ends the probe by its stamp.
    fn is_doubtful(&mut self, which: usize, conn: Option<ConnId>, wire: &mut impl Wire) -> bool {
        let has_news = match conn {
            Some(conn) => wire.has_news(conn),
            None => has_news(self.questions.values(), wire),
        };
        doubted(&mut self.doubts[which], has_news)
    }

    fn time_up(&mut self, key: ProbeId, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        let flight = self.probes.at(key).expect("the caller has it");
        let plan = &self.watched[flight.endpoint as usize].plan;
        let ending = flight.probe.timed_out(plan, now);
        self.end_and_report(key, ending, now, wire, record);
    }

    /// Whether something came that was not looked at yet: [`Self::catch_up`] does.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// One go at what came and was not looked at, of the probe that has waited for longest. What it is on, and whether
    /// that ended it: to be reported with what it cost, or charged, and settled, like what comes of [`Self::handle`].
    pub fn catch_up(&mut self, now: Mono, wire: &mut impl Wire) -> Option<(ConnId, Option<Finished>)> {
        loop {
            let key = self.behind.pop_front()?;
            // It may have ended since.
            let Some(flight) = self.probes.at(key) else { continue };
            flight.behind = false;
            let (Some(conn), Some(exchange)) = (flight.conn, flight.probe.exchange()) else { continue };
            let plan = &self.watched[flight.endpoint as usize].plan;
            let ending = exchange.catch_up(&plan.profile, now);
            return Some((conn, self.looked_at(key, ending, now, wire)));
        }
    }

    /// What is handed in next was taken from the ring at `now`, after a wait that was meant to last for `wait` at most.
    pub fn look(&mut self, now: Mono, wait: Duration) {
        self.sight.look(now, wait);
    }

    /// Nobody will look for a while, as nothing is in flight.
    pub fn rest(&mut self) {
        self.sight.rest();
    }

    /// Takes note of what happened at `seen`; the probe that this ended, if any. What is to be done about it is done
    /// by [`Self::settle`], when it is known how long this took.
    ///
    /// An event for a connection that is no more is ignored: the kernel may have had it under way.
    pub fn handle(
        &mut self,
        key: ConnId,
        event: Event<'_>,
        seen: Mono,
        wire: &mut impl Wire,
    ) -> Option<Finished> {
        match (self.conns.at(key)?, event) {
            (_, Event::Released) => {
                self.release(key);
                None
            }
            (Conn::Probing(probe), event) => {
                let probe = *probe;
                self.handle_probe(probe, key, event, seen, wire)
            }
            (Conn::Asking(query, message), event) => {
                let query = *query;
                match event {
                    Event::Connected { .. } => {
                        if let Some(message) = message.take() {
                            wire.send(key, &message);
                        }
                        return None;
                    }
                    Event::Received { bytes, arrived } => {
                        self.resolver.answered(query, bytes, arrived.unwrap_or(seen).min(seen), seen);
                    }
                    Event::Broken(_) => self.resolver.failed(query, seen),
                    Event::Sent { .. } | Event::Released => return None,
                }
                self.dns_stirred = true;
                None
            }
            // A ticket for a later handshake may come at any time; anything else nobody asked for.
            (Conn::Idle { session: Some(session), .. }, Event::Received { bytes, .. }) => {
                let mut plain = Vec::new();
                let harmless = session.received(bytes, &mut plain).is_ok() && plain.is_empty();
                if !harmless || session.peer_closed_cleanly() {
                    self.close(key, false, wire);
                }
                None
            }
            // FIN is what an idle or lingering connection waits for; bytes nobody asked for make it unfit.
            (Conn::Idle { .. } | Conn::Lingering, Event::Broken(_) | Event::Received { .. }) => {
                self.close(key, false, wire);
                None
            }
            (Conn::Idle { .. } | Conn::Lingering | Conn::Closing, _) => None,
        }
    }

    fn handle_probe(
        &mut self,
        key: ProbeId,
        conn: ConnId,
        event: Event<'_>,
        seen: Mono,
        wire: &mut impl Wire,
    ) -> Option<Finished> {
        let flight = self.probes.at(key).expect("a connection's probe lives");
        let watched = &self.watched[flight.endpoint as usize];
        let profile = &watched.plan.profile;
        let exchange = flight.probe.exchange().expect("a probe on a connection has an exchange");
        exchange.blind(self.sight.blind());
        let ending = match event {
            Event::Connected { round_trip } => {
                let ending = exchange.connected(profile, round_trip, seen);
                if ending.is_none() {
                    self.say(key, conn, wire);
                    self.arm_stage(key, seen);
                    return None;
                }
                ending
            }
            Event::Sent { bytes, by } => {
                exchange.sent(bytes, by);
                return None;
            }
            Event::Received { bytes, arrived } => {
                let ending = exchange.received(profile, bytes, arrived, seen);
                if ending.is_none() {
                    wire.watch(conn);
                }
                ending
            }
            Event::Broken(how) => {
                self.counters.portless += u64::from(how == Broken::NoPort);
                exchange.broken(profile, how, seen)
            }
            Event::Released => None,
        };
        self.looked_at(key, ending, seen, wire)
    }

    /// Something that came for a probe was looked at, and this is what came of it.
    fn looked_at(
        &mut self,
        key: ProbeId,
        ending: Option<Ending>,
        now: Mono,
        wire: &mut impl Wire,
    ) -> Option<Finished> {
        let flight = self.probes.at(key).expect("the caller has it");
        let plan = &self.watched[flight.endpoint as usize].plan;
        let exchange = flight.probe.exchange().expect("something came for it");
        let (is_tls, is_behind) = (exchange.is_tls(), exchange.is_behind());
        let late = !is_behind && flight.overdue.take().is_some_and(|at| exchange.is_late(&plan.profile, at));
        let ending = ending.or_else(|| late.then(|| flight.probe.timed_out(plan, now)));
        if let Some(ending) = ending {
            return self.ended(key, ending, now, wire);
        }
        if is_behind && !std::mem::replace(&mut flight.behind, true) {
            self.behind.push_back(key);
        }
        if is_tls {
            self.loose_ends.push(key);
        }
        self.arm_stage(key, now);
        None
    }

    /// Does what the last events ask for: answers of TLS, next hops and attempts, questions to DNS and what waited for
    /// their answers. `now` is when it is done.
    pub fn settle(&mut self, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        while !self.loose_ends.is_empty() || self.dns_stirred {
            while let Some(key) = self.loose_ends.pop() {
                self.tie_up(key, now, wire, record);
            }
            if std::mem::take(&mut self.dns_stirred) {
                self.ask(now, wire, record);
            }
        }
    }

    /// Whether [`Self::settle`] has anything to do.
    #[must_use]
    pub const fn has_loose_ends(&self) -> bool {
        !self.loose_ends.is_empty() || self.dns_stirred
    }

    /// Adds `cpu_ns` of handling to the probe on `key`, or to the one that has just left it and goes on elsewhere.
    pub fn charge(&mut self, key: ConnId, cpu_ns: u64) {
        let probe = match self.conns.at(key) {
            Some(Conn::Probing(probe)) => Some(*probe),
            _ => self.loose_ends.last().copied(),
        };
        if let Some(flight) = probe.and_then(|probe| self.probes.at(probe)) {
            flight.probe.charge(cpu_ns);
        }
    }

    /// Hands out the samples of a probe that has ended, with `cpu_ns` of handling added.
    pub fn report(&mut self, finished: Finished, cpu_ns: u64, record: &mut impl FnMut(Sample)) {
        let Finished { flight, verdict } = finished;
        match verdict {
            Ok(verdict) => flight.probe.samples(verdict, cpu_ns, &mut |sample: Sample| {
                if sample.detail.step == 0 {
                    self.restraint.ended(Micros(sample.agent_us.max(0).unsigned_abs().into()));
                }
                record(sample);
            }),
            Err(reason) => record(flight.probe.missed(reason)),
        }
    }

    /// Closes every connection that no probe is on.
    pub fn close_idle(&mut self, wire: &mut impl Wire) {
        let keys: Vec<ConnId> = self.conns.keys().collect();
        for key in keys {
            if !matches!(self.conns.at(key), Some(Conn::Probing(_) | Conn::Closing)) {
                self.close(key, false, wire);
            }
        }
    }

    fn next_due(&self, now: Mono) -> Option<Mono> {
        match &self.pace {
            Pace::ClosedLoop => (!self.ready.is_empty() && now < self.stop_at).then_some(now),
            Pace::Once => (!self.ready.is_empty()).then_some(now),
            Pace::Scheduled(schedule) => {
                Some(self.anchor.mono_of(schedule.next_due()?)).filter(|due| *due < self.stop_at)
            }
        }
    }

    fn pop_due(&mut self, now: Mono) -> Option<(u32, Slot)> {
        self.next_due(now).filter(|due| *due <= now)?;
        match &mut self.pace {
            Pace::ClosedLoop | Pace::Once => {
                let endpoint = self.ready.pop_front()?;
                Some((
                    endpoint,
                    Slot { at: self.anchor.wall_of(now), lag: Micros(0), late: false, drags: false },
                ))
            }
            Pace::Scheduled(schedule) => {
                let now = self.anchor.wall_of(now);
                let due = schedule.pop_due(now)?;
                let lag = Micros((now - due.scheduled_at).max(0).cast_unsigned());
                // Its own next slot is due already: probing now would only make that one overlap.
                let late = lag >= due.interval;
                let drags = lag.0 >= due.interval.0 / config::DRAGGING_SHARE && lag > config::LAG_P99_BUDGET;
                Some((due.endpoint, Slot { at: due.scheduled_at, lag, late, drags }))
            }
        }
    }

    /// Admission: a slot becomes a probe, or a missed sample with the reason.
    fn decide(
        &mut self,
        endpoint: u32,
        slot: Slot,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        let watched = &mut self.watched[endpoint as usize];
        let is_shed = matches!(self.pace, Pace::Scheduled(_))
            && !watched.id.is_canary()
            && self.restraint.gives_up(watched.plan.profile.priority, slot.lag, now);
        let missed = if watched.in_flight > 0 {
            // From the slot after the next on, the probe has taken longer than an interval, however late it began.
            let is_ours = std::mem::take(&mut watched.drags);
            Some(if is_ours { MissReason::Late } else { MissReason::Overlap })
        } else if slot.late {
            Some(MissReason::Late)
        } else {
            is_shed.then_some(MissReason::Overload)
        };
        if let Some(reason) = missed {
            self.miss(endpoint, &slot, reason, record);
            return;
        }
        let probe = Probe::start(&watched.plan, watched.id, slot.at, slot.lag, now);
        let Ok(key) = self.probes.insert(Box::new(Flight::new(endpoint, probe))) else {
            self.miss(endpoint, &slot, MissReason::InflightLimit, record);
            return;
        };
        let watched = &mut self.watched[endpoint as usize];
        watched.in_flight += 1;
        watched.drags = slot.drags;
        self.totals.arm(key.index, self.profiles[watched.profile as usize].total, now);
        self.go(key, now, wire, record);
    }

    /// 1 for an endpoint whose slots are counted, 0 for the canary.
    fn counts(&self, endpoint: u32) -> u64 {
        u64::from(!self.watched[endpoint as usize].id.is_canary())
    }

    fn miss(&mut self, endpoint: u32, slot: &Slot, reason: MissReason, record: &mut impl FnMut(Sample)) {
        self.counters.missed += self.counts(endpoint);
        let watched = &self.watched[endpoint as usize];
        record(Sample::missed(slot.at, watched.id, slot.lag, reason, watched.plan.flags()));
    }

    /// The next exchange of a probe: on a kept connection, or by its address, or by its name.
    fn go(&mut self, key: ProbeId, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        let flight = self.probes.at(key).expect("a probe that goes on lives");
        let watched = &mut self.watched[flight.endpoint as usize];
        if flight.probe.is_first()
            && let Some(conn) = watched.idle
        {
            self.reuse(key, conn, now, wire, record);
            return;
        }
        let profile = &watched.plan.profile;
        let (target, port, name) = match flight.probe.hop() {
            None => (watched.plan.known_address(), watched.plan.origin.port, watched.name),
            Some(hop) => {
                let origin = &hop.origin;
                // A redirect to the endpoint's own origin goes where its owner pinned it.
                let pinned = profile.pinned.filter(|_| *origin == *watched.plan.origin);
                let address = pinned.or_else(|| origin.address());
                let name = match (&origin.host, address) {
                    (Host::Domain(name), None) => {
                        let name = self.resolver.intern(name, profile.family);
                        flight.borrowed = Some(name);
                        Some(name)
                    }
                    _ => None,
                };
                (address, origin.port, name)
            }
        };
        let looked_up = match (target, name) {
            (Some(ip), _) => {
                self.connect(key, SocketAddr::new(ip, port), now, wire, record);
                return;
            }
            (None, None) => Lookup::Failed(Failure::DnsNotFound),
            (None, Some(name)) => {
                let looked_up = self.resolver.lookup(name, profile.dns, now);
                if matches!(looked_up, Lookup::Pending) {
                    self.waiting.entry((name, profile.dns)).or_default().push(key);
                    self.dns_stirred = true;
                    self.arm_stage(key, now);
                }
                looked_up
            }
        };
        match looked_up {
            Lookup::Pending => {}
            Lookup::Known(known) => {
                self.probes.at(key).expect("as above").probe.resolved(now, now, known.stale, false);
                self.connect_to(key, &known, now, wire, record);
            }
            Lookup::Failed(failure) => {
                let flight = self.probes.at(key).expect("as above");
                let ending = flight.probe.unresolved(failure, now);
                self.end_and_report(key, ending, now, wire, record);
            }
        }
    }

    /// Connects to the first address, or, if the endpoint asks for it, makes a probe of every one.
    fn connect_to(
        &mut self,
        key: ProbeId,
        known: &Known,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        let flight = self.probes.at(key).expect("the caller has it");
        let endpoint = flight.endpoint;
        let watched = &self.watched[endpoint as usize];
        let port = flight.probe.hop().map_or(watched.plan.origin.port, |hop| hop.origin.port);
        let Some((first, others)) = known.addresses.split_first() else {
            self.fail(key, Failure::DnsNotFound, now, wire, record);
            return;
        };
        if watched.plan.profile.every_address && flight.probe.is_first() {
            for (number, ip) in (1..).zip(others) {
                self.counters.due += 1;
                let watched = &mut self.watched[endpoint as usize];
                let original = self.probes.at(key).expect("as above");
                let twin = original.probe.twin(&watched.plan, number);
                let missed = twin.missed(MissReason::InflightLimit);
                let Ok(twin) = self.probes.insert(Box::new(Flight::new(endpoint, twin))) else {
                    self.counters.missed += 1;
                    record(missed);
                    continue;
                };
                watched.in_flight += 1;
                self.totals.arm(twin.index, self.profiles[watched.profile as usize].total, now);
                self.connect(twin, SocketAddr::new(*ip, port), now, wire, record);
            }
        }
        self.connect(key, SocketAddr::new(*first, port), now, wire, record);
    }

    /// Puts a probe on a connection kept from before, if politeness lets it.
    fn reuse(
        &mut self,
        key: ProbeId,
        conn: ConnId,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        let Some(Conn::Idle { address, .. }) = self.conns.at(conn) else {
            unreachable!("only idle connections are kept, and they live")
        };
        let address = *address;
        if self.admit(key, address.ip(), now).is_err() {
            self.miss_instead(key, MissReason::OriginLimit, record);
            return;
        }
        let flight = self.probes.at(key).expect("the caller has it");
        let watched = &mut self.watched[flight.endpoint as usize];
        watched.idle = None;
        let plan = &watched.plan;
        let idle = self.conns.at(conn).expect("as above");
        let session = match std::mem::replace(idle, Conn::Probing(key)) {
            Conn::Idle { session, .. } => session,
            _ => None,
        };
        let request = plan.request.render(self.random.draw());
        let exchange = Exchange::reused(
            &plan.profile,
            &request,
            session.map(|session| *session),
            now,
            flight.probe.deadline(),
        )
        .sharing(&self.memory);
        flight.conn = Some(conn);
        flight.probe.begin(address, exchange);
        self.say(key, conn, wire);
        self.arm_stage(key, now);
    }

    /// Counts a probe for the address that it is on its way to, once, if its endpoint is polite.
    fn admit(&mut self, key: ProbeId, ip: IpAddr, now: Mono) -> Result<(), Full> {
        let flight = self.probes.at(key).expect("the caller has it");
        let polite = self.watched[flight.endpoint as usize].plan.profile.polite;
        if polite && flight.counted.is_none() && Origins::counts(ip) {
            self.origins.start(ip, now)?;
            flight.counted = Some(ip);
        }
        Ok(())
    }

    /// Opens a connection for a probe, if policy and politeness let it. If not politeness, or if there is no room, the
    /// slot is missed, unless the probe has been somewhere before.
    fn connect(
        &mut self,
        key: ProbeId,
        address: SocketAddr,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        let flight = self.probes.at(key).expect("the caller has it");
        let watched = &self.watched[flight.endpoint as usize];
        let is_canary = watched.id.is_canary();
        if !is_canary && !self.policy.allows(address) {
            self.fail(key, Failure::PolicyBlocked, now, wire, record);
            return;
        }
        let may_be_missed = flight.probe.is_first();
        if self.admit(key, address.ip(), now).is_err() && may_be_missed {
            self.miss_instead(key, MissReason::OriginLimit, record);
            return;
        }
        let flight = self.probes.at(key).expect("as above");
        let watched = &self.watched[flight.endpoint as usize];
        let shared = &self.profiles[watched.profile as usize];
        let profile = &watched.plan.profile;
        let (origin, request) = match flight.probe.hop() {
            None => (&*watched.plan.origin, watched.plan.request.render(self.random.draw())),
            Some(hop) => (&hop.origin, Arc::clone(&hop.request)),
        };
        let session = match origin.tls.then(|| shared.session(origin)).transpose() {
            Ok(session) => session,
            Err(failure) => {
                self.fail(key, failure, now, wire, record);
                return;
            }
        };
        let exchange = Exchange::fresh(profile, &request, session, now, flight.probe.deadline());
        let exchange = exchange.sharing(&self.memory);
        let route = Route { address, transport: Transport::Tcp, source: profile.source.as_ref() };
        let opened = match self.conns.insert(Conn::Probing(key)) {
            Ok(conn) => match wire.open(conn, route) {
                Ok(()) => Ok(conn),
                Err(NoSocket(reason)) => {
                    self.conns.remove(conn);
                    Err(reason)
                }
            },
            Err(_full) => Err(MissReason::InflightLimit),
        };
        match opened {
            Ok(conn) => {
                self.counters.opened += u64::from(!is_canary);
                flight.conn = Some(conn);
                flight.probe.begin(address, exchange);
                self.arm_stage(key, now);
            }
            Err(reason) => self.miss_instead(key, reason, record),
        }
    }

    /// The limit of the present stage, where it has one of its own.
    fn arm_stage(&mut self, key: ProbeId, now: Mono) {
        let flight = self.probes.at(key).expect("the caller has it");
        let watched = &self.watched[flight.endpoint as usize];
        if !self.profiles[watched.profile as usize].limited {
            return;
        }
        self.stages.disarm(key.index);
        if let Some(span) = flight.probe.stage_limit(&watched.plan) {
            let class = self.stages.class(span);
            self.stages.arm(key.index, class, now);
        }
    }

    /// Sends what the exchange of a probe has to say, if anything.
    fn say(&mut self, key: ProbeId, conn: ConnId, wire: &mut impl Wire) {
        let flight = self.probes.at(key).expect("the caller has it");
        let Some(output) = flight.probe.exchange().and_then(Exchange::take_output) else { return };
        flight.probe.departed(wire.send(conn, &output));
    }

    /// What a probe left to be done.
    fn tie_up(&mut self, key: ProbeId, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        let Some(flight) = self.probes.at(key) else { return };
        match (flight.conn, flight.probe.exchange()) {
            (Some(conn), Some(_)) => self.say(key, conn, wire),
            (None, _) if std::mem::take(&mut flight.again) => {
                flight.probe.go_on(now);
                if let Some(name) = flight.borrowed.take() {
                    self.resolver.release(name);
                }
                self.go(key, now, wire, record);
            }
            // It waits for its name.
            _ => {}
        }
    }

    /// Carries questions to DNS, so many that slots need not wait for them, and wakes who waited for answers.
    fn ask(&mut self, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        let mut asked = 0;
        while asked < config::ASKS_PER_TURN_MAX {
            let Some(action) = self.resolver.poll(now) else { return };
            match action {
                Action::Ask { query, server, transport, message } => {
                    asked += 1;
                    let route = Route { address: server, transport, source: None };
                    let asking = Conn::Asking(query, Some(message.into()));
                    let opened = self.conns.insert(asking).ok().filter(|conn| {
                        let opened = wire.open(*conn, route).is_ok();
                        if !opened {
                            self.conns.remove(*conn);
                        }
                        opened
                    });
                    match opened {
                        Some(conn) => {
                            self.counters.questions += 1;
                            self.questions.insert(query, conn);
                        }
                        None => self.resolver.failed(query, now),
                    }
                }
                Action::Close { query } => {
                    if let Some(conn) = self.questions.remove(&query) {
                        self.close(conn, false, wire);
                    }
                }
                Action::Wake { name, mode, result, at: arrived } => {
                    for key in self.waiting.remove(&(name, mode)).unwrap_or_default() {
                        self.wake(key, &result, arrived, now, wire, record);
                    }
                }
            }
        }
        self.asks_left = true;
    }

    fn wake(
        &mut self,
        key: ProbeId,
        result: &Result<Known, Failure>,
        arrived: Mono,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        // It may have run out of time, and a stranger may have its place: generations tell.
        let Some(flight) = self.probes.at(key) else { return };
        match result {
            Ok(known) => {
                flight.probe.resolved(arrived, now, known.stale, true);
                self.connect_to(key, known, now, wire, record);
            }
            Err(failure) => {
                let ending = flight.probe.unresolved(*failure, arrived);
                self.end_and_report(key, ending, now, wire, record);
            }
        }
    }

    /// The present exchange cannot be made.
    fn fail(
        &mut self,
        key: ProbeId,
        failure: Failure,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        let flight = self.probes.at(key).expect("the caller has it");
        let ending = flight.probe.refused(failure, now);
        self.end_and_report(key, ending, now, wire, record);
    }

    fn end_and_report(
        &mut self,
        key: ProbeId,
        ending: Ending,
        now: Mono,
        wire: &mut impl Wire,
        record: &mut impl FnMut(Sample),
    ) {
        if let Some(finished) = self.ended(key, ending, now, wire) {
            self.report(finished, 0, record);
        }
    }

    /// A probe for which we have no connection becomes a missed slot after all.
    fn miss_instead(&mut self, key: ProbeId, reason: MissReason, record: &mut impl FnMut(Sample)) {
        let flight = self.land(key);
        self.counters.missed += self.counts(flight.endpoint);
        record(flight.probe.missed(reason));
    }

    /// An exchange is over, or was never made: what becomes of its connection, and of its probe.
    fn ended(&mut self, key: ProbeId, ending: Ending, now: Mono, wire: &mut impl Wire) -> Option<Finished> {
        let flight = self.probes.at(key).expect("the caller has it");
        let endpoint = flight.endpoint;
        let plan = &self.watched[endpoint as usize].plan;
        let kept = flight.probe.is_first();
        let conn = flight.conn.take();
        let (next, left) = flight.probe.ended(plan, ending, now);
        (flight.again, flight.overdue) = (matches!(next, Next::Again), None);
        if let Some(conn) = conn {
            let kept = kept.then_some(left.address).flatten();
            self.part(conn, endpoint, ending.parting, kept, left.session, now, wire);
        }
        match next {
            Next::Again => {
                self.stages.disarm(key.index);
                self.loose_ends.push(key);
                None
            }
            Next::Done(verdict) => {
                let flight = self.land(key);
                self.counters.sampled += self.counts(endpoint);
                Some(Finished { flight, verdict: Ok(verdict) })
            }
            Next::Missed(reason) => {
                let flight = self.land(key);
                self.counters.missed += self.counts(endpoint);
                Some(Finished { flight, verdict: Err(reason) })
            }
        }
    }

    /// Takes a probe out of the air.
    fn land(&mut self, key: ProbeId) -> Box<Flight> {
        self.totals.disarm(key.index);
        self.stages.disarm(key.index);
        let mut flight = self.probes.remove(key).expect("a probe lands once");
        if let Some(name) = flight.borrowed.take() {
            self.resolver.release(name);
        }
        if let Some(ip) = flight.counted.take() {
            self.origins.end(ip);
        }
        self.watched[flight.endpoint as usize].in_flight -= 1;
        if matches!(self.pace, Pace::ClosedLoop) {
            self.ready.push_back(flight.endpoint);
        }
        flight
    }

    /// What becomes of a connection whose exchange is over. `kept`: its endpoint may use it again, and it leads there.
    #[expect(clippy::too_many_arguments, reason = "each of them decides")]
    fn part(
        &mut self,
        conn: ConnId,
        endpoint: u32,
        parting: Parting,
        kept: Option<SocketAddr>,
        session: Option<tls::Session>,
        now: Mono,
        wire: &mut impl Wire,
    ) {
        let watched = &mut self.watched[endpoint as usize];
        let profile = &watched.plan.profile;
        let kept = kept.filter(|_| profile.connection == Connection::Reuse && now < self.stop_at);
        let abruptly = profile.close == ClosePolicy::Rst;
        let state = self.conns.at(conn).expect("it has just been used");
        match (parting, kept, profile.close) {
            (Parting::Keep, Some(address), _) => {
                *state = Conn::Idle { endpoint, address, session: session.map(Box::new) };
                watched.idle = Some(conn);
                wire.watch(conn);
            }
            (Parting::Keep | Parting::Linger, _, ClosePolicy::Peer) => {
                *state = Conn::Lingering;
                self.lingers.arm(conn.index, self.linger, now);
            }
            _ => self.close(conn, abruptly, wire),
        }
    }

    fn close(&mut self, key: ConnId, abruptly: bool, wire: &mut impl Wire) {
        self.lingers.disarm(key.index);
        let conn = self.conns.at(key).expect("only what lives is closed");
        debug_assert!(!matches!(conn, Conn::Closing), "closed once");
        if let Conn::Idle { endpoint, .. } = std::mem::replace(conn, Conn::Closing) {
            let watched = &mut self.watched[endpoint as usize];
            if watched.idle == Some(key) {
                watched.idle = None;
            }
        }
        if wire.close(key, abruptly) == Close::Done {
            self.release(key);
        }
    }

    fn release(&mut self, key: ConnId) {
        let conn = self.conns.remove(key).expect("released once");
        debug_assert!(matches!(conn, Conn::Closing), "the wire releases what it was told to close");
    }
}

fn has_news<'a>(mut conns: impl Iterator<Item = &'a ConnId>, wire: &mut impl Wire) -> bool {
    conns.any(|conn| wire.has_news(*conn))
}

/// Whether what is out of time waits for another turn, because something has come in. Not for ever: a kernel that tells
/// of news and never hands it out must not keep anything from ending.
fn doubted(turns: &mut u32, has_news: bool) -> bool {
    *turns = if has_news && *turns < config::DOUBT_TURNS_MAX { *turns + 1 } else { 0 };
    *turns > 0
}

impl SharedProfile {
    fn session(&self, origin: &HostPort) -> Result<tls::Session, Failure> {
        let (Some(config), Some(server)) = (&self.tls, origin.server()) else {
            return Err(Failure::TlsProtocol);
        };
        config.session(&server)
    }

    fn new(profile: &Profile, totals: &mut Deadlines, roots: &tls::Roots) -> Self {
        Self {
            total: totals.class(profile.timeout),
            // Made by whoever loaded the endpoint, to say what is wrong with it; here for this shard alone.
            tls: tls::Config::new(&profile.tls, roots).ok(),
            limited: profile.timeouts != Timeouts::default(),
        }
    }
}

/// When to look again at a deadline that is so far away: not later, or just after. Powers of two, so that there are few
/// spans, and few looks.
const fn look_again_after(left_us: u64) -> Micros {
    let least = config::MOVED_DEADLINE_AGAIN;
    if left_us < least.0 { least } else { Micros(1 << left_us.ilog2()) }
}

/// A slot on its way to a decision.
#[derive(Debug)]
struct Slot {
    at: Wall,
    lag: Micros,
    /// The endpoint's next slot is due already.
    late: bool,
    /// A probe that begins now may still be in flight then, and would not be if it had begun on time.
    drags: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::surroundings::Surroundings as OfProcess;
    use crate::http::request::{Parts, Template};

    /// A wire on which every connection stays as it is: nobody answers.
    struct Silence;

    impl Wire for Silence {
        fn open(&mut self, _: ConnId, _: Route<'_>) -> Result<(), NoSocket> {
            Ok(())
        }

        fn send(&mut self, _: ConnId, _: &Arc<[u8]>) -> Departure {
            Departure { at: Mono(0), until: Mono(0), bytes: 0 }
        }

        fn has_news(&mut self, _: ConnId) -> bool {
            false
        }

        fn watch(&mut self, _: ConnId) {}

        fn close(&mut self, _: ConnId, _: bool) -> Close {
            Close::Done
        }
    }

    /// What becomes of the slots after the first of an endpoint that is due every `interval_ms` and whose first probe
    /// starts `lag_us` late, and stays in flight.
    fn misses(interval_ms: u64, lag_us: u64, slots: u64) -> Vec<i16> {
        let anchor = Reading { mono: Mono(1_000_000_000), real_ns: 1_700_000_000_000_000_000 };
        let interval = Micros::from_millis(interval_ms);
        let start = anchor.wall_of(anchor.mono);
        let schedule = Schedule::new([(0, EndpointId(1), interval)].into_iter(), start);
        let first = anchor.mono_of(schedule.next_due().unwrap());
        let url = "http://192.0.2.1/".parse().unwrap();
        let profile = Profile { timeout: Micros::from_millis(60_000), ..Profile::default() };
        let plan = Plan {
            origin: Arc::new(HostPort { tls: false, host: Host::Ipv4([192, 0, 2, 1].into()), port: 80 }),
            request: Template::new(&Parts::new("GET", &url)).unwrap(),
            profile: Arc::new(profile),
        };
        let limits = Limits {
            inflight_max: 10,
            connections_max: 10,
            origin: Share::NONE,
            budgets: Budgets::default(),
        };
        let surroundings = OfProcess::of_machine().for_shard(anchor, 0);
        let mut engine =
            Engine::new([(EndpointId(1), plan)].into_iter(), Pace::Scheduled(schedule), limits, surroundings);
        let mut reasons = Vec::new();
        engine.start_due(first + Micros(lag_us), &mut Silence, &mut |sample| reasons.push(sample.reason));
        for slot in 1..=slots {
            let on_time = first + Micros(slot * interval.0);
            engine.start_due(on_time, &mut Silence, &mut |sample| reasons.push(sample.reason));
        }
        reasons
    }

    #[test]
    fn a_probe_that_we_started_late_is_not_the_endpoints_overlap() {
        // Stopped for 0.9 s of its second, the prober found its own late probe in flight and called the endpoint slow.
        let [late, overlap] = [MissReason::Late, MissReason::Overlap].map(MissReason::code);
        assert_eq!(
            misses(1_000, 900_000, 3),
            [late, overlap, overlap],
            "then it takes longer than an interval"
        );
        assert_eq!(misses(1_000, 100_000, 1), [late]);
        assert_eq!(misses(1_000, 99_999, 2), [overlap, overlap], "most of its interval was left");
        assert_eq!(misses(10, 2_000, 1), [overlap], "that much is within the budget for lag");
        assert_eq!(misses(10, 2_001, 1), [late]);
    }
}
