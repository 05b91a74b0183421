//! Measured latency against the truth: samples matched with what the origin says, request by request, and the error
//! as a distribution. Pure.
//!
//! ```text
//!   origin:    kernel had the request ──────── true time to first byte ──────── answer handed to the kernel
//!   prober:  request sent ─────────────────────── measured ────────────────────── kernel had the first byte ┄ seen
//!   error = measured − true: the way there and back, and whatever else is not the origin's
//! ```
//!
//! The *user-space* error is that of a prober without the kernel's stamps: it would have reported the time at which it
//! came to look (`agent_us` says how much later that was), less what it took to handle the bytes.
//!
//! Invariant: a sample is compared with its own request or with none. An endpoint has one request in flight at a time,
//! so its k-th probe is its k-th request; where there are not as many of one as of the other, all of the endpoint are
//! left out, and counted.

use std::fmt;

use serde::Serialize;

use super::quantiles::Quantiles;
use super::summary::Verdict;
use crate::clock::{Micros, Wall};
use crate::config;
use crate::sample::{Flags, Outcome, Sample};
use crate::testing::origin::{Held, Holds};

/// What `bench --accuracy` comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// For how long each answer was held, µs.
    pub hold_us: u64,
    /// Whether each probe had a new connection.
    pub fresh: bool,
    /// Connections, each with at most one probe in flight.
    pub connections: u32,
    /// Probes per second of a closed loop on the same connections.
    pub capacity_per_s: f64,
    /// One row per load.
    pub loads: Vec<Load>,
}

/// One load: what was asked for, what was done, and how wrong the figures were.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Percent of capacity.
    pub load_percent: u32,
    /// Probes per second that were asked for.
    pub rate_per_s: f64,
    /// Probes per second that were made.
    pub probes_per_s: f64,
    /// Slots that fell due while it was measured.
    pub due: u64,
    /// Those that were probed.
    pub sampled: u64,
    /// Those that were not.
    pub missed: u64,
    /// Probes that were compared with their requests.
    pub compared: u64,
    /// Probes whose requests are not known for certain.
    pub unmatched: u64,
    /// The origin's own: arrival to departure.
    pub true_us: Option<Quantiles>,
    /// What was measured.
    pub ttfb_us: Option<Quantiles>,
    /// Measured less true,
    pub error_us: Option<Quantiles>,
    /// and its size.
    pub abs_error_us: Option<Quantiles>,
    /// What it would be without the kernel's stamps,
    pub user_error_us: Option<Quantiles>,
    /// and its size.
    pub user_abs_error_us: Option<Quantiles>,
    /// The handshake of those with a new connection, which no origin holds: it is in no error.
    pub connect_us: Option<Quantiles>,
    /// Start less slot, of probed and missed.
    pub lag_us: Option<Quantiles>,
    /// Whether the prober kept up.
    pub verdict: Verdict,
    /// Why not.
    pub reasons: Vec<String>,
}

/// What one load was, as far as it is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Percent of capacity.
    pub load_percent: u32,
    /// Probes per second.
    pub rate_per_s: f64,
    /// Endpoints, numbered from 1.
    pub connections: u32,
    /// Whether each probe had a new connection.
    pub fresh: bool,
    /// Slots from here on count.
    pub from: Wall,
}

/// A probe and the truth about it, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    true_ns: i64,
    measured_ns: i64,
    user_ns: i64,
    connect_ns: i64,
}

impl Load {
    /// Compares all samples of a load with all that its origin noted. `dropped`: samples for which there was no room.
    #[must_use]
    pub fn of(asked: &Asked, samples: &[Sample], holds: &Holds, probes_per_s: f64, dropped: u64) -> Self {
        let counted = || samples.iter().filter(|sample| asked.from <= sample.ts);
        let (due, missed) = (count(counted()), count(counted().filter(|sample| is_missed(sample))));
        let (pairs, unmatched) = pairs(asked, samples, &holds.held);
        let points = |of: fn(&Pair) -> i64| Quantiles::of_ns(pairs.iter().map(of).collect());
        let mut load = Self {
            load_percent: asked.load_percent,
            rate_per_s: asked.rate_per_s,
            probes_per_s,
            due,
            sampled: due - missed,
            missed,
            compared: pairs.len() as u64,
            unmatched,
            true_us: points(|pair| pair.true_ns),
            ttfb_us: points(|pair| pair.measured_ns + pair.connect_ns),
            error_us: points(|pair| pair.measured_ns - pair.true_ns),
            abs_error_us: points(|pair| (pair.measured_ns - pair.true_ns).abs()),
            user_error_us: points(|pair| pair.user_ns - pair.true_ns),
            user_abs_error_us: points(|pair| (pair.user_ns - pair.true_ns).abs()),
            connect_us: asked.fresh.then(|| points(|pair| pair.connect_ns)).flatten(),
            lag_us: Quantiles::of_ns(counted().map(|sample| ns(sample.lag_us)).collect()),
            verdict: Verdict::Valid,
            reasons: Vec::new(),
        };
        load.judge(dropped, holds);
        load
    }

