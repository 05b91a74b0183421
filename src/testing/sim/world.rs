//! One world: the shard's turn as `shard/mod.rs` makes it, in virtual time, with everything around it.
//!
//! ```text
//! turn:  expire ─► start what is due ─► (time passes, the agent may stall) ─► completions ─► (may stall again)
//! ```
//!
//! Invariant: whatever is drawn for the agent and the network is drawn from streams of their own, so that the
//! same seed with another database is the same world to every endpoint.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use rtrb::Producer;
use url::Host;

use super::check::{Checker, Ledger, Watched};
use super::clock::{Random, mix};
use super::database::{Database, Writer};
use super::network::{CHARACTERS, Character, Completion, Network, Origin};
use crate::clock::{Micros, Mono, Reading};
use crate::dns;
use crate::endpoint::Connection;
use crate::http::request::{Parts, Template};
use crate::policy::Policy;
use crate::probe::{Departure, Expect, HostPort, Plan, Profile};
use crate::sample::{EndpointId, Sample};
use crate::schedule::Schedule;
use crate::shard;
use crate::shard::engine::{
    Close, ConnId, Engine, Event, Finished, Limits, NoSocket, Pace, Route, Surroundings, Wire,
};
use crate::shard::origins::Share;
use crate::tls;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// How large a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Days of a few endpoints at 30 to 300 s.
    Long,
    /// Minutes of hundreds of endpoints at 1 to 30 s.
    Dense,
}

/// Who the origins are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origins {
    /// A mixture that the seed chooses.
    Mixed,
    /// All alike.
    All(Character),
}

/// A fault put in on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// The wire says twice that a connection is gone.
    ReleasesTwice,
    /// The wire sometimes forgets to say that a connection is gone.
    ForgetsReleases,
    /// The naive formula is off by a microsecond.
    ShiftedSlots,
    /// Some samples never leave the shard.
    LosesSamples,
    /// Some samples vanish between shard and writer, uncounted.
    LosesRows,
    /// The database applies a batch again.
    StoresTwice,
    /// The agent sleeps through deadlines.
    Oversleeps,
    /// Deadlines are compared with a time until which completions were not looked at.
    ExpiresUnseen,
    /// The agent waits until a batch is stored.
    WaitsForDatabase,
    /// The agent forgets a connection's end.
    LosesCompletions,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// How large.
    pub scale: Scale,
    /// Who the origins are.
    pub origins: Origins,
    /// Whether the database is ever away.
    pub database_fails: bool,
    /// What is broken on purpose.
    pub breakage: Option<Breakage>,
}

impl Options {
    /// The world of `seed`: mixed origins, and a database that comes and goes.
    #[must_use]
    pub const fn new(seed: u64, scale: Scale) -> Self {
        Self { seed, scale, origins: Origins::Mixed, database_fails: true, breakage: None }
    }
}

/// What a world came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Virtual time, s.
    pub simulated_s: u64,
    /// Slots.
    pub due: u64,
    /// Of these, probed.
    pub sampled: u64,
    /// Of these, not probed.
    pub missed: u64,
    /// Probes that found their endpoint up.
    pub up: u64,
    /// Connections.
    pub opened: u64,
    /// Rows in the database.
    pub stored: u64,
    /// Rows dropped, by the ring or the queue.
    pub dropped: u64,
    /// Every sample in order, folded.
    pub samples: u64,
    /// The set of slots, folded.
    pub slots: u64,
    /// Every call and completion in order, folded.
    pub trace: u64,
}

/// A promise that was not kept.
#[derive(Debug)]
pub struct Violation {
    /// Which world.
    pub options: Options,
    /// When, on the simulated monotonic clock.
    pub at: Mono,
    /// What is wrong.
    pub message: String,
    trail: Trail,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.message)?;
        writeln!(f, "at {} ns in {:?}", self.at.0, self.options)?;
        writeln!(f, "the last events:\n{}", self.trail)?;
        write!(f, "replay: SEED={} scripts/test sim", self.options.seed)
    }
}

/// The last events, and a hash of all.
#[derive(Debug, Default)]
struct Trail {
    last: VecDeque<(Mono, Note)>,
    hash: u64,
}

#[derive(Clone, Copy, Debug)]
enum Note {
    Open(ConnId, usize),
    NoSocket(usize),
    Send(ConnId),
    Close(ConnId, Close),
    Connected(ConnId),
    Sent(ConnId, u64),
    Received(ConnId, usize),
    Broken(ConnId, crate::probe::Broken),
    Released(ConnId),
    Recorded(EndpointId, i16, i32),
    Stall(u64),
}

