//! Whether a stretch of a run can be trusted, and why not. Pure: numbers in, reasons out.
//!
//! In scope: budgets, and what is over them. Out of scope: where the numbers come from ([`super::node`]), when it is
//! asked (a minute: [`super::minutes`]; a run: [`super::summary`]), whether slots add up (there too: of a minute they
//! need not, some are under way).

use super::machine::Disturbance;
use super::node::{Progress, Workload};
use crate::clock::Micros;
use crate::config;
use crate::endpoint::duration;
use crate::sample::MissReason;
use crate::writer::Tally;

/// What is still acceptable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budgets {
    /// Start minus slot, at p99.
    pub lag: Micros,
    /// The agent's own delay, at p99: it is in no phase, but it is what all phases are cut out of.
    pub agent: Micros,
    /// What canaries read beside the truth, at p99.
    pub canary: Micros,
    /// CPU time that the host gave to others.
    pub stolen_percent: f64,
    /// Time for which a CPU quota stopped us, of the stretch.
    pub throttled_percent: f64,
    /// Rows that wait for the store, as time in which they came.
    pub backlog: Micros,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            lag: config::LAG_P99_BUDGET,
            agent: config::AGENT_P99_BUDGET,
            canary: config::CANARY_P99_BUDGET,
            stolen_percent: config::STOLEN_PERCENT_BUDGET,
            throttled_percent: config::THROTTLED_PERCENT_BUDGET,
            backlog: config::BACKLOG_BUDGET,
        }
    }
}

impl Budgets {
    /// These, but for what is said in `text`: `lag=5ms,agent=20ms,canary=2ms,stolen=10%,throttled=2%,backlog=1m`, or
    /// some of it.
    ///
    /// # Errors
    /// A lower-case fragment that says which part is wrong, and how to write it.
    pub fn with(mut self, text: &str) -> Result<Self, String> {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=VALUE"))?;
            let span = || duration::parse(value).map_err(|error| format!("{name}: {error}"));
            let percent = || {
                let percent = value.strip_suffix('%').and_then(|percent| percent.parse().ok());
                let percent = percent.filter(|percent: &f64| (0.0..=100.0).contains(percent));
                percent.ok_or_else(|| format!("{name}: {value:?} is not a share such as 5%"))
            };
            match name {
                "lag" => self.lag = span()?,
                "agent" => self.agent = span()?,
                "canary" => self.canary = span()?,
                "backlog" => self.backlog = span()?,
                "stolen" => self.stolen_percent = percent()?,
                "throttled" => self.throttled_percent = percent()?,
                _ => {
                    return Err(format!(
                        "{name:?} is none of lag, agent, canary, stolen, throttled, backlog"
                    ));
                }
            }
        }
        Ok(self)
    }
}

/// What a stretch is judged by.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// When probes were started.
    pub workload: Workload,
    /// How long the stretch is.
    pub span: Micros,
    /// What was probed and missed in it.
    pub tally: &'a Tally,
    /// Samples that found the writer's ring full.
    pub ring_full: u64,
    /// Rows that were not stored.
    pub not_stored: u64,
    /// Connections for which there was no local port.
    pub portless: u64,
    /// What the machine did to us.
    pub machine: Disturbance,
    /// Rows that wait for the store at its end, as time in which they came.
    pub backlog: Micros,
}

impl<'a> Evidence<'a> {
    /// Of all that was seen up to `progress`.
    #[must_use]
    pub fn of(progress: &'a Progress, workload: Workload) -> Self {
        Self {
            workload,
            span: Micros::from_nanos(progress.elapsed_ns),
            tally: &progress.writer.tally,
            ring_full: progress.totals.dropped,
            not_stored: progress.writer.dropped,
            portless: progress.totals.portless,
            machine: progress.machine,
            // What waits at the end of a run is stored or lost, and counted as such.
            backlog: Micros(0),
        }
    }

