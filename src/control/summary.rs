//! A run in numbers, and its verdict on itself. Pure: numbers in, [`Summary`] out, as JSON or as a table.
//!
//! The field names are those of the `--json` object; docs/json.md documents it.
//!
//! Invariant checked here at the end of every run: `due = sampled + missed`, and every sample is stored or
//! counted as dropped.

use std::fmt;

use serde::Serialize;

use super::node::Progress;
use crate::clock::Micros;
use crate::config;
use crate::sample::MissReason;
use crate::writer::{Distribution, Percentiles};

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
    /// Start to verdict.
    pub total_us: Points,
    /// Failures by class.
    pub failures: serde_json::Map<String, serde_json::Value>,
    /// Misses by reason.
    pub misses: serde_json::Map<String, serde_json::Value>,
    /// Connections opened.
    pub connections: u64,
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
    pub fn of(progress: &Progress, has_store: bool, rss_bytes: u64) -> Self {
        let Progress { totals, writer, cpu_us, elapsed_ns } = progress;
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
            duration_s,
            probes_per_s: if duration_s > 0.0 { totals.sampled as f64 / duration_s } else { 0.0 },
            cpu_us_per_probe: per_probe(*cpu_us),
            lag_us: Points::of(tally.lag_us()),
            agent_us: Points::of(tally.agent_us()),
            ttfb_us: Points::of(tally.ttfb_us()),
            total_us: Points::of(tally.total_us()),
            failures: tally.failures().map(|(failure, n)| (failure.name().to_owned(), n.into())).collect(),
            misses: tally.misses().map(|(reason, n)| (reason.name().to_owned(), n.into())).collect(),
            connections: totals.opened,
            enters_per_probe: per_probe(totals.enters),
            bytes_in: tally.bytes_in(),
            bytes_out: tally.bytes_out(),
            rss_bytes,
            verdict: Verdict::Valid,
            reasons: Vec::new(),
        };
        let overlaps =
            tally.misses().find(|(reason, _)| *reason == MissReason::Overlap).map_or(0, |(_, n)| n);
        summary.judge(totals.dropped, overlaps);
        summary
    }

    /// An overlap is the endpoint's slowness against its own interval, and recorded as such; every other
    /// missed slot is ours.
    fn judge(&mut self, lost_to_full_rings: u64, overlaps: u64) {
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
        let missed_by_us = self.missed.saturating_sub(overlaps);
        if missed_by_us > 0 {
            reasons.push(format!("missed: {missed_by_us} slots were not probed ({})", names(&self.misses)));
        }
        if lost_to_full_rings > 0 {
            reasons.push(format!("dropped: {lost_to_full_rings} samples found the writer's ring full"));
        }
        if self.dropped > lost_to_full_rings {
            reasons.push(format!("dropped: {} rows were not stored", self.dropped - lost_to_full_rings));
        }
        if self.lag_us.p99 > config::LAG_P99_BUDGET.0 {
            let (lag, budget) = (Micros(self.lag_us.p99), config::LAG_P99_BUDGET);
            reasons.push(format!("lag: {lag} at p99 is over the budget of {budget}"));
        }
        self.verdict = if reasons.is_empty() { Verdict::Valid } else { Verdict::Invalid };
        self.reasons = reasons;
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
        writeln!(f, "{:>12.1} probes/s for {:.1} s", self.probes_per_s, self.duration_s)?;
        writeln!(f, "{:>12.2} µs of CPU per probe, all threads", self.cpu_us_per_probe)?;
        writeln!(f, "{:>12.1} MiB resident", self.rss_bytes.to_f64() / f64::from(1 << 20))?;
        writeln!(f, "\n{:>12} {:>12} {:>12} {:>12} {:>12}", "", "p50", "p99", "p99.9", "max")?;
        let rows = [
            ("lag", self.lag_us),
            ("agent", self.agent_us),
            ("ttfb", self.ttfb_us),
            ("total", self.total_us),
        ];
        for (name, points) in rows {
            let Points { p50, p99, p999, max } = points;
            let [p50, p99, p999, max] = [p50, p99, p999, max].map(|us| Micros(us).to_string());
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
