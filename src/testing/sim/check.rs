//! The checker: what must hold, computed in another way than the code under test computes it.
//!
//! Slots come from the definition (`k · interval + phase`), one bit each; connections from a ledger of every
//! call and event; the truth about an origin from its character. Invariant: a [`Checker`] never changes what
//! happens.

use super::clock::mix;
use super::network::Character;
use crate::clock::{Micros, Mono, Reading, Wall};
use crate::endpoint::phase32;
use crate::sample::{ABSENT, EndpointId, Failure, Flags, Outcome, Phases, Sample};
use crate::shard::engine::ConnId;

/// What was promised and not kept.
pub type Broken = String;

/// One endpoint as the checker knows it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its key.
    pub id: EndpointId,
    /// From slot to slot.
    pub interval: Micros,
    /// From start to verdict.
    pub timeout: Micros,
    /// Whether it keeps its connection.
    pub kept: bool,
    /// Who answers.
    pub character: Character,
}

/// Everything that is checked sample by sample.
#[derive(Debug)]
pub struct Checker {
    endpoints: Vec<Slots>,
    anchor: Reading,
    /// Whether kernel times can be had and trusted; else an endpoint may be judged by when we looked.
    stamped: bool,
    /// The longest the agent may look away, ns.
    stall_max_ns: u64,
    /// Samples, folded: two runs that were the same have the same.
    pub fingerprint: u64,
    /// Samples by slot alone, whatever their outcome and order.
    pub slots: u64,
    /// Samples that came.
    pub recorded: u64,
    /// Rows seen in the database.
    pub visible: u64,
    /// Probes found up.
    pub up: u64,
}

#[derive(Debug)]
struct Slots {
    watched: Watched,
    first_us: i64,
    count: u64,
    recorded: Vec<u64>,
    visible: Vec<u64>,
}

