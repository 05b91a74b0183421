//! A long run, minute by minute: each is judged by itself, so that one bad minute does not spoil a day, and a good day
//! does not hide it.
//!
//! Pure: pictures of a run in, judgements out. Out of scope: where they are stored (`crate::writer`).

use super::node::Progress;
use super::validity::{Budgets, Evidence};
use crate::clock::{Micros, Mono, Reading};
use crate::config;
use crate::writer::Judgement;

/// The minutes of a run.
#[derive(Debug)]
pub struct Minutes {
    anchor: Reading,
    budgets: Budgets,
    /// How things stood when the present minute began.
    before: Progress,
    begun: Mono,
}

impl Minutes {
    /// The first minute begins.
    #[must_use]
    pub const fn begin(progress: Progress, anchor: Reading, budgets: Budgets, now: Mono) -> Self {
        Self { anchor, budgets, before: progress, begun: now }
    }

    /// Whether the minute is over.
    #[must_use]
    pub fn is_over(&self, now: Mono) -> bool {
        now >= self.begun + config::JUDGED_EVERY
    }

    /// Judges the minute that is over, and begins the next.
    pub fn turn_over(&mut self, progress: Progress, now: Mono) -> Judgement {
        let span = Micros::from_nanos(now.nanos_since(self.begun));
        let judgement = self.judge(&progress, span);
        self.before = progress;
        self.begun = now;
        judgement
    }

    fn judge(&self, progress: &Progress, span: Micros) -> Judgement {
        let before = &self.before;
        let tally = progress.writer.tally.since(&before.writer.tally);
        let not_stored = progress.writer.dropped - before.writer.dropped;
        let ring_full = progress.totals.dropped - before.totals.dropped;
        let machine = progress.machine.since(&before.machine);
        // At the minute's own rate.
        let backlog_us =
            u128::from(progress.writer.queued_rows) * u128::from(span.0) / u128::from(tally.due().max(1));
        let evidence = Evidence {
            tally: &tally,
            ring_full,
            not_stored,
            portless: progress.totals.portless - before.totals.portless,
            machine,
            backlog: Micros(u64::try_from(backlog_us).unwrap_or(u64::MAX)),
            saturated: false,
        };
        let canary = tally.canary_us();
        Judgement {
            ts: self.anchor.wall_of(self.begun),
            span,
            whole_run: false,
            reasons: evidence.against(&self.budgets),
            due: tally.due(),
            sampled: tally.sampled(),
            missed: tally.missed(),
            dropped: not_stored + ring_full,
            lag_p99_us: tally.lag_us().quantile(0.99),
            agent_p99_us: tally.agent_us().quantile(0.99),
            canary_p99_us: (!canary.is_empty()).then(|| canary.quantile(0.99)),
            stolen_percent: machine.stolen_percent(),
            clock_steps: machine.clock_steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Wall;
    use crate::control::machine::Disturbance;
    use crate::control::node::Totals;
    use crate::sample::{EndpointId, Flags, MissReason, Sample};
    use crate::writer::Snapshot;

    /// A run that has missed so many slots, this late.
    fn progress(missed: u32, lag_us: u64) -> Progress {
        let mut writer = Snapshot::default();
        for _ in 0..missed {
            let lag = Micros(lag_us);
            writer.tally.record(&Sample::missed(
                Wall(0),
                EndpointId(1),
                lag,
                MissReason::Overlap,
                Flags::default(),
            ));
        }
        Progress {
            totals: Totals::default(),
            writer: Arc::new(writer),
            machine: Disturbance { ticks: u64::from(missed), ..Disturbance::default() },
            cpu_us: 0,
            elapsed_ns: 0,
        }
    }

    #[test]
    fn a_minute_is_judged_by_itself() {
        let anchor = Reading { mono: Mono(0), real_ns: 1_700_000_000_000_000_000 };
        let minute = config::JUDGED_EVERY;
        let mut minutes = Minutes::begin(progress(0, 0), anchor, Budgets::default(), Mono(0));
        assert!(!minutes.is_over(Mono(minute.as_nanos() - 1)));
        assert!(minutes.is_over(Mono(minute.as_nanos())));

        let mut after = progress(100, 50_000);
        let first = minutes.turn_over(after.clone(), Mono(minute.as_nanos()));
        assert_eq!((first.due, first.ts, first.span), (100, Wall(1_700_000_000_000_000), minute));
        assert_eq!(first.reasons.len(), 1, "{:?}", first.reasons);
        assert!(first.reasons[0].starts_with("lag: 50.0"), "{:?}", first.reasons);

        let mut writer =
            Snapshot { tally: after.writer.tally.clone(), queued_rows: 1_000, ..Snapshot::default() };
        (0..100).for_each(|_| {
            let on_time =
                Sample::missed(Wall(0), EndpointId(1), Micros(9), MissReason::Overlap, Flags::default());
            writer.tally.record(&on_time);
        });
        after.writer = Arc::new(writer);
        let second = minutes.turn_over(after, Mono(2 * minute.as_nanos()));
        assert_eq!((second.due, second.lag_p99_us), (100, 9));
        assert_eq!(second.ts, Wall(1_700_000_000_000_000) + minute);
        assert_eq!(second.reasons.len(), 1, "ten minutes of rows wait: {:?}", second.reasons);
        assert!(second.reasons[0].starts_with("store: "), "{:?}", second.reasons);
    }
}
