//! A run in numbers, and its verdict on itself. Pure: numbers in, [`Summary`] out, as JSON or as a table.
//!
//! The field names are those of the `--json` object; docs/json.md documents it.
//!
//! Invariant checked here at the end of every run: `due = sampled + missed`, and every sample is stored or
//! counted as dropped.

use std::fmt;

use serde::Serialize;

use super::node::Progress;
use super::validity::{Budgets, Evidence};
use crate::clock::{Micros, Wall};
use crate::writer::{Distribution, Judgement, Percentiles};

/// What a run comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Slots that fell due.
    pub due: u64,
    /// Slots that were probed.
    pub sampled: u64,
    /// Slots that were missed.
    pub missed: u64,
    /// Samples lost on the way to the store.
    pub dropped: u64,
    /// Rows in the store; `null` without one.
    pub stored: Option<u64>,
    /// Probes that found their endpoint up.
    pub up: u64,
    /// Probes that found it down.
    pub down: u64,
    /// Probes in which the prober was late or slow, or kept from looking.
    pub tainted: u64,
    /// Seconds of probing.
    pub duration_s: f64,
    /// Sampled per second.
    pub probes_per_s: f64,
    /// CPU of the whole process, all threads, per sampled probe, µs.
    pub cpu_us_per_probe: f64,
    /// Start minus slot, probed and missed.
    pub lag_us: Points,
    /// The agent's own delay.
    pub agent_us: Points,
    /// Time to first byte.
    pub ttfb_us: Points,
    /// Start to verdict: service time.
    pub total_us: Points,
    /// Slot to verdict, with missed slots among those that took longest: response time. `null` is a missed slot.
    pub response_us: ResponsePoints,
    /// What the canaries read beside the truth; `null` without one.
    pub canary_us: Option<Points>,
    /// Failures by class.
    pub failures: serde_json::Map<String, serde_json::Value>,
    /// Misses by reason.
    pub misses: serde_json::Map<String, serde_json::Value>,
    /// Connections opened.
    pub connections: u64,
    /// What the machine did meanwhile.
    pub machine: Machine,
    /// `io_uring_enter` per sampled probe.
    pub enters_per_probe: f64,
    /// Bytes received above TCP.
    pub bytes_in: u64,
    /// Bytes sent above TCP.
    pub bytes_out: u64,
    /// Resident memory of the process as last seen while probing, bytes.
    pub rss_bytes: u64,
    /// Whether the numbers can be trusted.
    pub verdict: Verdict,
    /// Why not.
    pub reasons: Vec<String>,
}

/// Whether a run's numbers can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// They can.
    Valid,
    /// They cannot; the reasons say why.
    Invalid,
}

/// The points of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Points {
    /// Half are at most this.
    pub p50: u64,
    /// 99 % are.
    pub p99: u64,
    /// 99.9 % are.
    pub p999: u64,
    /// All are.
    pub max: u64,
}

/// The points of a distribution in which some are missing: those are larger than any that is known, and `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResponsePoints {
    /// Half are at most this.
    pub p50: Option<u64>,
    /// 99 % are.
    pub p99: Option<u64>,
    /// 99.9 % are.
    pub p999: Option<u64>,
    /// All are.
    pub max: Option<u64>,
}

impl ResponsePoints {
    fn of(distribution: &Distribution, missing: u64) -> Self {
        let at = |quantile| distribution.quantile_among(quantile, missing);
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// What the machine did during a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// CPU time that the host gave to others.
    pub stolen_percent: f64,
    /// For how long a CPU quota stopped us, the times of all CPUs together.
    pub throttled_ms: u64,
    /// How often the wall clock was set.
    pub clock_steps: u64,
    /// Packets that the kernel had no time for.
    pub softirq_drops: u64,
    /// Connections for which there was no local port.
    pub portless: u64,
}

impl Points {
    fn of(distribution: &Distribution) -> Self {
        let Percentiles { p50, p99, p999, max } = distribution.percentiles();
        Self { p50, p99, p999, max }
    }
}

impl Summary {
    /// Sums a run up. `has_store`: whether rows were meant to be kept. `ended`: whether the run is over, so
    /// that what is neither stored nor dropped is lost rather than on its way.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ratios are printed with a few digits")]
    pub fn of(
        progress: &Progress,
        has_store: bool,
        rss_bytes: u64,
        evidence: &Evidence<'_>,
        budgets: &Budgets,
    ) -> Self {
        let Progress { totals, writer, machine, cpu_us, elapsed_ns } = progress;
        let tally = &writer.tally;
        let duration_s = *elapsed_ns as f64 / 1e9;
        let per_probe = |amount: u64| amount as f64 / totals.sampled.max(1) as f64;
        let mut summary = Self {
            due: totals.due,
            sampled: totals.sampled,
            missed: totals.missed,
            dropped: totals.dropped + writer.dropped,
            stored: has_store.then_some(writer.stored),
            up: tally.up(),
            down: tally.down(),
            tainted: tally.tainted(),
            duration_s,
            probes_per_s: if duration_s > 0.0 { totals.sampled as f64 / duration_s } else { 0.0 },
            cpu_us_per_probe: per_probe(*cpu_us),
            lag_us: Points::of(tally.lag_us()),
            agent_us: Points::of(tally.agent_us()),
            ttfb_us: Points::of(tally.ttfb_us()),
            total_us: Points::of(tally.total_us()),
            response_us: ResponsePoints::of(tally.response_us(), tally.missed()),
            canary_us: (!tally.canary_us().is_empty()).then(|| Points::of(tally.canary_us())),
            failures: tally.failures().map(|(failure, n)| (failure.name().to_owned(), n.into())).collect(),
            misses: tally.misses().map(|(reason, n)| (reason.name().to_owned(), n.into())).collect(),
            connections: totals.opened,
            machine: Machine {
                stolen_percent: machine.stolen_percent(),
                throttled_ms: machine.throttled.0 / 1_000,
                clock_steps: machine.clock_steps,
                softirq_drops: machine.softirq_drops,
                portless: totals.portless,
            },
            enters_per_probe: per_probe(totals.enters),
            bytes_in: tally.bytes_in(),
            bytes_out: tally.bytes_out(),
            rss_bytes,
            verdict: Verdict::Valid,
            reasons: Vec::new(),
        };
        summary.reasons = summary.mistakes();
        summary.reasons.extend(evidence.against(budgets));
        summary.verdict = if summary.reasons.is_empty() { Verdict::Valid } else { Verdict::Invalid };
        summary
    }