/// How many events a violation shows.
const TRAIL: usize = 30;

impl Trail {
    fn note(&mut self, at: Mono, note: Note) {
        let id = |key: ConnId| u64::from(key.index) << 24 | u64::from(key.generation);
        let word = match note {
            Note::Open(key, endpoint) => mix(id(key)) ^ endpoint as u64,
            Note::NoSocket(endpoint) => mix(1) ^ endpoint as u64,
            Note::Send(key) => mix(id(key) ^ 2 << 60),
            Note::Close(key, how) => mix(id(key) ^ 3 << 60) ^ u64::from(how == Close::Done),
            Note::Connected(key) => mix(id(key) ^ 4 << 60),
            Note::Sent(key, bytes) => mix(id(key) ^ 5 << 60) ^ bytes,
            Note::Received(key, bytes) => mix(id(key) ^ 6 << 60) ^ bytes as u64,
            Note::Broken(key, how) => mix(id(key) ^ 7 << 60) ^ how as u64,
            Note::Released(key) => mix(id(key) ^ 8 << 60),
            Note::Recorded(id, reason, total_us) => {
                mix(u64::from(id.0.cast_unsigned()) << 32 | u64::from(total_us.cast_unsigned()))
                    ^ u64::from(reason.cast_unsigned())
            }
            Note::Stall(ns) => mix(ns),
        };
        self.hash = mix(self.hash ^ word ^ at.0);
        if self.last.len() == TRAIL {
            self.last.pop_front();
        }
        self.last.push_back((at, note));
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.iter().try_for_each(|(at, note)| writeln!(f, "  {:>18} {note:?}", at.0))
    }
}

/// The engine's wire: the network, with every call entered in the ledger.
#[derive(Debug)]
struct Recorder {
    network: Network,
    ledger: Ledger,
    trail: Trail,
    broken: Option<String>,
    /// See [`Breakage::ExpiresUnseen`].
    expires_unseen: bool,
}

impl Recorder {
    fn keep(&mut self, result: Result<(), String>) {
        if let Err(message) = result {
            self.broken.get_or_insert(message);
        }
    }
}

impl Wire for Recorder {
    fn open(&mut self, conn: ConnId, route: Route<'_>) -> Result<(), NoSocket> {
        let endpoint = (0..).find(|n| Origin::address(*n) == route.address).unwrap_or_default() as usize;
        let opened = self.network.open(conn, route);
        let now = self.network.now;
        match opened {
            Ok(()) => {
                self.trail.note(now, Note::Open(conn, endpoint));
                let result = self.ledger.open(conn, endpoint);
                self.keep(result);
            }
            Err(NoSocket(_)) => self.trail.note(now, Note::NoSocket(endpoint)),
        }
        opened
    }

    fn send(&mut self, conn: ConnId, request: &Arc<[u8]>) -> Departure {
        self.trail.note(self.network.now, Note::Send(conn));
        let result = self.ledger.send(conn);
        self.keep(result);
        self.network.send(conn, request)
    }

    fn has_news(&mut self, conn: ConnId) -> bool {
        !self.expires_unseen && self.network.has_news(conn)
    }

    fn watch(&mut self, conn: ConnId) {
        self.network.watch(conn);
    }

    fn close(&mut self, conn: ConnId, abruptly: bool) -> Close {
        let how = self.network.close(conn, abruptly);
        self.trail.note(self.network.now, Note::Close(conn, how));
        let result = self.ledger.close(conn, how == Close::Done);
        self.keep(result);
        how
    }
}

struct World {
    options: Options,
    engine: Engine,
    wire: Recorder,
    checker: Checker,
    ring: Producer<Sample>,
    writer: Writer,
    database: Database,
    agent: Random,
    now: Mono,
    start: Mono,
    stop_at: Mono,
    stop_called_at: Mono,
    timeout_max: Micros,
    stall_max_ns: u64,
    stamps: Stamps,
    drain_max: u32,
    ring_dropped: u64,
    pending: Vec<Sample>,
    recorded: u64,
}

/// What kernel receive times are like in this world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamps {
    Good,
    SomeMissing,
    /// The wall clock is stepped now and then.
    SomeWrong,
}

/// Runs a world to its end.
///
/// # Errors
/// The first promise that was not kept.
pub fn run(options: &Options) -> Result<Report, Box<Violation>> {
    let mut world = World::new(options);
    match world.live() {
        Ok(report) => Ok(report),
        Err(message) => Err(Box::new(Violation {
            options: *options,
            at: world.now,
            message,
            trail: std::mem::take(&mut world.wire.trail),
        })),
    }
}

