//! [`Judgement`]: what the prober says of its own numbers, as it is stored.
//!
//! In scope: the row. Out of scope: how it is come to (`crate::control::validity`).

use crate::clock::{Micros, Wall};

/// What is said of a minute of a run, or of a run as a whole: a row of `verdicts`.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// When it begins.
    pub ts: Wall,
    /// How long it is.
    pub span: Micros,
    /// Of the run as a whole; else of a minute.
    pub whole_run: bool,
    /// Why the numbers cannot be trusted; empty if they can.
    pub reasons: Vec<String>,
    /// Slots that fell due.
    pub due: u64,
    /// Slots that were probed.
    pub sampled: u64,
    /// Slots that were missed.
    pub missed: u64,
    /// Samples lost on the way to the store.
    pub dropped: u64,
    /// Start minus slot, µs.
    pub lag_p99_us: u64,
    /// The agent's own delay, µs.
    pub agent_p99_us: u64,
    /// What the canaries read beside the truth, µs; none without one.
    pub canary_p99_us: Option<u64>,
    /// CPU time that the host gave to others.
    pub stolen_percent: f64,
    /// How often the wall clock was set.
    pub clock_steps: u64,
}

impl Judgement {
    /// Whether the numbers can be trusted.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.reasons.is_empty()
    }

    /// As a column of 63 bits.
    pub(super) fn column(value: u64) -> i64 {
        i64::try_from(value).unwrap_or(i64::MAX)
    }
}
