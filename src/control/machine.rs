//! What the machine did to us: time that its host gave to others or a quota took, packets that it had no time for,
//! clocks that were set.
//!
//! In scope: asking the kernel, and sums since the start. Out of scope: what is too much ([`super::validity`]).

use std::fs;

use super::cgroup::CpuGroup;
use crate::clock::{Micros, Mono, Reading};
use crate::config;

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Ticks of all CPUs together,
    pub ticks: u64,
    /// and those that another guest of the host had (`proc_stat(5)`, `steal`).
    pub stolen_ticks: u64,
    /// For how long a CPU quota stopped us, the times of all CPUs together.
    pub throttled: Micros,
    /// Packets dropped because the kernel's backlog was full (`/proc/net/softnet_stat`, second column).
    pub softirq_drops: u64,
    /// How often the wall clock was set, by more than [`config::CLOCK_STEP_MIN`] at once,
    pub clock_steps: u64,
    /// and by how much altogether, in either direction.
    pub clock_stepped: Micros,
}

impl Disturbance {
    /// What came since an earlier sum.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            ticks: self.ticks.saturating_sub(before.ticks),
            stolen_ticks: self.stolen_ticks.saturating_sub(before.stolen_ticks),
            throttled: Micros(self.throttled.0.saturating_sub(before.throttled.0)),
            softirq_drops: self.softirq_drops.saturating_sub(before.softirq_drops),
            clock_steps: self.clock_steps.saturating_sub(before.clock_steps),
            clock_stepped: Micros(self.clock_stepped.0.saturating_sub(before.clock_stepped.0)),
        }
    }

    /// The share of CPU time that another guest had.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio, printed with a digit or two")]
    pub fn stolen_percent(&self) -> f64 {
        self.stolen_ticks as f64 * 100.0 / self.ticks.max(1) as f64
    }
}

/// Looks at the machine now and then.
#[derive(Debug)]
pub struct Watch {
    sum: Disturbance,
    clocks: Reading,
    group: Option<CpuGroup>,
    /// What the kernel's counters said last, and when they are read again.
    counters: Disturbance,
    read_next: Mono,
}

impl Watch {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        let (clocks, group) = (Reading::now(), CpuGroup::of_this_process());
        Self {
            sum: Disturbance::default(),
            clocks,
            counters: counters(group.as_ref()),
            group,
            read_next: clocks.mono + config::MACHINE_EVERY,
        }
    }

    /// Takes a look. The more often, the better a step of the clock can be told from its being slewed.
    pub fn look(&mut self) {
        let clocks = Reading::now();
        if stepped(&self.clocks, &clocks).is_some() {
            // Between the readings of the two clocks we may have been stopped.
            let again = Reading::now();
            if let Some(step) = stepped(&self.clocks, &again) {
                self.sum.clock_steps += 1;
                self.sum.clock_stepped.0 += step.0;
                log::warn!(
                    "the wall clock was set, by {step}: slots, and times stamped by the kernel, moved with it"
                );
            }
            self.clocks = again;
        } else {
            self.clocks = clocks;
        }
        if clocks.mono >= self.read_next {
            self.read_counters(clocks.mono);
        }
    }

    /// Everything up to now.
    #[must_use]
    pub fn sum(&mut self) -> Disturbance {
        self.look();
        self.read_counters(Mono::now());
        self.sum
    }

    fn read_counters(&mut self, now: Mono) {
        self.read_next = now + config::MACHINE_EVERY;
        let counters = counters(self.group.as_ref());
        let Disturbance { ticks, stolen_ticks, throttled, softirq_drops, .. } =
            counters.since(&self.counters);
        self.sum.ticks += ticks;
        self.sum.stolen_ticks += stolen_ticks;
        self.sum.throttled.0 += throttled.0;
        self.sum.softirq_drops += softirq_drops;
        self.counters = counters;
    }
}