impl World {
    fn new(options: &Options) -> Self {
        let mut random = Random::new(options.seed, 1);
        let (count, hours_ns, intervals) = match options.scale {
            Scale::Long => (
                random.between(10, 30),
                random.between(50, 350) * 3_600 * SECOND,
                (30 * SECOND, 300 * SECOND),
            ),
            Scale::Dense => {
                (random.between(100, 500), random.between(3, 30) * 60 * SECOND, (SECOND, 30 * SECOND))
            }
        };
        let start = Mono(random.between(SECOND, 1_000_000 * SECOND));
        let real_ns = 1_700_000_000 * SECOND + random.draw() % (1_000_000 * SECOND);
        let anchor = Reading { mono: Mono(start.0 - random.between(0, SECOND)), real_ns };
        let stamps = [Stamps::Good, Stamps::Good, Stamps::SomeMissing, Stamps::SomeWrong];
        let stamps = stamps[usize::try_from(random.between(0, 3)).unwrap_or(0)];
        let stall_max_ns =
            [0, MS, 15 * MS, 2 * SECOND, 20 * SECOND][usize::try_from(random.between(0, 4)).unwrap_or(0)];
        let stop_at = Mono(start.0 + hours_ns + random.draw() % (300 * SECOND));
        // The command comes before the instant it names, or with it.
        let ahead = if random.chance(500) { random.between_orders(0, 60 * SECOND) } else { 0 };

        let url = "http://sim/".parse().expect("it is a URL");
        let request = Template::new(&Parts::new("GET", &url)).expect("it can be sent");
        let (mut plans, mut origins, mut watched, mut slots) = (vec![], vec![], vec![], vec![]);
        for endpoint in 0..u32::try_from(count).unwrap_or(1) {
            let id = EndpointId(endpoint.cast_signed() + 1);
            let character = match options.origins {
                Origins::All(character) => character,
                // Half of the world is well.
                Origins::Mixed if random.chance(400) => Character::Fast,
                Origins::Mixed => {
                    CHARACTERS[usize::try_from(random.draw() % CHARACTERS.len() as u64).unwrap_or(0)]
                }
            };
            // Few distinct intervals and timeouts, as people have them, and some odd ones.
            let interval_ms = if random.chance(700) {
                let common = [1_000, 5_000, 10_000, 30_000, 60_000, 300_000];
                let found = common[usize::try_from(random.between(0, 5)).unwrap_or(0)];
                found.clamp(intervals.0 / MS, intervals.1 / MS)
            } else {
                random.between(intervals.0 / MS, intervals.1 / MS)
            };
            let timeout_ms = if random.chance(500) { 2_000 } else { random.between_orders(800, 10_000) };
            let (interval, timeout) = (Micros::from_millis(interval_ms), Micros::from_millis(timeout_ms));
            let kept = random.chance(500);
            origins.push(Origin::new(character, kept, timeout, &mut random));
            let host = if character == Character::Nameless {
                Host::Domain("nameless.invalid".to_owned())
            } else {
                Host::Ipv4(Origin::ip(endpoint))
            };
            let connection = if kept { Connection::Reuse } else { Connection::Fresh };
            let expect = Expect { decode: character == Character::Coded, ..Expect::default() };
            let plan = Plan {
                origin: Arc::new(HostPort { tls: false, host, port: Origin::PORT }),
                request: request.clone(),
                profile: Arc::new(Profile { timeout, connection, expect, ..Profile::default() }),
            };
            plans.push((id, plan));
            slots.push((endpoint, id, interval));
            watched.push(Watched { id, interval, timeout, kept, character });
        }

        let timeout_max = watched.iter().map(|watched| watched.timeout).max().unwrap_or_default();
        let start_wall = anchor.wall_of(start);
        let schedule = Schedule::new(slots.into_iter(), start_wall);
        let endpoints_count = u32::try_from(count).unwrap_or(1);
        let tight = random.chance(300);
        let limits = Limits {
            inflight_max: if tight { endpoints_count / 8 + 1 } else { endpoints_count },
            connections_max: if random.chance(200) { endpoints_count / 2 + 2 } else { endpoints_count * 3 },
            origin: Share::NONE,
            budgets: shard::restraint::Budgets::default(),
        };
        let shift_us = i64::from(options.breakage == Some(Breakage::ShiftedSlots));
        let checked_stall_ns = 2 * stall_max_ns + 10 * MS;
        let checker = Checker::new(
            watched,
            (start_wall, stop_at),
            anchor,
            stamps == Stamps::Good,
            checked_stall_ns,
            shift_us,
        );
        let mut network = Network::new(origins, Random::new(options.seed, 2));
        network.no_socket = if random.chance(300) { 20 } else { 0 };
        let ring_rows = usize::try_from(random.between_orders(50, 4_000)).unwrap_or(50);
        let (ring, samples) = rtrb::RingBuffer::new(ring_rows);
        let queue_bytes = usize::try_from(random.between_orders(64 * 100, 64 * 100_000)).unwrap_or(6_400);
        let writer = Writer::new(samples, Random::new(options.seed, 4), queue_bytes);
        let mut database = Database::new(Random::new(options.seed, 5), options.database_fails);
        database.ignores_cursor = options.breakage == Some(Breakage::StoresTwice);
        // Without a server nothing is ever asked: names are tested where DNS is.
        let surroundings = Surroundings {
            anchor,
            resolver: dns::Resolver::new(
                dns::Settings { servers: Vec::new(), ..dns::Settings::default() },
                dns::Entropy::seeded(options.seed),
            ),
            policy: Arc::new(Policy::default()),
            roots: tls::Roots::bundled(),
            random: shard::random::Random::new(options.seed),
        };
        Self {
            options: *options,
            engine: Engine::new(plans.into_iter(), Pace::Scheduled(schedule), limits, surroundings),
            wire: Recorder {
                network,
                ledger: Ledger::new(usize::try_from(count).unwrap_or(1)),
                trail: Trail::default(),
                broken: None,
                expires_unseen: options.breakage == Some(Breakage::ExpiresUnseen),
            },
            checker,
            ring,
            writer,
            database,
            agent: Random::new(options.seed, 3),
            now: start,
            start,
            stop_at,
            stop_called_at: Mono(stop_at.0 - ahead),
            timeout_max,
            stall_max_ns,
            stamps,
            drain_max: if tight { 3 } else { crate::config::DRAIN_PER_TURN_MAX },
            ring_dropped: 0,
            pending: Vec::new(),
            recorded: 0,
        }
    }