    /// What does not add up.
    fn mistakes(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.due == 0 {
            reasons.push(format!("nothing was due in {:.1} s: nothing was measured", self.duration_s));
        }
        if self.due != self.sampled + self.missed {
            reasons.push(format!(
                "accounting: {} due are not {} sampled + {} missed",
                self.due, self.sampled, self.missed
            ));
        }
        let kept = self.stored.unwrap_or_else(|| self.up + self.down + self.missed);
        if kept + self.dropped != self.due {
            let with = if self.stored.is_some() { "stored" } else { "recorded" };
            reasons.push(format!(
                "accounting: {} due are not {kept} {with} + {} dropped",
                self.due, self.dropped
            ));
        }
        reasons
    }

    /// The run as a whole, as it is stored.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a run's length, in milliseconds"
    )]
    pub fn judgement(&self, begun: Wall) -> Judgement {
        Judgement {
            ts: begun,
            span: Micros::from_millis((self.duration_s * 1e3) as u64),
            whole_run: true,
            reasons: self.reasons.clone(),
            due: self.due,
            sampled: self.sampled,
            missed: self.missed,
            dropped: self.dropped,
            lag_p99_us: self.lag_us.p99,
            agent_p99_us: self.agent_us.p99,
            canary_p99_us: self.canary_us.map(|points| points.p99),
            stolen_percent: self.machine.stolen_percent,
            clock_steps: self.machine.clock_steps,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12} due = {} sampled + {} missed", self.due, self.sampled, self.missed)?;
        match self.stored {
            Some(stored) => writeln!(f, "{stored:>12} stored, {} dropped", self.dropped)?,
            None => writeln!(f, "{:>12} dropped, no store", self.dropped)?,
        }
        writeln!(f, "{:>12} up, {} down{}", self.up, self.down, in_brackets(&names(&self.failures)))?;
        if self.tainted > 0 {
            writeln!(f, "{:>12} tainted: we were late or slow, or kept from looking", self.tainted)?;
        }
        writeln!(f, "{:>12.1} probes/s for {:.1} s", self.probes_per_s, self.duration_s)?;
        writeln!(f, "{:>12.2} µs of CPU per probe, all threads", self.cpu_us_per_probe)?;
        writeln!(f, "{:>12.1} MiB resident", self.rss_bytes.to_f64() / f64::from(1 << 20))?;
        if !self.misses.is_empty() {
            writeln!(f, "{:>12} missed ({})", self.missed, names(&self.misses))?;
        }
        writeln!(f, "\n{:>12} {:>12} {:>12} {:>12} {:>12}", "", "p50", "p99", "p99.9", "max")?;
        let known = |points: Points| [points.p50, points.p99, points.p999, points.max].map(Some);
        let response = &self.response_us;
        let rows = [
            ("lag", Some(known(self.lag_us))),
            ("agent", Some(known(self.agent_us))),
            ("canary", self.canary_us.map(known)),
            ("ttfb", Some(known(self.ttfb_us))),
            ("total", Some(known(self.total_us))),
            ("from slot", Some([response.p50, response.p99, response.p999, response.max])),
        ];
        for (name, points) in rows {
            let Some(points) = points else { continue };
            let [p50, p99, p999, max] =
                points.map(|us| us.map_or_else(|| "missed".to_owned(), |us| Micros(us).to_string()));
            writeln!(f, "{name:>12} {p50:>12} {p99:>12} {p999:>12} {max:>12}")?;
        }
        write!(f, "\n{:>12}", self.verdict)?;
        for reason in &self.reasons {
            write!(f, "\n{:>14}{reason}", "- ")?;
        }
        Ok(())
    }
}

fn names(counts: &serde_json::Map<String, serde_json::Value>) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    parts.join(", ")
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

trait ToF64 {
    fn to_f64(self) -> f64;
}

impl ToF64 for u64 {
    #[expect(clippy::cast_precision_loss, reason = "printed with one digit")]
    fn to_f64(self) -> f64 {
        self as f64
    }
}
