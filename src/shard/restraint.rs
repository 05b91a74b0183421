//! Self-restraint: when the shard cannot keep up, some slots are given up, the least important first, so that the
//! others are still probed on time and their numbers are still true.
//!
//! ```text
//!            more than half of a window's slots start late, or of its probes wait for us; at first, of two in a row
//!   share ──────────────────────────────────────────────────────────────────────────────► a tenth of the rest more
//!         ◄────────────────────────────────────────────────────────────────────────────── a twentieth less
//!                                         less than half
//! ```
//!
//! Half, and not the worst, because a stall of milliseconds delays many probes, is over before anything could be done
//! about it, and is told of by every sample it touched: only what lasts is overload (the reasoning of CoDel, RFC 8289,
//! section 4.2). Which slots: all of a lower priority before any of a higher one; of the last priority that is given
//! up only in part, slots in turn.
//!
//! In scope: how much to give up, and of what. Out of scope: clocks, what a slot is ([`super::engine`]).
//!
//! Invariant: without overload nothing is given up; and never everything, or nobody would see that it is over.

use crate::clock::{Micros, Mono};
use crate::config;

/// Priorities there are: 0 to 9.
const PRIORITIES: usize = 10;

/// What one shard gives up.
#[derive(Debug)]
pub struct Restraint {
    budgets: Budgets,
    /// When the window ends.
    until: Mono,
    slots: Share,
    probes: Share,
    /// The window before was over budget.
    was_over: bool,
    /// Slots of this window, by priority.
    due: [u32; PRIORITIES],
    /// How much of all slots is given up, 0 to 1;
    share: f32,
    /// and so of each priority's.
    shares: [f32; PRIORITIES],
    /// Each priority's fraction of a slot that is to be given up yet.
    owed: [f32; PRIORITIES],
}

/// What is still acceptable.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// A slot that starts later is late.
    pub lag: Micros,
    /// A probe that waits for us for longer waits for too long.
    pub agent: Micros,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { lag: config::LAG_P99_BUDGET, agent: config::AGENT_P99_BUDGET }
    }
}

/// How many of something were over budget.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    all: u32,
    over: u32,
}

impl Share {
    const fn count(&mut self, over: bool) {
        self.all += 1;
        self.over += over as u32;
    }

    const fn is_most(self) -> bool {
        self.over > self.all / 2 && self.all >= config::RESTRAINT_COUNT_MIN
    }
}

impl Restraint {
    /// Nothing is given up yet.
    #[must_use]
    pub fn new(budgets: Budgets) -> Self {
        Self {
            budgets,
            until: Mono(0),
            slots: Share::default(),
            probes: Share::default(),
            was_over: false,
            due: [0; PRIORITIES],
            share: 0.0,
            shares: [0.0; PRIORITIES],
            owed: [0.0; PRIORITIES],
        }
    }

    /// A slot of this priority is to start, so much after its time: whether it is given up.
    pub fn gives_up(&mut self, priority: u8, lag: Micros, now: Mono) -> bool {
        if now >= self.until {
            self.turn_over(now);
        }
        let priority = usize::from(priority).min(PRIORITIES - 1);
        self.slots.count(lag > self.budgets.lag);
        self.due[priority] += 1;
        let owed = self.owed[priority] + self.shares[priority];
        let gives_up = owed >= 1.0;
        self.owed[priority] = if gives_up { owed - 1.0 } else { owed };
        gives_up
    }

    /// A probe has ended that waited so long for us.
    pub fn ended(&mut self, agent: Micros) {
        self.probes.count(agent > self.budgets.agent);
    }

    /// How much of all slots is given up, of a thousand.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1,000")]
    pub fn per_mille(&self) -> u64 {
        (self.share * 1e3) as u64
    }

    /// A window has ended, and the next begins.
    fn turn_over(&mut self, now: Mono) {
        self.until = now + config::RESTRAINT_WINDOW;
        let is_over = self.slots.is_most() || self.probes.is_most();
        // What a stall has left behind is late for one window, and then over.
        let was_over = std::mem::replace(&mut self.was_over, is_over);
        let lasts = is_over && (was_over || self.share > 0.0);
        self.share = if lasts {
            (self.share + (1.0 - self.share) / 10.0).min(config::RESTRAINT_SHARE_MAX)
        } else if self.share < config::RESTRAINT_SHARE_MIN {
            0.0
        } else {
            self.share * 0.95
        };
        // As if the next window's slots were those of this one.
        let mut left = self.due.iter().sum::<u32>().to_f32() * self.share;
        for (share, due) in self.shares.iter_mut().zip(self.due) {
            let taken = left.min(due.to_f32());
            *share = if due == 0 { 0.0 } else { taken / due.to_f32() };
            left -= taken;
        }
        self.due = [0; PRIORITIES];
        (self.slots, self.probes) = (Share::default(), Share::default());
    }
}

