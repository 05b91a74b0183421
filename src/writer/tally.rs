//! [`Tally`]: what a run has seen so far, counted sample by sample.
//!
//! Everything the live status and the summary show about probes comes from here, and nothing here depends on
//! the store: a sample is counted when it is gathered, whether it can be stored or not.
//!
//! In scope: counts by outcome, failure and miss reason; distributions of lag, agent delay, TTFB, total (service time)
//! and response time, and of what the canaries read beside the truth.
//! Out of scope: rates (the reader divides by its own clock), and what became of the rows (`Snapshot`).
//!
//! Invariant: `due = up + down + missed`, and the lag distribution holds exactly `due` values.

use hdrhistogram::Histogram;

use crate::sample::{ABSENT, Failure, Flags, MissReason, Outcome, Sample};

/// One past the highest code of [`Failure`] and [`MissReason`]; a table indexed by code is the cheapest map.
const CODES: usize = 256;

const _: () = {
    assert!((MissReason::Late.code() as usize) < CODES);
    assert!((Failure::PolicyBlocked.code() as usize) < CODES);
};

/// Significant decimal digits of the distributions: an error below 0.1 %.
const DIGITS: u8 = 3;

/// Counts and distributions of a run.
#[derive(Clone, Debug)]
pub struct Tally {
    up: u64,
    down: u64,
    missed: u64,
    steps: u64,
    tainted: u64,
    /// By code of failure or miss reason; 0 is "up".
    reasons: Box<[u64; CODES]>,
    bytes_in: u64,
    bytes_out: u64,
    lag_us: Distribution,
    agent_us: Distribution,
    ttfb_us: Distribution,
    total_us: Distribution,
    response_us: Distribution,
    canary_us: Distribution,
}

/// How values of one kind are spread, in bounded memory.
#[derive(Clone, Debug)]
pub struct Distribution(Histogram<u64>);

/// The points of a [`Distribution`] that people look at, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the values are at most this.
    pub p50: u64,
    /// 99 % are.
    pub p99: u64,
    /// 99.9 % are.
    pub p999: u64,
    /// All are.
    pub max: u64,
}