macro_rules! hold {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

impl Checker {
    /// A checker of the slots from `start` to before `stop`, shifted by `shift_us` to see that it notices.
    #[must_use]
    pub fn new(
        endpoints: Vec<Watched>,
        (start, stop): (Wall, Mono),
        anchor: Reading,
        stamped: bool,
        stall_max_ns: u64,
        shift_us: i64,
    ) -> Self {
        let endpoints = endpoints
            .into_iter()
            .map(|watched| {
                let interval_us = watched.interval.0.cast_signed();
                let phase_us = (i128::from(phase32(watched.id)) * i128::from(interval_us)) >> 32;
                let phase_us = i64::try_from(phase_us).expect("below the interval");
                let cycles = (start.0 - phase_us).div_euclid(interval_us);
                let mut first_us = cycles * interval_us + phase_us;
                if first_us < start.0 {
                    first_us += interval_us;
                }
                first_us += shift_us;
                let mut count = 0;
                while anchor.mono_of(Wall(first_us + count * interval_us)) < stop {
                    count += 1;
                }
                let words = usize::try_from(count / 64 + 1).expect("hours, not ages");
                let (recorded, visible) = (vec![0; words], vec![0; words]);
                Slots { watched, first_us, count: count.unsigned_abs(), recorded, visible }
            })
            .collect();
        Self {
            endpoints,
            anchor,
            stamped,
            stall_max_ns,
            fingerprint: 0,
            slots: 0,
            recorded: 0,
            visible: 0,
            up: 0,
        }
    }

    /// A sample left the engine at `now`.
    pub fn record(&mut self, sample: &Sample, now: Mono) -> Result<(), Broken> {
        let endpoint = endpoint_of(sample);
        let slots = self.endpoints.get_mut(endpoint).ok_or_else(|| format!("nobody's sample: {sample:?}"))?;
        let slot = slots.slot_of(sample)?;
        hold!(set(&mut slots.recorded, slot), "slot {slot} of endpoint {endpoint} twice: {sample:?}");
        self.recorded += 1;
        let place = (endpoint as u64) << 40 | slot;
        self.slots = self.slots.wrapping_add(mix(place));
        for word in
            [place, words(sample.total_us, sample.lag_us), words(sample.reason.into(), sample.bytes_in)]
        {
            self.fingerprint = mix(self.fingerprint ^ word);
        }

        let watched = &slots.watched;
        hold!(sample.lag_us >= 0, "probed before its slot: {sample:?}");
        let decided = self.anchor.mono_of(sample.ts).0 + u64::from(sample.lag_us.unsigned_abs()) * 1_000;
        hold!(decided <= now.0, "decided in the future: {sample:?}");
        let parts = sample.phases.as_array();
        hold!(parts.iter().all(|us| *us >= ABSENT), "a negative phase: {sample:?}");
        if sample.outcome == Outcome::Missed {
            let nothing = sample.phases == Phases::NONE && sample.total_us == ABSENT && sample.bytes_in == 0;
            hold!(nothing, "a missed slot measured something: {sample:?}");
            hold!(now.0 - decided < 2_000, "missed, and recorded later: {sample:?}");
            return Ok(());
        }
        hold!(sample.phases.sum_us() == sample.total_us, "phases do not sum to the total: {sample:?}");
        hold!(sample.write_is_within_processing(), "written for longer than processed: {sample:?}");
        let within = i64::from(sample.total_us) <= watched.timeout.0.cast_signed();
        hold!(within, "longer than the timeout of {}: {sample:?}", watched.timeout);
        let latest = decided + watched.timeout.as_nanos() + 2 * self.stall_max_ns;
        hold!(now.0 <= latest, "ended {} ns later than it may: {sample:?}", now.0 - latest);
        let on_time = u64::from(sample.lag_us.unsigned_abs()) < watched.interval.0;
        hold!(on_time, "probed when the next slot was due: {sample:?}");
        let reused = sample.flags.has(Flags::REUSED);
        hold!(!reused || watched.kept, "reused without being asked: {sample:?}");
        let connects = !reused && watched.character != Character::Nameless;
        hold!((parts[1] != ABSENT) == connects, "connects if and only if fresh: {sample:?}");
        self.up += u64::from(sample.outcome == Outcome::Up);

        let failure = Failure::from_code(sample.reason);
        hold!(failure.is_none() == (sample.outcome == Outcome::Up), "outcome and reason differ: {sample:?}");
        let stalls = self.stall_max_ns > SHORT_STALL_NS;
        if self.stamped || !stalls {
            let truth = watched.character.may_end_as(failure, stalls);
            hold!(truth, "{:?} cannot end as {failure:?}: {sample:?}", watched.character);
        }
        Ok(())
    }

    /// A row became visible in the database.
    pub fn stored(&mut self, sample: &Sample) -> Result<(), Broken> {
        let endpoint = endpoint_of(sample);
        let slots = self.endpoints.get_mut(endpoint).ok_or_else(|| format!("nobody's row: {sample:?}"))?;
        let slot = slots.slot_of(sample)?;
        hold!(slots.recorded[word(slot)] & bit(slot) != 0, "stored and never recorded: {sample:?}");
        hold!(set(&mut slots.visible, slot), "stored twice: {sample:?}");
        self.visible += 1;
        Ok(())
    }

    /// The shard has drained: every slot must have its sample.
    pub fn drained(&self) -> Result<(), Broken> {
        for (endpoint, slots) in self.endpoints.iter().enumerate() {
            let recorded: u64 = slots.recorded.iter().map(|word| u64::from(word.count_ones())).sum();
            hold!(
                recorded == slots.count,
                "endpoint {endpoint}: {recorded} samples of {} slots",
                slots.count
            );
        }
        Ok(())
    }
}

/// Below this a stall changes no verdict that the characters promise.
const SHORT_STALL_NS: u64 = 50_000_000;

impl Slots {
    fn slot_of(&self, sample: &Sample) -> Result<u64, Broken> {
        let (since_us, interval_us) = (sample.ts.0 - self.first_us, self.watched.interval.0.cast_signed());
        hold!(since_us >= 0 && since_us % interval_us == 0, "not a slot of its endpoint: {sample:?}");
        let slot = (since_us / interval_us).unsigned_abs();
        hold!(slot < self.count, "a slot after the stop: {sample:?}");
        Ok(slot)
    }
}

fn endpoint_of(sample: &Sample) -> usize {
    usize::try_from(sample.endpoint_id.0 - 1).unwrap_or(usize::MAX)
}

fn words(high: i32, low: i32) -> u64 {
    u64::from(high.cast_unsigned()) << 32 | u64::from(low.cast_unsigned())
}

fn word(slot: u64) -> usize {
    usize::try_from(slot / 64).expect("as many as were allocated")
}

const fn bit(slot: u64) -> u64 {
    1 << (slot % 64)
}

/// Whether it was not set before.
fn set(bits: &mut [u64], slot: u64) -> bool {
    let before = bits[word(slot)];
    bits[word(slot)] |= bit(slot);
    before & bit(slot) == 0
}

/// Every connection, from the call that opened it to its release.
#[derive(Debug, Default)]
pub struct Ledger {
    lines: Vec<Line>,
    /// The endpoints that have a probe on a connection.
    busy: Vec<bool>,
    /// Connections opened.
    pub opened: u64,
    /// Connections released.
    pub released: u64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    key: ConnId,
    endpoint: usize,
    stands: Stands,
    /// Something happened after which no other probe may use it.
    unfit: bool,
    /// A request has been sent,
    asked: bool,
    /// and the whole of it has left.
    sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Busy,
    Rested,
    Closing,
    Gone,
}

impl Ledger {
    /// A ledger for so many endpoints.
    #[must_use]
    pub fn new(endpoints: usize) -> Self {
        Self { busy: vec![false; endpoints], ..Self::default() }
    }

    /// The engine opens a connection for a probe.
    pub fn open(&mut self, key: ConnId, endpoint: usize) -> Result<(), Broken> {
        let line = Line { key, endpoint, stands: Stands::Busy, unfit: false, asked: false, sent: false };
        match self.lines.get_mut(key.index as usize) {
            Some(old) => {
                hold!(old.stands == Stands::Gone, "{key:?} opened over {old:?}");
                hold!(old.key != key, "{key:?} opened twice");
                *old = line;
            }
            None => self.lines.push(line),
        }
        hold!(!self.busy[endpoint], "two probes of endpoint {endpoint} at once");
        self.busy[endpoint] = true;
        self.opened += 1;
        Ok(())
    }

    /// The engine sends the first request on a connection that stands, or puts another probe on it.
    pub fn send(&mut self, key: ConnId) -> Result<(), Broken> {
        let line = self.line(key)?;
        if !std::mem::replace(&mut line.asked, true) {
            hold!(
                line.stands == Stands::Busy,
                "a first request on a connection that is {:?}: {key:?}",
                line.stands
            );
            return Ok(());
        }
        hold!(line.stands == Stands::Rested, "a probe on a connection that is {:?}: {key:?}", line.stands);
        hold!(!line.unfit, "a probe on a connection that is unfit: {key:?}");
        line.stands = Stands::Busy;
        line.sent = false;
        let endpoint = line.endpoint;
        hold!(!self.busy[endpoint], "two probes of endpoint {endpoint} at once");
        self.busy[endpoint] = true;
        Ok(())
    }

    /// The engine gives a connection up.
    pub fn close(&mut self, key: ConnId, gone: bool) -> Result<(), Broken> {
        let line = self.line(key)?;
        hold!(matches!(line.stands, Stands::Busy | Stands::Rested), "{key:?} closed when {:?}", line.stands);
        if line.stands == Stands::Busy {
            let endpoint = line.endpoint;
            self.busy[endpoint] = false;
        }
        let line = self.line(key)?;
        line.stands = if gone { Stands::Gone } else { Stands::Closing };
        self.released += u64::from(gone);
        Ok(())
    }

    /// The engine is told that a connection is gone.
    pub fn released(&mut self, key: ConnId) -> Result<(), Broken> {
        let line = self.line(key)?;
        hold!(line.stands == Stands::Closing, "{key:?} released when {:?}", line.stands);
        line.stands = Stands::Gone;
        self.released += 1;
        Ok(())
    }

    /// The probe on a connection has ended; `fit`: another may follow, as far as the origin goes.
    pub fn ended(&mut self, key: ConnId, fit: bool) {
        let Ok(line) = self.line(key) else { return };
        line.unfit |= !(fit && line.sent);
        if line.stands == Stands::Busy {
            line.stands = Stands::Rested;
            let endpoint = line.endpoint;
            self.busy[endpoint] = false;
        }
    }

    /// The whole request has left.
    pub fn sent(&mut self, key: ConnId) {
        if let Ok(line) = self.line(key) {
            line.sent = true;
        }
    }

    /// Bytes or an end came: on a connection without a probe that makes it unfit for one.
    pub fn stirred(&mut self, key: ConnId) {
        if let Ok(line) = self.line(key) {
            line.unfit |= line.stands == Stands::Rested;
        }
    }

    /// The endpoint of a connection that lives, or lived last under this key.
    #[must_use]
    pub fn endpoint(&self, key: ConnId) -> Option<usize> {
        self.lines.get(key.index as usize).filter(|line| line.key == key).map(|line| line.endpoint)
    }

    /// Probes that are on a connection.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.lines.iter().filter(|line| line.stands == Stands::Busy).count()
    }

    /// Everything is closed.
    pub fn closed(&self) -> Result<(), Broken> {
        let left = self.lines.iter().find(|line| line.stands != Stands::Gone);
        hold!(left.is_none(), "never released: {left:?}");
        hold!(self.opened == self.released, "{} opened, {} released", self.opened, self.released);
        Ok(())
    }

    fn line(&mut self, key: ConnId) -> Result<&mut Line, Broken> {
        let line = self.lines.get_mut(key.index as usize).filter(|line| line.key == key);
        line.ok_or_else(|| format!("{key:?} is nobody's"))
    }
}
