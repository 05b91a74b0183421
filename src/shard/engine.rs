//! What a shard decides, without doing any of it: which slots become probes, on which connection, and what
//! their samples are.
//!
//! ```text
//!                 start_due                 Wire::{open, send, close}
//!   schedule ───────────────► [ Engine ] ───────────────────────────────► driver or simulation
//!                                 ▲ │                                            │
//!                                 │ └── Sample                                   │
//!                                 └──────────── handle(Event) ◄──────────────────┘
//! ```
//!
//! In scope: admission, connections and who may reuse them, deadlines, the accounting of slots.
//! Out of scope: sockets (the driver's [`super::ring`]), the bytes ([`crate::probe`]), where samples go.
//!
//! Invariants: `due = sampled + missed` once nothing is in flight. A slot is decided when it is due, whatever
//! became of the one before. Every connection that was opened is closed exactly once.
//!
//! ```text
//! a connection:  open ─► Busy ─┬─► Idle ─► Busy …        reuse, and nothing odd happened
//!                              ├─► Lingering ─► Closing   done, the origin's FIN is awaited
//!                              └─► Closing                anything odd
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::deadlines::{ClassId, Deadlines};
use super::slab::{Key, Slab};
use crate::clock::{Micros, Mono, Reading, Wall};
use crate::config;
use crate::endpoint::Connection;
use crate::probe::{Broken, Parting, Plan, Probe, Verdict, unresolved_sample};
use crate::sample::{EndpointId, MissReason, Sample};
use crate::schedule::Schedule;

/// A connection, from `open` to its [`Event::Released`].
pub type ConnId = Key;

/// What the engine asks of whoever owns the sockets.
pub trait Wire {
    /// Connects to `address`, sends `request` as soon as that worked, and receives until told to close.
    ///
    /// Refusing means that this process has no more sockets to give, which is no fault of the endpoint.
    fn open(&mut self, conn: ConnId, address: SocketAddr, request: &Arc<[u8]>) -> Result<(), NoSocket>;
    /// Sends another request on a connection that stands.
    fn send(&mut self, conn: ConnId, request: &Arc<[u8]>);
    /// Makes sure that a break is heard of on a connection that lives on after it has received something. Asking
    /// again costs nothing.
    fn watch(&mut self, conn: ConnId);
    /// Gives the connection up, whatever is in flight on it. Nothing more is heard of it but, if the answer
    /// is [`Close::Pending`], one [`Event::Released`].
    fn close(&mut self, conn: ConnId) -> Close;
}

/// Whether a connection that was told to close is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// It is, and its key is void.
    Done,
    /// Something is still in flight on it.
    Pending,
}

/// This process is out of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSocket;

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The handshake is done.
    Connected,
    /// The whole request has left: so many bytes.
    Sent(u64),
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
    probe: Box<Probe>,
    verdict: Verdict,
}

impl Finished {
    /// The sample, with `cpu_ns` of handling added.
    #[must_use]
    pub fn sample(&self, cpu_ns: u64) -> Sample {
        self.probe.sample(self.verdict, cpu_ns)
    }
}

/// Bounds of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Probes in flight.
    pub inflight_max: u32,
    /// Connections, idle and lingering ones included.
    pub connections_max: u32,
    /// Slots decided per call of [`Engine::start_due`].
    pub drain_max: u32,
}

/// What became of the slots so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Slots that fell due.
    pub due: u64,
    /// Slots that have become a probe's sample.
    pub sampled: u64,
    /// Slots that were missed.
    pub missed: u64,
    /// Connections opened.
    pub opened: u64,
}

/// The deciding half of a shard.
#[derive(Debug)]
pub struct Engine {
    watched: Vec<Watched>,
    pace: Pace,
    /// Endpoints whose turn it is, in a closed loop.
    ready: VecDeque<u32>,
    conns: Slab<Conn>,
    inflight: u32,
    deadlines: Deadlines,
    linger: ClassId,
    limits: Limits,
    counters: Counters,
    /// Joins the schedule's wall time and the shard's monotonic time, once and for all shards.
    anchor: Reading,
    /// Slots at or after this instant are not due any more.
    stop_at: Mono,
}

#[derive(Debug)]
struct Watched {
    id: EndpointId,
    timeout_class: ClassId,
    in_flight: bool,
    /// The idle connection of an endpoint that reuses one.
    idle: Option<ConnId>,
    plan: Plan,
}