impl Tally {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self {
            up: 0,
            down: 0,
            missed: 0,
            steps: 0,
            tainted: 0,
            reasons: Box::new([0; CODES]),
            bytes_in: 0,
            bytes_out: 0,
            lag_us: Distribution::new(),
            agent_us: Distribution::new(),
            ttfb_us: Distribution::new(),
            total_us: Distribution::new(),
            response_us: Distribution::new(),
            canary_us: Distribution::new(),
        }
    }

    /// Counts one sample; a step is counted as such, and nothing else of it: its times are in its sample's. Of a
    /// canary's only its error is taken.
    pub fn record(&mut self, sample: &Sample) {
        if sample.endpoint_id.is_canary() {
            self.canary_us.record(sample.agent_us);
            return;
        }
        if sample.detail.step != 0 {
            self.steps += 1;
            return;
        }
        self.lag_us.record(sample.lag_us);
        self.tainted += u64::from(sample.flags.has(Flags::TAINTED));
        if let Some(count) = usize::try_from(sample.reason).ok().and_then(|code| self.reasons.get_mut(code)) {
            *count += 1;
        }
        match sample.outcome {
            Outcome::Up => self.up += 1,
            Outcome::Down => self.down += 1,
            Outcome::Missed => {
                self.missed += 1;
                return;
            }
        }
        self.bytes_in += u64::from(sample.bytes_in.max(0).cast_unsigned());
        self.bytes_out += u64::from(sample.bytes_out.max(0).cast_unsigned());
        self.agent_us.record(sample.agent_us);
        if let Some(ttfb_us) = sample.phases.ttfb_us() {
            self.ttfb_us.record(ttfb_us);
        }
        if sample.total_us != ABSENT {
            self.total_us.record(sample.total_us);
            self.response_us.record(sample.lag_us.max(0).saturating_add(sample.total_us));
        }
    }

    /// What came since an earlier picture of the same run.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut reasons = self.reasons.clone();
        reasons.iter_mut().zip(before.reasons.iter()).for_each(|(count, before)| *count -= before);
        Self {
            up: self.up - before.up,
            down: self.down - before.down,
            missed: self.missed - before.missed,
            steps: self.steps - before.steps,
            tainted: self.tainted - before.tainted,
            reasons,
            bytes_in: self.bytes_in - before.bytes_in,
            bytes_out: self.bytes_out - before.bytes_out,
            lag_us: self.lag_us.since(&before.lag_us),
            agent_us: self.agent_us.since(&before.agent_us),
            ttfb_us: self.ttfb_us.since(&before.ttfb_us),
            total_us: self.total_us.since(&before.total_us),
            response_us: self.response_us.since(&before.response_us),
            canary_us: self.canary_us.since(&before.canary_us),
        }
    }

    /// Slots that came due: one row each.
    #[must_use]
    pub const fn due(&self) -> u64 {
        self.up + self.down + self.missed
    }

    /// Slots that were probed.
    #[must_use]
    pub const fn sampled(&self) -> u64 {
        self.up + self.down
    }

    /// Probes that found their endpoint up.
    #[must_use]
    pub const fn up(&self) -> u64 {
        self.up
    }

    /// Probes that found their endpoint down.
    #[must_use]
    pub const fn down(&self) -> u64 {
        self.down
    }

    /// Slots that were not probed.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// Hops and attempts of probes that had several.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Probes in which the prober was late or slow, or kept from looking ([`Flags::TAINTED`]).
    #[must_use]
    pub const fn tainted(&self) -> u64 {
        self.tainted
    }

    /// Bytes received above TCP.
    #[must_use]
    pub const fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes sent above TCP.
    #[must_use]
    pub const fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// The failures seen, with their counts, in order of code.
    pub fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        Failure::ALL.iter().map(|&failure| (failure, self.of_code(failure.code()))).filter(|(_, n)| *n > 0)
    }

    /// The miss reasons seen, with their counts, in order of code.
    pub fn misses(&self) -> impl Iterator<Item = (MissReason, u64)> {
        MissReason::ALL.iter().map(|&reason| (reason, self.of_code(reason.code()))).filter(|(_, n)| *n > 0)
    }

    fn of_code(&self, code: i16) -> u64 {
        usize::try_from(code).map_or(0, |code| self.reasons[code])
    }

    /// Lag of every due slot, probed and missed: leaving out the missed would be coordinated omission.
    #[must_use]
    pub const fn lag_us(&self) -> &Distribution {
        &self.lag_us
    }

    /// The agent's own delay, of probed slots.
    #[must_use]
    pub const fn agent_us(&self) -> &Distribution {
        &self.agent_us
    }

    /// Time to first byte, of probes that saw one.
    #[must_use]
    pub const fn ttfb_us(&self) -> &Distribution {
        &self.ttfb_us
    }

    /// Start to verdict, of probed slots: service time.
    #[must_use]
    pub const fn total_us(&self) -> &Distribution {
        &self.total_us
    }

    /// Slot to verdict, of probed slots: response time, as whoever came at the slot would have had it. Those who were
    /// not let in are not in it: see [`Distribution::quantile_among`].
    #[must_use]
    pub const fn response_us(&self) -> &Distribution {
        &self.response_us
    }

    /// What the canaries read beside the truth.
    #[must_use]
    pub const fn canary_us(&self) -> &Distribution {
        &self.canary_us
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Distribution {
    fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, i32::MAX.unsigned_abs().into(), DIGITS);
        Self(bounds.expect("the bounds are constants that hdrhistogram accepts"))
    }

    /// A negative value (a lag measured across a stepped clock) counts as zero.
    fn record(&mut self, value: i32) {
        self.0.saturating_record(u64::from(value.max(0).cast_unsigned()));
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that `quantile` (0 to 1) of all values do not exceed; 0 if there are none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        // The histogram answers with the upper end of a bucket, which may lie beyond the largest value.
        self.0.value_at_quantile(quantile).min(self.0.max())
    }

    /// The value that `quantile` of all values *and* of `missing` more do not exceed, of which it is only known that
    /// they are larger than any; `None` if it is one of these.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank, off by one from 2^53 values on"
    )]
    pub fn quantile_among(&self, quantile: f64, missing: u64) -> Option<u64> {
        let all = self.len() + missing;
        let rank = ((quantile * all as f64).ceil() as u64).clamp(1, all.max(1));
        (rank <= self.len()).then(|| self.quantile(rank as f64 / self.len() as f64))
    }

    fn since(&self, before: &Self) -> Self {
        let mut since = self.0.clone();
        // An earlier picture of the same run has no value that this one has not.
        since.subtract(&before.0).expect("it grew from that");
        Self(since)
    }

    /// The mean; 0 if there are no values.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The points that people look at.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Micros, Wall};
    use crate::sample::{Detail, EndpointId, Phases};

    fn probed(total_us: i32, failure: Option<Failure>) -> Sample {
        let phases = Phases { connect_us: 1, processing_us: total_us - 2, transfer_us: 1, ..Phases::NONE };
        Sample {
            phases,
            total_us,
            agent_us: 7,
            bytes_in: 100,
            bytes_out: 50,
            outcome: if failure.is_some() { Outcome::Down } else { Outcome::Up },
            reason: failure.map_or(0, Failure::code),
            detail: Detail::NONE,
            ..missed(total_us)
        }
    }

    fn missed(lag_us: i32) -> Sample {
        let lag = Micros(u64::from(lag_us.cast_unsigned()));
        Sample::missed(Wall(0), EndpointId(1), lag, MissReason::Overlap, Flags::default())
    }

    #[test]
    fn every_sample_is_counted_once_by_outcome_and_reason() {
        let mut tally = Tally::new();
        for total_us in 1..=1000 {
            tally.record(&probed(total_us + 2, None));
        }
        tally.record(&Sample { flags: Flags::TAINTED, ..probed(5, Some(Failure::Reset)) });
        tally.record(&missed(40));
        tally.record(&missed(40));
        let mut step = Sample { flags: Flags::TAINTED, ..probed(5, Some(Failure::Reset)) };
        step.detail.step = 2;
        tally.record(&step);
        assert_eq!((tally.steps(), tally.tainted()), (1, 1));
        assert_eq!((tally.due(), tally.sampled(), tally.missed()), (1003, 1001, 2));
        assert_eq!((tally.up(), tally.down()), (1000, 1));
        assert_eq!(tally.failures().collect::<Vec<_>>(), [(Failure::Reset, 1)]);
        assert_eq!(tally.misses().collect::<Vec<_>>(), [(MissReason::Overlap, 2)]);
        assert_eq!((tally.bytes_in(), tally.bytes_out()), (100_100, 50_050));
        assert_eq!(tally.lag_us().len(), 1003, "missed slots have a lag too");
        assert_eq!(tally.agent_us().len(), 1001);
        assert_eq!(tally.ttfb_us().len(), 1001);
    }

    #[test]
    fn percentiles_are_exact_to_three_digits_and_never_above_the_maximum() {
        let mut tally = Tally::new();
        assert_eq!(tally.total_us().percentiles(), Percentiles::default());
        for total_us in 1..=100_000 {
            tally.record(&probed(total_us + 2, None));
        }
        let Percentiles { p50, p99, p999, max } = tally.total_us().percentiles();
        for (value, exact) in [(p50, 50_002_u64), (p99, 99_002), (p999, 99_902), (max, 100_002)] {
            assert!(value.abs_diff(exact) * 1000 <= exact, "{value} for {exact}");
        }
        assert!(p999 <= max);
        tally.record(&probed(i32::MAX, None));
        assert!(tally.total_us().percentiles().max >= 2_145_000_000);
    }

    #[test]
    fn what_came_since_is_told() {
        let mut tally = Tally::new();
        (1..=100).for_each(|total_us| tally.record(&probed(total_us + 2, None)));
        tally.record(&missed(7));
        let before = tally.clone();
        (1..=100).for_each(|_| tally.record(&probed(5_000, Some(Failure::Reset))));
        tally.record(&Sample { endpoint_id: EndpointId::canary_of(0), agent_us: 12, ..probed(50, None) });
        let since = tally.since(&before);
        assert_eq!((since.due(), since.up(), since.down(), since.missed()), (100, 0, 100, 0));
        assert_eq!(since.failures().collect::<Vec<_>>(), [(Failure::Reset, 100)]);
        assert_eq!(since.misses().count(), 0);
        assert_eq!(since.total_us().len(), 100);
        assert!(since.total_us().quantile(0.01).abs_diff(5_000) <= 5, "the smaller ones were before");
        assert_eq!(since.canary_us().percentiles().max, 12, "and a canary is no slot");
    }

    #[test]
    fn who_was_missed_is_in_the_denominator() {
        let mut tally = Tally::new();
        (0..90).for_each(|_| tally.record(&Sample { lag_us: 400, ..probed(1_000, None) }));
        let response = tally.response_us();
        assert_eq!(response.quantile_among(0.5, 10), Some(1_400), "from the slot");
        assert_eq!(response.quantile_among(0.9, 10), Some(1_400));
        assert_eq!(response.quantile_among(0.91, 10), None, "the ten were not answered at all");
        assert_eq!(response.quantile_among(0.99, 0), Some(1_400));
        assert_eq!(Tally::new().response_us().quantile_among(0.5, 0), None);
        assert_eq!(Tally::new().response_us().quantile_among(0.5, 3), None);
    }

    #[test]
    fn values_out_of_range_are_clamped() {
        let mut tally = Tally::new();
        tally.record(&Sample { lag_us: -5, reason: i16::MAX, ..probed(10, None) });
        tally.record(&Sample { lag_us: i32::MIN, reason: i16::MIN, ..probed(10, None) });
        assert_eq!(tally.lag_us().percentiles().max, 0);
        assert_eq!(tally.due(), 2);
    }
}