    fn live(&mut self) -> Result<Report, String> {
        let mut completions = Vec::new();
        let mut idle_turns = 0;
        loop {
            if self.now >= self.stop_called_at {
                self.engine.stop(self.stop_at);
            }
            let before = (self.engine.counters().due, self.recorded);
            let more_due = self.decide()?;
            if self.engine.is_drained(self.now) {
                break;
            }
            self.advance(more_due)?;
            self.wire.network.completions(&mut completions);
            let idle = completions.is_empty() && before == (self.engine.counters().due, self.recorded);
            idle_turns = if idle { idle_turns + 1 } else { 0 };
            if idle_turns > IDLE_TURNS_MAX {
                return Err(format!("{idle_turns} turns in which nothing happened: the agent spins"));
            }
            let mut seen = self.now;
            for (key, completion) in completions.drain(..) {
                self.deliver(key, &completion, seen)?;
                seen = Mono(seen.0 + self.agent.between(US, 20 * US));
            }
            self.now = seen;
            self.stall();
            let latest = Mono((self.stop_at + self.timeout_max).0 + 4 * self.stall_max_ns + SECOND);
            if self.now > latest {
                return Err(format!("not drained {} ns after the stop", self.now.0 - self.stop_at.0));
            }
        }
        self.checker.drained()?;
        self.part()?;
        self.settle()?;
        let counters = self.engine.counters();
        Ok(Report {
            simulated_s: (self.now.0 - self.start.0) / SECOND,
            due: counters.due,
            sampled: counters.sampled,
            missed: counters.missed,
            up: self.checker.up,
            opened: counters.opened,
            stored: self.checker.visible,
            dropped: self.ring_dropped + self.writer.dropped,
            samples: self.checker.fingerprint,
            slots: self.checker.slots,
            trace: self.wire.trail.hash,
        })
    }

