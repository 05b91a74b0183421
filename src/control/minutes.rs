//! A long run, minute by minute: each is judged by itself, so that one bad minute does not spoil a day, and a good day
//! does not hide it.
//!
//! Whoever asks shares the machine with those who probe: if it was stopped, so were they, and when all go on, it may be
//! the first to run. What they missed meanwhile is in the numbers only when they have caught up, so a minute is not
//! judged before whoever looks has been awake for [`config::SETTLED_AFTER`].
//!
//! Pure: pictures of a run in, judgements out. Out of scope: where they are stored (`crate::writer`).

use super::node::{Progress, Workload};
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
    /// The last look,
    looked_at: Mono,
    /// and since when looks have come regularly.
    awake_since: Mono,
    /// How often the minute's judgement was put off.
    put_off: u32,
}

impl Minutes {
    /// The first minute begins.
    #[must_use]
    pub const fn begin(progress: Progress, anchor: Reading, budgets: Budgets, now: Mono) -> Self {
        Self { anchor, budgets, before: progress, begun: now, looked_at: now, awake_since: now, put_off: 0 }
    }

    /// Takes a look, which is to be done often; whether the minute is over, and everybody has caught up with it.
    pub fn look(&mut self, now: Mono) -> bool {
        let is_past = now >= self.begun + config::JUDGED_EVERY;
        if now > self.looked_at + config::LOOKS_APART_MAX {
            self.awake_since = now;
            self.put_off += u32::from(is_past);
        }
        self.looked_at = now;
        let is_settled = now >= self.awake_since + config::SETTLED_AFTER;
        is_past && (is_settled || self.put_off > config::JUDGEMENT_PUT_OFF_MAX)
    }

    /// Judges the minute that is over, and begins the next.
    pub fn turn_over(&mut self, progress: Progress, now: Mono) -> Judgement {
        let span = Micros::from_nanos(now.nanos_since(self.begun));
        let judgement = self.judge(&progress, span);
        self.before = progress;
        self.begun = now;
        self.put_off = 0;
        judgement
    }

    /// Judges what has come since the last minute that was judged, when the run has ended; `None` if that is nothing.
    #[must_use]
    pub fn end(&self, progress: &Progress, ended: Mono) -> Option<Judgement> {
        // What was in flight at the end may have been judged with a minute that ended later.
        let span = Micros::from_nanos(ended.nanos_since(self.begun));
        let judgement = self.judge(progress, span);
        (judgement.due > 0 || judgement.dropped > 0).then_some(judgement)
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
            workload: Workload::Scheduled,
            span,
            tally: &tally,
            ring_full,
            not_stored,
            portless: progress.totals.portless - before.totals.portless,
            machine,
            backlog: Micros(u64::try_from(backlog_us).unwrap_or(u64::MAX)),
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

    fn begin() -> Minutes {
        let anchor = Reading { mono: Mono(0), real_ns: 1_700_000_000_000_000_000 };
        Minutes::begin(progress(0, 0), anchor, Budgets::default(), Mono(0))
    }

    /// Looks every 20 ms after `from` and before `until`: the minute is not over.
    fn look_until(minutes: &mut Minutes, from: Mono, until: Micros) {
        let tick = Micros::from_millis(20);
        let mut now = from + tick;
        while now < Mono(until.as_nanos()) {
            assert!(!minutes.look(now), "over at {now:?}");
            now += tick;
        }
    }

    #[test]
    fn who_was_stopped_waits_until_the_shards_have_caught_up() {
        // Stopped for 70 s, all together, the control thread goes on first: 49,848 slots missed, and "VALID, missed 0".
        for (stopped_ms, woken_ms) in [(10_000, 80_000), (59_900, 62_000), (10_000, 59_990)] {
            let mut minutes = begin();
            look_until(&mut minutes, Mono(0), Micros::from_millis(stopped_ms));
            let woken = Mono(0) + Micros::from_millis(woken_ms);
            assert!(!minutes.look(woken), "nobody else has run yet");
            let settled = woken + config::SETTLED_AFTER;
            look_until(&mut minutes, woken, Micros::from_nanos(settled.0));
            assert!(minutes.look(settled));
        }
    }

    #[test]
    fn who_is_stopped_over_and_over_is_judged_all_the_same() {
        let mut minutes = begin();
        let mut now = Mono(0) + config::JUDGED_EVERY;
        let mut looks = 1;
        while !minutes.look(now) {
            now += Micros::from_millis(700);
            looks += 1;
        }
        assert_eq!(looks, config::JUDGEMENT_PUT_OFF_MAX + 1);
        minutes.turn_over(progress(1, 0), now);
        assert!(!minutes.look(now + config::JUDGED_EVERY), "each minute is put off by itself");
    }

    #[test]
    fn what_is_left_at_the_end_is_judged_too() {
        // A run of 119 s had a row for its first minute, and none for the 59 s in which everything went wrong.
        let mut minutes = begin();
        let (minute, end) = (config::JUDGED_EVERY, Mono(0) + Micros::from_millis(119_000));
        minutes.turn_over(progress(3, 50_000), Mono(0) + minute);
        assert_eq!(minutes.end(&progress(3, 50_000), end), None, "nothing was due");
        let last = minutes.end(&progress(5, 50_000), end).unwrap();
        assert_eq!((last.due, last.span, last.whole_run), (2, Micros::from_millis(59_000), false));
        assert_eq!(last.ts, Wall(1_700_000_000_000_000) + minute);
        assert!(last.reasons[0].starts_with("lag: 50.0"), "{:?}", last.reasons);
        let before_the_minute = minutes.end(&progress(5, 50_000), Mono(7)).unwrap();
        assert_eq!(before_the_minute.span, Micros(0), "drained later than it was stopped");
    }

    #[test]
    fn a_minute_is_judged_by_itself() {
        let minute = config::JUDGED_EVERY;
        let mut minutes = begin();
        look_until(&mut minutes, Mono(0), minute);
        assert!(minutes.look(Mono(minute.as_nanos())));

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