    /// Why this cannot be trusted; nothing if it can.
    #[must_use]
    pub fn against(&self, budgets: &Budgets) -> Vec<String> {
        let mut reasons = Vec::new();
        let tally = self.tally;
        // An overlap is the endpoint's slowness against its own interval, and recorded as such; every other missed slot
        // is ours. But who asks for a rate has given no endpoint an interval: what is missed is missing from the rate.
        let counts = |reason| reason != MissReason::Overlap || matches!(self.workload, Workload::Rate { .. });
        let misses = || tally.misses().filter(|(reason, _)| counts(*reason));
        let missed: u64 = misses().map(|(_, count)| count).sum();
        if missed > 0 {
            let by_reason: Vec<_> =
                misses().map(|(reason, count)| format!("{count} {}", reason.name())).collect();
            reasons.push(format!("missed: {missed} slots were not probed ({})", by_reason.join(", ")));
        }
        if self.ring_full > 0 {
            reasons.push(format!("dropped: {} samples found the writer's ring full", self.ring_full));
        }
        if self.not_stored > 0 {
            reasons.push(format!("dropped: {} rows were not stored", self.not_stored));
        }
        let mut over = |what: &str, p99_us: u64, budget: Micros| {
            if p99_us > budget.0 {
                reasons.push(format!("{what}: {} at p99 is over the budget of {budget}", Micros(p99_us)));
            }
        };
        over("lag", tally.lag_us().quantile(0.99), budgets.lag);
        let is_closed_loop = self.workload == Workload::ClosedLoop;
        if !is_closed_loop {
            over("agent", tally.agent_us().quantile(0.99), budgets.agent);
        }
        over("canary", tally.canary_us().quantile(0.99), budgets.canary);
        // In a closed loop probes wait for us as a matter of course, and nothing is due at any time; but if all of them
        // waited for long, that time is missing from the rate.
        let stalled = Micros(tally.agent_us().quantile(1.0));
        if is_closed_loop && stalled.0 > 0 && stalled.0 >= self.span.0 / config::STALLED_SHARE {
            reasons.push(format!("stalled: the prober stood still for {stalled} of {}", self.span));
        }
        if self.portless > 0 {
            reasons.push(format!("ports: {} connections found no free local port", self.portless));
        }
        let Disturbance { clock_steps, clock_stepped, throttled, softirq_drops, .. } = self.machine;
        if clock_steps > 0 {
            reasons.push(format!(
                "clock: the wall clock was set {clock_steps} times, by {clock_stepped} in all"
            ));
        }
        let stolen_percent = self.machine.stolen_percent();
        if stolen_percent > budgets.stolen_percent {
            let budget = budgets.stolen_percent;
            reasons.push(format!(
                "stolen: the host gave {stolen_percent:.1} % of the CPUs' time to others ({budget} %)"
            ));
        }
        if throttled.0 > 0 && percent(throttled, self.span) > budgets.throttled_percent {
            reasons.push(format!(
                "throttled: a CPU quota stopped us for {throttled} of {}, the times of all CPUs together",
                self.span
            ));
        }
        if softirq_drops > 0 {
            reasons
                .push(format!("softirq: the kernel dropped {softirq_drops} packets that it had no time for"));
        }
        if self.backlog > budgets.backlog {
            reasons.push(format!("store: {} of rows wait for it", self.backlog));
        }
        reasons
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio, compared with a budget")]
fn percent(part: Micros, whole: Micros) -> f64 {
    part.0 as f64 * 100.0 / whole.0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::sample::{Detail, EndpointId, Flags, Outcome, Phases, Sample};

    fn probed() -> Sample {
        Sample {
            phases: Phases { processing_us: 900, transfer_us: 100, ..Phases::NONE },
            total_us: 1_000,
            agent_us: 5,
            outcome: Outcome::Up,
            reason: 0,
            detail: Detail::NONE,
            ..missed(MissReason::Late)
        }
    }

    fn missed(reason: MissReason) -> Sample {
        Sample::missed(Wall(0), EndpointId(1), Micros(3), reason, Flags::default())
    }

    /// The first words of the reasons.
    fn reasons(samples: &[Sample], change: impl FnOnce(&mut Evidence<'_>)) -> Vec<String> {
        let mut tally = Tally::new();
        samples.iter().for_each(|sample| tally.record(sample));
        let mut evidence = Evidence {
            workload: Workload::Scheduled,
            span: Micros::from_millis(1_000),
            tally: &tally,
            ring_full: 0,
            not_stored: 0,
            portless: 0,
            machine: Disturbance { ticks: 1_000, ..Disturbance::default() },
            backlog: Micros(0),
        };
        change(&mut evidence);
        let reasons = evidence.against(&Budgets::default());
        reasons.iter().map(|reason| reason.split(':').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn budgets_are_read() {
        let budgets = Budgets::default().with("lag=5ms,stolen=12.5%,throttled=0%").unwrap();
        assert_eq!((budgets.lag, budgets.canary), (Micros(5_000), config::CANARY_P99_BUDGET));
        assert!((budgets.stolen_percent - 12.5).abs() < 1e-9);
        assert!(budgets.throttled_percent.abs() < 1e-9);
        assert_eq!(Budgets::default().with(""), Ok(Budgets::default()));
        for (text, said) in [
            ("lag", "\"lag\" is not NAME=VALUE"),
            ("lag=5", "lag: "),
            ("steal=1%", "\"steal\" is none of lag, agent, canary, stolen, throttled, backlog"),
            ("stolen=5", "stolen: \"5\" is not a share"),
            ("stolen=NaN%", "stolen: "),
            ("throttled=101%", "throttled: "),
            ("canary=1ms,backlog=x", "backlog: "),
        ] {
            let error = Budgets::default().with(text).unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_quiet_stretch_is_valid() {
        assert!(reasons(&[probed(); 100], |_| {}).is_empty());
        let slow_endpoint = [[probed(); 5], [missed(MissReason::Overlap); 5]].concat();
        assert!(reasons(&slow_endpoint, |_| {}).is_empty(), "its slowness is not ours");
    }

    #[test]
    fn a_rate_that_was_asked_for_is_not_reached_if_slots_overlap() {
        let half = [[probed(); 5], [missed(MissReason::Overlap); 5]].concat();
        assert_eq!(reasons(&half, |it| it.workload = Workload::Rate { probes_per_s: 10.0 }), ["missed"]);
        assert!(reasons(&half, |it| it.workload = Workload::ClosedLoop).is_empty());
    }

    #[test]
    fn a_closed_loop_that_stood_still_says_so() {
        // Stopped for 2 s of 5, it was VALID, and its rate 40 % too low.
        let waited = |agent_us| Sample { agent_us, ..probed() };
        let of = |longest_us| {
            reasons(&[waited(5_000), waited(longest_us), waited(5_000)], |it| {
                (it.workload, it.span) = (Workload::ClosedLoop, Micros::from_millis(5_000));
            })
        };
        assert_eq!(of(2_000_000), ["stalled"]);
        assert_eq!(of(501_000), ["stalled"]);
        assert!(of(498_000).is_empty());
    }

    #[test]
    fn every_disturbance_is_a_reason_of_its_own() {
        let late = Sample { lag_us: 2_100, ..probed() };
        let waited = Sample { agent_us: 60_000, ..probed() };
        let canary = Sample { endpoint_id: EndpointId::canary_of(1), agent_us: 5_000, ..probed() };
        for reason in
            [MissReason::Late, MissReason::InflightLimit, MissReason::Overload, MissReason::OriginLimit]
        {
            assert_eq!(reasons(&[probed(), missed(reason)], |_| {}), ["missed"]);
        }
        assert_eq!(reasons(&[late; 3], |_| {}), ["lag"]);
        assert_eq!(reasons(&[waited; 3], |_| {}), ["agent"]);
        assert!(reasons(&[waited; 3], |it| it.workload = Workload::ClosedLoop).is_empty());
        assert_eq!(reasons(&[probed(), canary], |_| {}), ["canary"]);
        let one = [probed()];
        assert_eq!(reasons(&one, |it| it.ring_full = 1), ["dropped"]);
        assert_eq!(reasons(&one, |it| it.not_stored = 1), ["dropped"]);
        assert_eq!(reasons(&one, |it| it.portless = 1), ["ports"]);
        assert_eq!(reasons(&one, |it| it.machine.clock_steps = 1), ["clock"]);
        assert_eq!(reasons(&one, |it| it.machine.stolen_ticks = 200), ["stolen"]);
        assert_eq!(reasons(&one, |it| it.machine.throttled = Micros(10_001)), ["throttled"]);
        assert!(reasons(&one, |it| it.machine.throttled = Micros(10_000)).is_empty(), "1 % of a second");
        assert_eq!(reasons(&one, |it| it.machine.softirq_drops = 1), ["softirq"]);
        assert_eq!(reasons(&one, |it| it.backlog = Micros(1 << 40)), ["store"]);
    }
}