    /// Expires and starts what is due, as the driver does at the beginning of a turn.
    fn decide(&mut self) -> Result<bool, String> {
        let mut samples = std::mem::take(&mut self.pending);
        let mut record = |sample| samples.push(sample);
        self.wire.network.now = self.now;
        self.engine.expire(self.now, &mut self.wire, &mut record);
        let mut more_due = true;
        for _ in 0..self.drain_max {
            more_due = more_due && self.engine.start_due(self.now, &mut self.wire, &mut record);
        }
        for sample in samples.drain(..) {
            self.record(sample)?;
        }
        self.pending = samples;
        for _ in 0..crate::config::DECODE_GOES_PER_TURN {
            let Some((key, finished)) = self.engine.catch_up(self.now, &mut self.wire) else { break };
            self.account(key, finished, self.now)?;
        }
        self.balance()?;
        Ok(more_due)
    }

    /// Time passes until there is something to do, and a little more.
    fn advance(&mut self, more_due: bool) -> Result<(), String> {
        let mut until = Mono(self.now.0 + self.agent.between(US, 30 * US));
        if !more_due {
            let mut wake = self.stop_at.max(self.now);
            if self.now < self.stop_called_at {
                wake = wake.min(self.stop_called_at);
            }
            let wakes = [self.engine.next_wake(self.now), self.wire.network.next_at()];
            let earliest = wakes.into_iter().flatten().min().unwrap_or(wake);
            until = until.max(earliest);
        }
        if self.options.breakage == Some(Breakage::Oversleeps) && self.agent.chance(5) {
            until = Mono(until.0 + 60 * SECOND);
        }
        self.now = until;
        self.stall();
        self.store_until(self.now)?;
        if self.options.breakage == Some(Breakage::WaitsForDatabase) {
            while !self.writer.is_empty()
                && let Some(at) = self.writer.next_at()
            {
                self.now = self.now.max(at);
                self.store_until(at)?;
            }
        }
        self.wire.network.now = self.now;
        Ok(())
    }

    /// Now and then the agent is kept from running.
    fn stall(&mut self) {
        if self.stall_max_ns > 0 && self.agent.chance(2) {
            let ns = self.agent.between_orders(US, self.stall_max_ns);
            self.now = Mono(self.now.0 + ns);
            self.wire.trail.note(self.now, Note::Stall(ns));
        }
    }

    fn deliver(&mut self, key: ConnId, completion: &Completion, seen: Mono) -> Result<(), String> {
        self.wire.network.now = seen;
        let event = match completion {
            Completion::Connected => {
                self.wire.trail.note(seen, Note::Connected(key));
                Event::Connected { round_trip: Some(self.wire.network.round_trip(key)) }
            }
            Completion::Sent(bytes) => {
                self.wire.trail.note(seen, Note::Sent(key, *bytes));
                self.wire.ledger.sent(key);
                Event::Sent { bytes: *bytes, by: seen }
            }
            Completion::Received { of, from, to, at } => {
                self.wire.trail.note(seen, Note::Received(key, to - from));
                self.wire.ledger.stirred(key);
                let arrived = match self.stamps {
                    Stamps::SomeMissing if self.agent.chance(100) => None,
                    Stamps::SomeWrong if self.agent.chance(50) => {
                        let step = self.agent.between_orders(US, 100 * SECOND);
                        Some(Mono(if self.agent.chance(500) {
                            at.0 + step
                        } else {
                            at.0.saturating_sub(step)
                        }))
                    }
                    _ => Some(*at),
                };
                Event::Received { bytes: &of[*from..*to], arrived }
            }
            Completion::Broken(how) => {
                if self.options.breakage == Some(Breakage::LosesCompletions) {
                    return Ok(());
                }
                self.wire.trail.note(seen, Note::Broken(key, *how));
                self.wire.ledger.stirred(key);
                Event::Broken(*how)
            }
            Completion::Released => {
                if self.options.breakage == Some(Breakage::ForgetsReleases) && self.agent.chance(100) {
                    return Ok(());
                }
                self.wire.trail.note(seen, Note::Released(key));
                self.wire.ledger.released(key)?;
                if self.options.breakage == Some(Breakage::ReleasesTwice) {
                    self.wire.ledger.released(key)?;
                }
                Event::Released
            }
        };
        let finished = self.engine.handle(key, event, seen, &mut self.wire);
        self.account(key, finished, seen)?;
        self.balance()
    }