    fn judge(&mut self, dropped: u64, holds: &Holds) {
        let mut reasons = Vec::new();
        if self.compared == 0 {
            reasons.push("nothing was compared".to_owned());
        }
        for (count, what) in [
            (self.missed, "slots were not probed"),
            (dropped, "samples found no room"),
            (self.unmatched, "probes are not matched with their requests for certain"),
            (holds.unstamped, "requests have no stamp of the kernel's"),
            (holds.unnoted, "requests were not noted"),
        ] {
            if count > 0 {
                reasons.push(format!("{count} {what}"));
            }
        }
        let budget = config::LAG_P99_BUDGET;
        if let Some(lag) = self.lag_us.filter(|lag| lag.p99 > budget.as_duration().as_secs_f64() * 1e6) {
            reasons.push(format!("lag: {:.0} µs at p99 is over the budget of {budget}", lag.p99));
        }
        self.verdict = if reasons.is_empty() { Verdict::Valid } else { Verdict::Invalid };
        self.reasons = reasons;
    }
}

/// The probes that count and have an answer, each with the truth about it; and how many have none for certain.
///
/// Where connections are kept alive, the probe that opens one is left out: its handshake is not the others'.
fn pairs(asked: &Asked, samples: &[Sample], held: &[Held]) -> (Vec<Pair>, u64) {
    let mut probed: Vec<Vec<&Sample>> = vec![Vec::new(); asked.connections as usize + 1];
    for sample in samples.iter().filter(|sample| !is_missed(sample)) {
        let endpoint = usize::try_from(sample.endpoint_id.0).ok();
        if let Some(own) = endpoint.and_then(|endpoint| probed.get_mut(endpoint)) {
            own.push(sample);
        }
    }
    let mut truths: Vec<Vec<&Held>> = vec![Vec::new(); probed.len()];
    for held in held {
        if let Some(own) = truths.get_mut(held.endpoint as usize) {
            own.push(held);
        }
    }
    let (mut pairs, mut unmatched) = (Vec::new(), 0);
    for (probed, truths) in probed.iter().zip(&truths) {
        let own = probed.iter().zip(truths).filter(|(sample, _)| asked.from <= sample.ts);
        if probed.len() != truths.len() {
            unmatched += count(probed.iter().filter(|sample| asked.from <= sample.ts));
            continue;
        }
        pairs.extend(own.filter_map(|(sample, held)| pair(asked, sample, held)));
    }
    (pairs, unmatched)
}

fn pair(asked: &Asked, sample: &Sample, held: &Held) -> Option<Pair> {
    let opens = !asked.fresh && !sample.flags.has(Flags::REUSED);
    if sample.outcome != Outcome::Up || opens {
        return None;
    }
    let connect_ns = ns(sample.phases.connect_us.max(0));
    let measured_ns = ns(sample.phases.ttfb_us()?) - connect_ns;
    let user_ns = measured_ns + ns(sample.agent_us) - i64::from(sample.cpu_ns);
    Some(Pair { true_ns: held.true_ns().try_into().ok()?, measured_ns, user_ns, connect_ns })
}

fn is_missed(sample: &Sample) -> bool {
    sample.outcome == Outcome::Missed
}

fn ns(us: i32) -> i64 {
    i64::from(us) * 1_000
}

