//! Time: the types every module uses for it, and the only place that asks the kernel for it.
//!
//! [`Mono`] never steps and is what durations are made of; [`Wall`] is what is stored. Kernel receive
//! timestamps arrive in wall time (`SO_TIMESTAMPING` stamps with `CLOCK_REALTIME`), so a [`Reading`] holds
//! both clocks, read together, and turns one into the other.
//!
//! Cores take these as arguments. Nobody but a driver calls [`Reading::now`] or [`Mono::now`].

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on `CLOCK_MONOTONIC`. Never stored: its zero is this machine's boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Microseconds since the Unix epoch, UTC. What is stored as `ts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// A span of time in microseconds; the unit of every stored phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Mono {
    /// The largest instant: "never".
    pub const NEVER: Self = Self(u64::MAX);

    /// Reads `CLOCK_MONOTONIC` (through the vDSO: about 20 ns).
    #[must_use]
    pub fn now() -> Self {
        Self(nanos(ClockId::Monotonic))
    }

    /// The span since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Micros {
    /// Nanoseconds in this span.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0 * 1_000
    }

    /// `ms` milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    /// Whole microseconds of `nanos`, rounded down.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos / 1_000)
    }

    /// The same span for the standard library.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl Wall {
    /// Reads `CLOCK_REALTIME`.
    #[must_use]
    pub fn now() -> Self {
        Self((nanos(ClockId::Realtime) / 1_000).cast_signed())
    }
}

impl Add<Micros> for Mono {
    type Output = Self;
    fn add(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.as_nanos()))
    }
}

impl AddAssign<Micros> for Mono {
    fn add_assign(&mut self, span: Micros) {
        *self = *self + span;
    }
}

impl Add<Micros> for Wall {
    type Output = Self;
    fn add(self, span: Micros) -> Self {
        Self(self.0.saturating_add_unsigned(span.0))
    }
}

impl Sub for Wall {
    type Output = i64;
    /// Microseconds from `earlier` to `self`; negative if `earlier` is later.
    fn sub(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Micros {
    /// In the unit a person would choose: `870 µs`, `12.3 ms`, `4.02 s`.
    #[expect(clippy::cast_precision_loss, reason = "three significant digits are printed")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us} µs"),
            us @ 1_000..1_000_000 => write!(f, "{:.2} ms", us as f64 / 1e3),
            us => write!(f, "{:.3} s", us as f64 / 1e6),
        }
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The monotonic clock.
    pub mono: Mono,
    /// Nanoseconds on `CLOCK_REALTIME` at the same moment.
    pub real_ns: u64,
}

impl Reading {
    /// Reads both clocks, some 30 ns apart: the error of the conversions below.
    #[must_use]
    pub fn now() -> Self {
        Self { mono: Mono::now(), real_ns: nanos(ClockId::Realtime) }
    }

    /// The monotonic instant of a `CLOCK_REALTIME` stamp taken near this reading.
    ///
    /// A wall clock stepped between the stamp and the reading makes the answer wrong by the step; the
    /// caller clamps it into the interval in which the event must have happened.
    #[must_use]
    pub const fn mono_of_real_ns(&self, real_ns: u64) -> Mono {
        let offset_ns = self.real_ns.wrapping_sub(self.mono.0);
        Mono(real_ns.wrapping_sub(offset_ns))
    }

    /// The wall time of a monotonic instant, assuming that the wall clock has not been stepped in between.
    #[must_use]
    pub const fn wall_of(&self, at: Mono) -> Wall {
        let ns = self.real_ns.cast_signed() + (at.0.cast_signed() - self.mono.0.cast_signed());
        Wall(ns.div_euclid(1_000))
    }

    /// The monotonic instant of a wall time, on the same assumption; zero if it was before boot.
    #[must_use]
    pub fn mono_of(&self, at: Wall) -> Mono {
        let ns = self.mono.0.cast_signed() + (at.0 * 1_000 - self.real_ns.cast_signed());
        Mono(ns.max(0).cast_unsigned())
    }
}

/// CPU time the whole process has used so far, user and system, in microseconds (`getrusage(2)`'s sum, read
/// at nanosecond resolution from `CLOCK_PROCESS_CPUTIME_ID`).
#[must_use]
pub fn process_cpu_us() -> u64 {
    nanos(ClockId::ProcessCPUTime) / 1_000
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading = Reading { mono: Mono(5_000_000_000), real_ns: 1_700_000_000_000_000_000 };

    #[test]
    fn kernel_stamps_become_monotonic() {
        assert_eq!(READING.mono_of_real_ns(READING.real_ns - 1_500), Mono(4_999_998_500));
        assert_eq!(READING.mono_of_real_ns(READING.real_ns + 7), Mono(5_000_000_007));
    }

    #[test]
    fn wall_and_mono_are_inverse_to_a_microsecond() {
        for us in [-3_000_000_i64, -1, 0, 1, 9_999_999] {
            let wall = Wall(1_700_000_000_000_000 + us);
            assert_eq!(READING.wall_of(READING.mono_of(wall)), wall);
        }
        assert_eq!(READING.mono_of(Wall(0)), Mono(0), "before boot is clamped");
    }

    #[test]
    fn spans_print_in_the_unit_a_person_would_choose() {
        assert_eq!(Micros(870).to_string(), "870 µs");
        assert_eq!(Micros(12_300).to_string(), "12.30 ms");
        assert_eq!(Micros(4_020_000).to_string(), "4.020 s");
    }

    #[test]
    fn monotonic_time_does_not_run_backwards() {
        let first = Mono::now();
        assert!(first <= Mono::now());
        assert_eq!(first.since(first + Micros(1)), Duration::ZERO);
    }
}