trait ToF32 {
    fn to_f32(self) -> f32;
}

impl ToF32 for u32 {
    #[expect(clippy::cast_precision_loss, reason = "a share of a window's slots")]
    fn to_f32(self) -> f32 {
        self as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Micros = config::LAG_P99_BUDGET;
    const WINDOW: Micros = config::RESTRAINT_WINDOW;

    /// Windows of 100 slots, whose priorities are 0, 1, …, 9, 0, …; what was given up of each priority in the last.
    fn live(
        restraint: &mut Restraint,
        from: u64,
        windows: u64,
        lag: impl Fn(u64) -> Micros,
    ) -> [u32; PRIORITIES] {
        let mut given_up = [0; PRIORITIES];
        for window in from..from + windows {
            given_up = [0; PRIORITIES];
            for slot in 0..100 {
                let now = Mono(window * WINDOW.as_nanos() + slot * WINDOW.as_nanos() / 100 + 1);
                let priority = (slot % 10) as u8;
                given_up[usize::from(priority)] += u32::from(restraint.gives_up(priority, lag(slot), now));
            }
        }
        given_up
    }

    #[test]
    fn what_is_on_time_or_late_for_a_moment_is_all_probed() {
        let mut restraint = Restraint::new(Budgets::default());
        let stall = |slot| if slot < 45 { Micros(50_000) } else { Micros(20) };
        assert_eq!(live(&mut restraint, 1, 50, |_| LAG), [0; PRIORITIES]);
        assert_eq!(live(&mut restraint, 51, 50, stall), [0; PRIORITIES]);
        assert_eq!(restraint.per_mille(), 0);
        // A stall that makes a window's slots late, and no more of the next than it must.
        for window in 0..10 {
            assert_eq!(live(&mut restraint, 200 + 2 * window, 1, |_| Micros(90_000)), [0; PRIORITIES]);
            assert_eq!(live(&mut restraint, 201 + 2 * window, 1, stall), [0; PRIORITIES]);
        }
        assert_eq!(restraint.per_mille(), 0);
    }

    #[test]
    fn lower_priorities_are_given_up_first_and_never_all() {
        let mut restraint = Restraint::new(Budgets::default());
        let late = |_| Micros(10_000);
        let first = live(&mut restraint, 1, 4, late);
        assert!(first[0] > 0 && first[2..] == [0; 8], "{first:?}");
        let last = live(&mut restraint, 5, 100, late);
        assert_eq!(last[..9], [10; 9]);
        assert!(last[9] < 10, "somebody is probed, to see when it is over: {last:?}");
        for (lower, higher) in last.iter().zip(&last[1..]) {
            assert!(lower >= higher, "{last:?}");
        }
    }

    #[test]
    fn it_ends_by_itself() {
        let mut restraint = Restraint::new(Budgets::default());
        live(&mut restraint, 1, 20, |_| Micros(10_000));
        assert!(restraint.per_mille() > 500);
        live(&mut restraint, 21, 1, |_| Micros(0));
        let mut before = restraint.per_mille();
        for window in 22..200 {
            live(&mut restraint, window, 1, |_| Micros(0));
            assert!(restraint.per_mille() <= before);
            before = restraint.per_mille();
        }
        assert_eq!(live(&mut restraint, 200, 1, |_| Micros(0)), [0; PRIORITIES]);
        assert_eq!(restraint.per_mille(), 0);
    }

    #[test]
    fn a_loop_with_the_shard_finds_what_it_can_do() {
        // A shard that can do 80 of 100 slots in a window, and lags behind by what it could not.
        let mut restraint = Restraint::new(Budgets::default());
        let (mut backlog, mut worst_late, mut given_up_late) = (0_i64, 0, 0);
        for window in 1..400_u64 {
            let lag = Micros(u64::try_from(backlog).unwrap() * WINDOW.0 / 80);
            let given_up: u32 = live(&mut restraint, window, 1, |_| lag).iter().sum();
            backlog = (backlog + 100 - i64::from(given_up) - 80).max(0);
            if window > 200 {
                worst_late = worst_late.max(backlog);
                given_up_late += given_up;
            }
        }
        let mean = f64::from(given_up_late) / 199.0;
        assert!((18.0..32.0).contains(&mean), "of 100 slots 20 are too many, and {mean} are given up");
        assert!(worst_late < 30, "the backlog stays short: {worst_late} slots");
    }

    #[test]
    fn probes_that_wait_for_us_count_as_well() {
        let mut restraint = Restraint::new(Budgets::default());
        for window in 1..20 {
            live(&mut restraint, window, 1, |_| Micros(0));
            (0..100).for_each(|_| restraint.ended(Micros(30_000)));
        }
        assert!(restraint.per_mille() > 500);
    }
}