    /// What handling something cost, what it ended, and what is to be done about it.
    fn account(&mut self, key: ConnId, finished: Option<Finished>, seen: Mono) -> Result<(), String> {
        let cpu_ns = self.agent.between(100, 5_000);
        match finished {
            None => self.engine.charge(key, cpu_ns),
            Some(finished) => {
                let mut samples = Vec::new();
                self.engine.report(finished, cpu_ns, &mut |sample| samples.push(sample));
                let endpoint =
                    self.wire.ledger.endpoint(key).ok_or("a probe ended on nobody's connection")?;
                let origin = self.wire.network.origin(endpoint);
                let fit = origin.kept && (origin.character.keeps() || origin.character == Character::Surplus);
                self.wire.ledger.ended(key, fit);
                self.now = seen;
                for sample in samples {
                    self.record(sample)?;
                }
            }
        }
        let mut samples = std::mem::take(&mut self.pending);
        self.engine.settle(Mono(seen.0 + cpu_ns), &mut self.wire, &mut |sample| samples.push(sample));
        for sample in samples.drain(..) {
            self.record(sample)?;
        }
        self.pending = samples;
        Ok(())
    }

    fn record(&mut self, sample: Sample) -> Result<(), String> {
        self.recorded += 1;
        let lost = |breakage| self.options.breakage == Some(breakage) && self.recorded.is_multiple_of(1_000);
        if lost(Breakage::LosesSamples) {
            return Ok(());
        }
        let note = Note::Recorded(sample.endpoint_id, sample.reason, sample.total_us);
        self.wire.trail.note(self.now, note);
        self.checker.record(&sample, self.now)?;
        if lost(Breakage::LosesRows) {
            return Ok(());
        }
        if self.ring.push(sample).is_err() {
            self.ring_dropped += 1;
        }
        self.writer.notice(self.now);
        Ok(())
    }

    /// What must hold at every moment.
    fn balance(&mut self) -> Result<(), String> {
        if let Some(message) = self.wire.broken.take() {
            return Err(message);
        }
        let counters = self.engine.counters();
        let inflight = u64::from(self.engine.inflight());
        if counters.due != counters.sampled + counters.missed + inflight {
            return Err(format!("due is not sampled + missed + in flight ({inflight}): {counters:?}"));
        }
        if self.wire.ledger.opened != counters.opened {
            return Err(format!("{} connections opened: {counters:?}", self.wire.ledger.opened));
        }
        Ok(())
    }

    /// Writer and database go on until `until`.
    fn store_until(&mut self, until: Mono) -> Result<(), String> {
        let mut broken = Ok(());
        while let Some(at) = [self.writer.next_at(), self.database.next_at()].into_iter().flatten().min()
            && at <= until
        {
            let checker = &mut self.checker;
            self.database.advance(at, &mut |row| {
                if let Err(message) = checker.stored(row) {
                    broken = Err(message);
                }
            });
            self.writer.advance(at, &mut self.database);
        }
        broken
    }

    /// The shard has ended: its connections are closed, and every one is released.
    fn part(&mut self) -> Result<(), String> {
        let mut completions = Vec::new();
        self.wire.network.now = self.now;
        self.engine.close_idle(&mut self.wire);
        let end = Mono(self.now.0 + 3_600 * SECOND);
        while let Some(at) = self.wire.network.next_at().filter(|at| *at <= end) {
            self.wire.network.now = at;
            self.wire.network.completions(&mut completions);
            for (key, completion) in completions.drain(..) {
                self.deliver(key, &completion, at)?;
            }
        }
        self.balance()?;
        if self.wire.ledger.busy() > 0 {
            return Err("a connection is busy after the end".to_owned());
        }
        self.wire.ledger.closed()
    }

    /// The writer goes on for a while; then every row must be in one place, and in one only.
    fn settle(&mut self) -> Result<(), String> {
        self.store_until(self.now)?;
        self.writer.finish(self.now, &mut self.database);
        let patience = self.agent.between(0, 3_600) * SECOND;
        self.store_until(Mono(self.now.0 + patience))?;
        let counters = self.engine.counters();
        let accounted = self.writer.stored + self.writer.waiting() + self.writer.dropped + self.ring_dropped;
        if counters.sampled + counters.missed != accounted {
            return Err(format!(
                "{} samples, of which {} stored, {} waiting, {} and {} dropped",
                counters.sampled + counters.missed,
                self.writer.stored,
                self.writer.waiting(),
                self.writer.dropped,
                self.ring_dropped
            ));
        }
        // A commit whose answer is not known yet is in the database, and still waiting here.
        let visible = self.checker.visible;
        if visible < self.writer.stored || visible > self.writer.stored + self.writer.waiting() {
            return Err(format!("{visible} rows are there, {} were acknowledged", self.writer.stored));
        }
        Ok(())
    }
}

/// Turns in a row in which nothing happened: stale deadlines explain a few, and only a few.
const IDLE_TURNS_MAX: u32 = 200;