#[derive(Debug)]
struct Conn {
    endpoint: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A probe is on it.
    Busy(Box<Probe>),
    /// Between two probes.
    Idle,
    /// Done; the origin's FIN is awaited.
    Lingering,
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
        anchor: Reading,
    ) -> Self {
        let mut deadlines = Deadlines::default();
        let linger = deadlines.class(config::LINGER);
        let mut watched = Vec::with_capacity(endpoints.len());
        for (id, plan) in endpoints {
            let timeout_class = deadlines.class(plan.timeout);
            watched.push(Watched { id, timeout_class, in_flight: false, idle: None, plan });
        }
        let count = u32::try_from(watched.len()).expect("an EndpointId has 31 bits");
        let ready = match pace {
            Pace::ClosedLoop | Pace::Once => (0..count).collect(),
            Pace::Scheduled(_) => VecDeque::new(),
        };
        Self {
            watched,
            pace,
            ready,
            conns: Slab::new(limits.connections_max),
            inflight: 0,
            deadlines,
            linger,
            limits,
            counters: Counters::default(),
            anchor,
            stop_at: Mono::NEVER,
        }
    }

    /// Slots before `now` are nobody's: they fell due while the endpoints were being loaded.
    pub fn begin(&mut self, now: Mono) {
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
    pub const fn inflight(&self) -> u32 {
        self.inflight
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
        ends && self.inflight == 0 && self.next_due(now).is_none()
    }

    /// When to come back if nothing happens: the next slot or the next deadline.
    #[must_use]
    pub fn next_wake(&self, now: Mono) -> Option<Mono> {
        match (self.next_due(now), self.deadlines.next()) {
            (Some(due), Some(deadline)) => Some(due.min(deadline)),
            (due, deadline) => due.or(deadline),
        }
    }

    /// Not later than the first deadline.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.next()
    }

    /// Decides the slots that are due, at most `drain_max` of them; whether some are left.
    ///
    /// The bound keeps what a stall has left behind from becoming a burst: between two calls the driver looks
    /// at what came back.
    pub fn start_due(&mut self, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) -> bool {
        for _ in 0..self.limits.drain_max {
            let Some((endpoint, slot)) = self.pop_due(now) else { return false };
            self.counters.due += 1;
            self.decide(endpoint, slot, now, wire, record);
        }
        self.next_due(now).is_some_and(|due| due <= now)
    }

    /// Ends what has run out of time.
    pub fn expire(&mut self, now: Mono, wire: &mut impl Wire, record: &mut impl FnMut(Sample)) {
        while let Some(index) = self.deadlines.expire(now) {
            let key = self.conns.key_at(index).expect("only what lives is armed");
            let conn = self.conns.at(key).expect("the key is fresh");
            if let State::Busy(probe) = &mut conn.state {
                let verdict = probe.timed_out();
                record(self.finish(key, verdict, now, wire).sample(0));
            } else {
                self.close(key, wire);
            }
        }
    }

    /// Takes note of what happened at `seen`; the probe that this ended, if any.
    ///
    /// An event for a connection that is no more is ignored: the kernel may have had it under way.
    pub fn handle(
        &mut self,
        key: ConnId,
        event: Event<'_>,
        seen: Mono,
        wire: &mut impl Wire,
    ) -> Option<Finished> {
        let conn = self.conns.at(key)?;
        let plan = &self.watched[conn.endpoint as usize].plan;
        match (&mut conn.state, event) {
            (_, Event::Released) => {
                self.release(key);
                None
            }
            (State::Busy(probe), Event::Connected) => {
                probe.connected(seen);
                None
            }
            (State::Busy(probe), Event::Sent(bytes)) => {
                probe.sent(bytes);
                None
            }
            (State::Busy(probe), Event::Received { bytes, arrived }) => {
                let Some(verdict) = probe.received(plan, bytes, arrived, seen) else {
                    wire.watch(key);
                    return None;
                };
                Some(self.finish(key, verdict, seen, wire))
            }
            (State::Busy(probe), Event::Broken(how)) => {
                let verdict = probe.broken(plan, how, seen);
                Some(self.finish(key, verdict, seen, wire))
            }
            // FIN is what an idle or lingering connection waits for; bytes nobody asked for make it unfit.
            (State::Idle | State::Lingering, Event::Broken(_) | Event::Received { .. }) => {
                self.close(key, wire);
                None
            }
            (State::Idle | State::Lingering | State::Closing, _) => None,
        }
    }

    /// Adds `cpu_ns` of handling to the probe on `key`, if there is one.
    pub fn charge(&mut self, key: ConnId, cpu_ns: u64) {
        if let Some(Conn { state: State::Busy(probe), .. }) = self.conns.at(key) {
            probe.charge(cpu_ns);
        }
    }

    /// Closes every connection that no probe is on.
    pub fn close_idle(&mut self, wire: &mut impl Wire) {
        let keys: Vec<ConnId> = self.conns.keys().collect();
        for key in keys {
            let conn = self.conns.at(key).expect("listed just now");
            if matches!(conn.state, State::Idle | State::Lingering) {
                self.close(key, wire);
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
                Some((endpoint, Slot { at: self.anchor.wall_of(now), lag: Micros(0), late: false }))
            }
            Pace::Scheduled(schedule) => {
                let now = self.anchor.wall_of(now);
                let due = schedule.pop_due(now)?;
                let lag = Micros((now - due.scheduled_at).max(0).cast_unsigned());
                // Its own next slot is due already: probing now would only make that one overlap.
                let late = lag >= due.interval;
                Some((due.endpoint, Slot { at: due.scheduled_at, lag, late }))
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
        let missed = if watched.in_flight {
            Some(MissReason::Overlap)
        } else if slot.late {
            Some(MissReason::Late)
        } else if self.inflight >= self.limits.inflight_max {
            Some(MissReason::InflightLimit)
        } else {
            match watched.plan.address {
                Ok(address) => self.start(endpoint, &slot, address, now, wire).err(),
                Err(failure) => {
                    self.counters.sampled += 1;
                    record(unresolved_sample(&watched.plan, watched.id, slot.at, slot.lag, failure));
                    None
                }
            }
        };
        if let Some(reason) = missed {
            let watched = &self.watched[endpoint as usize];
            self.counters.missed += 1;
            record(Sample::missed(slot.at, watched.id, slot.lag, reason, watched.plan.flags()));
        }
    }

    fn start(
        &mut self,
        endpoint: u32,
        slot: &Slot,
        address: SocketAddr,
        now: Mono,
        wire: &mut impl Wire,
    ) -> Result<(), MissReason> {
        let watched = &mut self.watched[endpoint as usize];
        let idle = watched.idle.take();
        let served_before = idle.is_some();
        let probe = Box::new(Probe::start(&watched.plan, watched.id, slot.at, slot.lag, now, served_before));
        let state = State::Busy(probe);
        let key = if let Some(key) = idle {
            self.conns.at(key).expect("an idle connection lives").state = state;
            wire.send(key, &watched.plan.request);
            key
        } else {
            let key =
                self.conns.insert(Conn { endpoint, state }).map_err(|_full| MissReason::InflightLimit)?;
            if wire.open(key, address, &watched.plan.request) == Err(NoSocket) {
                self.conns.remove(key);
                return Err(MissReason::InflightLimit);
            }
            self.counters.opened += 1;
            key
        };
        watched.in_flight = true;
        self.inflight += 1;
        self.deadlines.arm(key.index, watched.timeout_class, now);
        Ok(())
    }

    /// Takes the probe off its connection, and decides what becomes of that.
    fn finish(&mut self, key: ConnId, verdict: Verdict, now: Mono, wire: &mut impl Wire) -> Finished {
        let conn = self.conns.at(key).expect("a busy connection lives");
        let endpoint = conn.endpoint;
        let watched = &mut self.watched[endpoint as usize];
        let wanted = watched.plan.connection == Connection::Reuse && now < self.stop_at;
        let parting = match verdict.parting {
            Parting::Keep if !wanted => Parting::Linger,
            parting => parting,
        };
        let next = if parting == Parting::Keep { State::Idle } else { State::Lingering };
        let State::Busy(probe) = std::mem::replace(&mut conn.state, next) else {
            unreachable!("only a busy connection has a probe to finish")
        };
        watched.in_flight = false;
        self.inflight -= 1;
        self.counters.sampled += 1;
        self.deadlines.disarm(key.index);
        match parting {
            Parting::Keep => {
                watched.idle = Some(key);
                wire.watch(key);
            }
            Parting::Linger => self.deadlines.arm(key.index, self.linger, now),
            Parting::Close => self.close(key, wire),
        }
        if matches!(self.pace, Pace::ClosedLoop) {
            self.ready.push_back(endpoint);
        }
        Finished { probe, verdict }
    }

    fn close(&mut self, key: ConnId, wire: &mut impl Wire) {
        self.deadlines.disarm(key.index);
        let conn = self.conns.at(key).expect("only what lives is closed");
        debug_assert!(!matches!(conn.state, State::Busy(_) | State::Closing), "closed once, when idle");
        conn.state = State::Closing;
        let watched = &mut self.watched[conn.endpoint as usize];
        if watched.idle == Some(key) {
            watched.idle = None;
        }
        if wire.close(key) == Close::Done {
            self.release(key);
        }
    }

    fn release(&mut self, key: ConnId) {
        let conn = self.conns.remove(key).expect("released once");
        debug_assert!(matches!(conn.state, State::Closing), "the wire releases what it was told to close");
    }
}

/// A slot on its way to a decision.
#[derive(Debug)]
struct Slot {
    at: Wall,
    lag: Micros,
    late: bool,
}