fn count<'a>(samples: impl Iterator<Item = &'a (impl Sized + 'a)>) -> u64 {
    samples.count() as u64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.fresh { "a new connection per probe" } else { "keep-alive" };
        writeln!(
            f,
            "answers held for {}, {mode}, {} connections; capacity {:.0} probes/s\n",
            Micros(self.hold_us),
            self.connections,
            self.capacity_per_s
        )?;
        writeln!(
            f,
            "{:>6} {:>10} {:>8} {:>10}   |error|, µs: {:31}   the same without",
            "", "", "", "lag p99", ""
        )?;
        writeln!(
            f,
            "{:>6} {:>10} {:>8} {:>10} {:>8} {:>8} {:>8} {:>8}   {:>8} {:>8}   {:26}",
            "load", "probes/s", "missed", "µs", "p50", "p99", "p99.9", "max", "p50", "p99", "p99, k and u"
        )?;
        for load in &self.loads {
            writeln!(f, "{load}")?;
        }
        writeln!(
            f,
            "\nk: |error| at p99; u: the same without the kernel's stamps; on a scale of 1 µs to 100 ms"
        )?;
        for load in self.loads.iter().filter(|load| load.verdict == Verdict::Invalid) {
            write!(f, "\n{:>5}% {}: {}", load.load_percent, load.verdict, load.reasons.join("; "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |us| format!("{us:.1}"));
        let (kernel, user) = (self.abs_error_us, self.user_abs_error_us);
        write!(
            f,
            "{:>5}% {:>10.0} {:>8} {:>10} {:>8} {:>8} {:>8} {:>8}   {:>8} {:>8}   {}",
            self.load_percent,
            self.probes_per_s,
            self.missed,
            cell(self.lag_us.map(|lag| lag.p99)),
            cell(kernel.map(|error| error.p50)),
            cell(kernel.map(|error| error.p99)),
            cell(kernel.map(|error| error.p999)),
            cell(kernel.map(|error| error.max)),
            cell(user.map(|error| error.p50)),
            cell(user.map(|error| error.p99)),
            bar(kernel.map(|error| error.p99), user.map(|error| error.p99)),
        )
    }
}

/// A line on which `k` is the error and `u` that without the kernel's stamps, five places for each power of ten.
fn bar(kernel_us: Option<f64>, user_us: Option<f64>) -> String {
    const PLACES: usize = 26;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last place"
    )]
    let place = |us: f64| ((us.max(1.0).log10() * 5.0) as usize).min(PLACES - 1);
    let mut places = vec!['·'; PLACES];
    for (us, mark) in [(user_us, 'u'), (kernel_us, 'k')] {
        if let Some(us) = us {
            places[place(us)] = mark;
        }
    }
    places.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;
    use crate::sample::{EndpointId, MissReason, Phases};

    const ASKED: Asked =
        Asked { load_percent: 70, rate_per_s: 100.0, connections: 2, fresh: false, from: Wall(1_000) };

    fn probed(endpoint: i32, ts_us: i64, ttfb_us: i32, agent_us: i32) -> Sample {
        let any =
            Sample::missed(Wall(ts_us), EndpointId(endpoint), Micros(3), MissReason::Late, Flags::REUSED);
        let phases = Phases { processing_us: ttfb_us, transfer_us: 0, ..Phases::NONE };
        Sample { outcome: Outcome::Up, reason: 0, phases, total_us: ttfb_us, agent_us, ..any }
    }

    fn missed(endpoint: i32, ts_us: i64) -> Sample {
        Sample { outcome: Outcome::Missed, ..probed(endpoint, ts_us, 0, 0) }
    }

    fn held(endpoint: u32, true_us: u64) -> Held {
        Held { endpoint, arrived: Mono(5), departed: Mono(5) + Micros(true_us) }
    }

    fn load(asked: &Asked, samples: &[Sample], held: &[Held]) -> Load {
        Load::of(asked, samples, &Holds { held: held.to_vec(), ..Holds::default() }, 100.0, 0)
    }

    #[test]
    fn every_probe_is_compared_with_its_own_request() {
        // Interleaved, in another order at the origin, a missed slot between, and one from the warm-up.
        let samples = [
            probed(1, 999, 77, 0),
            probed(2, 1_000, 210, 50),
            missed(1, 1_001),
            probed(1, 1_002, 104, 0),
            probed(2, 1_003, 205, 0),
        ];
        let held = [held(2, 200), held(1, 7), held(2, 200), held(1, 100)];
        let found = load(&ASKED, &samples, &held);
        assert_eq!(
            (found.due, found.sampled, found.missed, found.compared, found.unmatched),
            (4, 3, 1, 3, 0)
        );
        let error = found.error_us.unwrap();
        assert_eq!((error.p50, error.max), (5.0, 10.0));
        assert_eq!(found.user_error_us.unwrap().max, 60.0, "with the agent's delay");
        assert_eq!(found.verdict, Verdict::Invalid, "a slot was missed");
    }

    #[test]
    fn an_endpoint_that_cannot_be_matched_is_left_out_and_counted() {
        let samples = [probed(1, 1_000, 10, 0), probed(1, 1_001, 10, 0), probed(2, 1_002, 14, 0)];
        let found = load(&ASKED, &samples, &[held(1, 10), held(2, 10)]);
        assert_eq!((found.compared, found.unmatched), (1, 2));
        assert_eq!(found.error_us.unwrap().max, 4.0);
        assert_eq!(found.verdict, Verdict::Invalid);
    }

    #[test]
    fn the_probe_that_opens_a_connection_counts_only_among_its_like() {
        let mut opening = probed(1, 1_000, 10, 0);
        opening.flags = Flags::default();
        opening.phases.connect_us = 40;
        let found = load(&ASKED, &[opening], &[held(1, 10)]);
        assert_eq!((found.compared, found.sampled), (0, 1));
        let found = load(&Asked { fresh: true, ..ASKED }, &[opening], &[held(1, 10)]);
        assert_eq!(found.error_us.unwrap().max, 0.0, "nobody holds a handshake");
        assert_eq!((found.connect_us.unwrap().max, found.ttfb_us.unwrap().max), (40.0, 50.0));
    }

    #[test]
    fn what_came_of_nothing_says_so() {
        let found = load(&ASKED, &[], &[]);
        assert_eq!((found.verdict, found.error_us, found.lag_us), (Verdict::Invalid, None, None));
    }

    #[test]
    fn a_prober_that_kept_up_is_valid_and_one_that_lags_is_not() {
        let sample = probed(1, 1_000, 10, 0);
        assert_eq!(load(&ASKED, &[sample], &[held(1, 10)]).verdict, Verdict::Valid);
        let late = Sample { lag_us: 2_001, ..sample };
        assert_eq!(load(&ASKED, &[late], &[held(1, 10)]).verdict, Verdict::Invalid);
    }
}