/// By how much the wall clock was set between two readings, if by more than slewing and reading explain.
fn stepped(before: &Reading, after: &Reading) -> Option<Micros> {
    let offset_ns = |reading: &Reading| reading.real_ns.wrapping_sub(reading.mono.0);
    let moved_ns = offset_ns(after).wrapping_sub(offset_ns(before)).cast_signed().unsigned_abs();
    // adjtimex(2) slews by half a millisecond per second at most; NTP's daemons by less.
    let slewed_ns = after.mono.nanos_since(before.mono) / 1_000;
    (moved_ns > slewed_ns + config::CLOCK_STEP_MIN.as_nanos()).then(|| Micros::from_nanos(moved_ns))
}

/// The kernel's counters; what it does not tell is 0.
fn counters(group: Option<&CpuGroup>) -> Disturbance {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (ticks, stolen_ticks) = cpu_ticks(&read("/proc/stat"));
    Disturbance {
        ticks,
        stolen_ticks,
        throttled: group.map(CpuGroup::throttled).unwrap_or_default(),
        softirq_drops: softirq_drops(&read("/proc/net/softnet_stat")),
        ..Disturbance::default()
    }
}

/// All ticks and stolen ones, from the line of all CPUs: user nice system idle iowait irq softirq steal. (Guests'
/// time is in `user` already.)
fn cpu_ticks(stat: &str) -> (u64, u64) {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks: Vec<u64> = line
        .unwrap_or_default()
        .split_ascii_whitespace()
        .take(8)
        .filter_map(|word| word.parse().ok())
        .collect();
    (ticks.iter().sum(), ticks.get(7).copied().unwrap_or(0))
}

/// The second column, of all CPUs; hexadecimal.
fn softirq_drops(softnet_stat: &str) -> u64 {
    let dropped = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok();
    softnet_stat.lines().filter_map(dropped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let stat = "cpu  10 1 5 100 2 0 3 7 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";
        assert_eq!(cpu_ticks(stat), (128, 7));
        assert_eq!(cpu_ticks(""), (0, 0));
        let softnet = "00a1b2 0000000f 00000003 0 0\n000001 00000010 00000000 0 0\n";
        assert_eq!(softirq_drops(softnet), 31);
        assert_eq!(softirq_drops("what"), 0);
    }

    #[test]
    fn this_kernel_tells() {
        let counters = counters(CpuGroup::of_this_process().as_ref());
        assert!(counters.ticks > 0 && counters.stolen_ticks <= counters.ticks, "{counters:?}");
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_one_that_is_slewed() {
        let before = Reading { mono: Mono(1_000_000_000), real_ns: 1_700_000_000_000_000_000 };
        let after = |mono_ns: u64, real_ns: i64| Reading {
            mono: Mono(before.mono.0 + mono_ns),
            real_ns: before.real_ns.checked_add_signed(real_ns).unwrap(),
        };
        assert_eq!(stepped(&before, &after(20_000_000, 20_000_000)), None);
        assert_eq!(stepped(&before, &after(1_000_000_000, 1_000_500_000)), None, "slewed, as fast as may be");
        assert_eq!(stepped(&before, &after(20_000_000, 25_000_000)), Some(Micros(5_000)));
        assert_eq!(
            stepped(&before, &after(20_000_000, -3_000_000_000)),
            Some(Micros(3_020_000)),
            "backwards"
        );
    }

    #[test]
    fn sums_are_told_apart() {
        let before = Disturbance { ticks: 100, stolen_ticks: 1, ..Disturbance::default() };
        let throttled = Micros(7);
        let after =
            Disturbance { ticks: 300, stolen_ticks: 11, throttled, clock_steps: 1, ..Disturbance::default() };
        let since = after.since(&before);
        assert_eq!((since.ticks, since.stolen_ticks, since.clock_steps), (200, 10, 1));
        assert_eq!(since.throttled, throttled);
        assert!((since.stolen_percent() - 5.0).abs() < 1e-9);
        assert_eq!(Disturbance::default().stolen_percent(), 0.0);
    }
}
