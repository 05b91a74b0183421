//! When each endpoint is due: a static table of phases per interval, and a cursor through it.
//!
//! Periodic work needs no timer structure. The slots of an endpoint lie at the wall times
//!
//! ```text
//! slot(k) = k · interval + phase32 · interval / 2³²        µs since the Unix epoch
//! ```
//!
//! which depends on nothing but its id and its interval: not on when the process started, not on the shard or
//! the node, and never on when an earlier probe ended. Endpoints of one interval are sorted by phase once;
//! then the next due one is always the one under the cursor, which moves on by one: nothing is inserted or
//! removed, ever. The few tables are kept in a small heap by their next slot, and keeping it is most of the
//! 35 ns that a slot costs with 26 intervals (`benches/schedule.rs`). It grows with the logarithm of the
//! number of intervals and not with the endpoints. An endpoint costs [`ENTRY_BYTES`], unless every endpoint
//! has an interval of its own.
//!
//! In scope: which slot is next. Out of scope: what becomes of it ([`crate::shard::engine`]), clocks.
//!
//! Invariant: every slot at or after `start` is handed out exactly once and in order, however late the caller
//! comes: nothing is coalesced or skipped here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::clock::{Micros, Wall};
use crate::endpoint::phase32;
use crate::sample::EndpointId;

/// The slots of one shard's endpoints.
#[derive(Debug, Default)]
pub struct Schedule {
    tables: Vec<Table>,
    /// Tables by their next slot; equal slots in order of table, so that the order is a function of the input.
    next: BinaryHeap<Reverse<(Wall, usize)>>,
}

/// A slot that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which endpoint: the number it was given to [`Schedule::new`] with.
    pub endpoint: u32,
    /// The slot itself.
    pub scheduled_at: Wall,
    /// From this slot to the endpoint's next.
    pub interval: Micros,
}

/// The endpoints of one interval.
#[derive(Debug)]
struct Table {
    /// Nanoseconds: a rate's interval is rarely a whole number of microseconds.
    interval_ns: i64,
    /// Sorted by phase.
    entries: Vec<Entry>,
    cursor: usize,
    /// Start of the cursor's cycle, nanoseconds since the Unix epoch: 63 bits of them last until 2262, and are
    /// divided by 1,000 with one multiplication, which 128 bits are not.
    cycle_ns: i64,
}

/// One endpoint: where in its interval it is due, in units of the interval / 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    phase: u32,
    endpoint: u32,
}

/// What an endpoint costs here.
pub const ENTRY_BYTES: usize = size_of::<Entry>();
const _: () = assert!(ENTRY_BYTES == 8);

impl Schedule {
    /// The slots at or after `start` of endpoints given as (number, id, interval).
    #[must_use]
    pub fn new(endpoints: impl Iterator<Item = (u32, EndpointId, Micros)>, start: Wall) -> Self {
        let mut by_interval: BTreeMap<Micros, Vec<Entry>> = BTreeMap::new();
        for (endpoint, id, interval) in endpoints {
            assert!(interval.0 > 0, "an interval is at least INTERVAL_MIN");
            by_interval.entry(interval).or_default().push(Entry { phase: phase32(id), endpoint });
        }
        let mut schedule = Self::default();
        for (interval, entries) in by_interval {
            let interval_ns =
                i64::try_from(interval.as_nanos()).expect("an interval is at most INTERVAL_MAX");
            schedule.add(Table::new(interval_ns, entries, 0, start));
        }
        schedule
    }

    /// `count` endpoints in turn, `rate_per_s` slots per second in all, the first at `start`.
    ///
    /// Each endpoint's interval is `count / rate_per_s`, and not bounded from below: this is for benchmarks.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a rate is a measure: the interval is rounded to a nanosecond, once"
    )]
    pub fn evenly(count: usize, rate_per_s: f64, start: Wall) -> Self {
        let mut schedule = Self::default();
        let Ok(count_u32) = u32::try_from(count) else { return schedule };
        if count_u32 == 0 {
            return schedule;
        }
        // The conversion saturates: a rate near zero has a first slot and, for centuries, no second one.
        let interval_ns = ((count as f64 * 1e9 / rate_per_s) as i64).max(i64::from(count_u32));
        let phase = |n: u32| u32::try_from((u64::from(n) << 32) / u64::from(count_u32)).expect("below 2³²");
        let entries = (0..count_u32).map(|n| Entry { phase: phase(n), endpoint: n }).collect();
        schedule.add(Table::new(interval_ns, entries, start.0 * 1_000, start));
        schedule
    }

    /// Slots before `start` are nobody's any more: for who was made some time before it could begin.
    pub fn skip_to(&mut self, start: Wall) {
        self.tables.iter_mut().for_each(|table| table.seek(start));
        let next = |(index, table): (usize, &Table)| Reverse((table.next_slot(), index));
        self.next = self.tables.iter().enumerate().map(next).collect();
    }

    /// The earliest slot not handed out yet.
    #[must_use]
    pub fn next_due(&self) -> Option<Wall> {
        self.next.peek().map(|Reverse((at, _))| *at)
    }

    /// The earliest slot, if it is not after `now`.
    pub fn pop_due(&mut self, now: Wall) -> Option<Due> {
        let mut top = self.next.peek_mut()?;
        let Reverse((scheduled_at, table_index)) = *top;
        if scheduled_at > now {
            return None;
        }
        let table = &mut self.tables[table_index];
        let endpoint = table.entries[table.cursor].endpoint;
        table.advance();
        // Writing through the guard sifts the heap once.
        *top = Reverse((table.next_slot(), table_index));
        Some(Due { endpoint, scheduled_at, interval: Micros::from_nanos(table.interval_ns.cast_unsigned()) })
    }

    fn add(&mut self, table: Table) {
        self.next.push(Reverse((table.next_slot(), self.tables.len())));
        self.tables.push(table);
    }
}

impl Table {
    /// A table whose cycles begin at `origin_ns` plus multiples of the interval, with the cursor at the first
    /// slot that is not before `start`.
    fn new(interval_ns: i64, mut entries: Vec<Entry>, origin_ns: i64, start: Wall) -> Self {
        assert!(!entries.is_empty(), "a table is made for its first entry");
        entries.sort_unstable();
        entries.shrink_to_fit();
        let mut table = Self { interval_ns, entries, cursor: 0, cycle_ns: origin_ns };
        table.seek(start);
        table
    }

    /// Puts the cursor at the first slot that is not before `start`.
    fn seek(&mut self, start: Wall) {
        let since_cycle_ns = start.0 * 1_000 - self.cycle_ns;
        self.cycle_ns += since_cycle_ns.div_euclid(self.interval_ns) * self.interval_ns;
        self.cursor = self.entries.partition_point(|entry| self.slot(*entry) < start);
        if self.cursor == self.entries.len() {
            self.cursor = 0;
            self.cycle_ns = self.cycle_ns.saturating_add(self.interval_ns);
        }
    }

    fn next_slot(&self) -> Wall {
        self.slot(self.entries[self.cursor])
    }

    fn slot(&self, entry: Entry) -> Wall {
        // Below the interval, because the phase is below 2³².
        let offset_ns = (u128::from(entry.phase) * u128::from(self.interval_ns.cast_unsigned())) >> 32;
        let offset_ns = i64::try_from(offset_ns).unwrap_or(i64::MAX);
        Wall(self.cycle_ns.saturating_add(offset_ns).div_euclid(1_000))
    }

    fn advance(&mut self) {
        self.cursor += 1;
        if self.cursor == self.entries.len() {
            self.cursor = 0;
            self.cycle_ns = self.cycle_ns.saturating_add(self.interval_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Wall = Wall(1_700_000_000_123_456);
    const HOUR_US: i64 = 3_600_000_000;

    /// Intervals from the shortest to a day, for ids 1, 2, ….
    fn endpoints(count: u32) -> Vec<(u32, EndpointId, Micros)> {
        let intervals_ms = [100, 5_000, 7_000, 30_000, 60_000, 86_400_000];
        let interval = |n: u32| Micros::from_millis(intervals_ms[n as usize % intervals_ms.len()]);
        (0..count).map(|n| (n, EndpointId(n.cast_signed() + 1), interval(n))).collect()
    }

    /// The definition, slot by slot.
    fn naive(endpoints: &[(u32, EndpointId, Micros)], from: Wall, to: Wall) -> Vec<(Wall, u32)> {
        let mut slots = Vec::new();
        for (number, id, interval) in endpoints {
            let interval = i64::try_from(interval.0).unwrap();
            let phase = i64::try_from((u128::from(phase32(*id)) * u128::from(interval.unsigned_abs())) >> 32)
                .unwrap();
            let mut k = (from.0 - phase).div_euclid(interval);
            loop {
                let slot = Wall(k * interval + phase);
                if slot >= to {
                    break;
                }
                if slot >= from {
                    slots.push((slot, *number));
                }
                k += 1;
            }
        }
        slots.sort_unstable();
        slots
    }

    fn drain(schedule: &mut Schedule, now: Wall) -> Vec<(Wall, u32)> {
        std::iter::from_fn(|| schedule.pop_due(now)).map(|due| (due.scheduled_at, due.endpoint)).collect()
    }

    #[test]
    fn every_slot_exactly_once_and_in_order() {
        let endpoints = endpoints(40);
        let mut schedule = Schedule::new(endpoints.iter().copied(), START);
        let end = Wall(START.0 + 3 * HOUR_US);
        let mut seen = Vec::new();
        // Steps of every size: regular turns, and stalls of minutes after which nothing may be missing.
        let mut now = START;
        for step in [1, 999, 10_000, 250_000, 3_000_000, 120_000_000].into_iter().cycle() {
            assert!(schedule.next_due().unwrap() > now || now == START);
            now = Wall(now.0 + step).min(Wall(end.0 - 1));
            seen.extend(drain(&mut schedule, now));
            if now.0 == end.0 - 1 {
                break;
            }
        }
        assert!(seen.is_sorted_by_key(|(at, _)| *at), "in order");
        seen.sort_unstable();
        assert_eq!(seen, naive(&endpoints, START, end));
    }

    #[test]
    fn a_restart_changes_no_slot() {
        let endpoints = endpoints(100);
        for restart_us in [0, 1, 4_999_999, 77_777_777, HOUR_US - 5] {
            let restart = Wall(START.0 + restart_us);
            let mut schedule = Schedule::new(endpoints.iter().copied(), restart);
            let end = Wall(restart.0 + 60_000_000);
            let mut seen = drain(&mut schedule, Wall(end.0 - 1));
            seen.sort_unstable();
            assert_eq!(seen, naive(&endpoints, restart, end), "restarted {restart_us} µs later");
        }
    }

    #[test]
    fn what_is_skipped_is_as_if_it_had_never_been() {
        let endpoints = endpoints(100);
        for late_us in [0, 1, 99_999, 30_000_000, 2 * HOUR_US] {
            let begin = Wall(START.0 + late_us);
            let mut skipped = Schedule::new(endpoints.iter().copied(), START);
            skipped.skip_to(begin);
            let mut fresh = Schedule::new(endpoints.iter().copied(), begin);
            let end = Wall(begin.0 + 60_000_000);
            assert_eq!(drain(&mut skipped, end), drain(&mut fresh, end), "{late_us} µs later");
        }
    }

    #[test]
    fn a_rate_is_kept_exactly_and_in_turn() {
        let mut schedule = Schedule::evenly(64, 10_000.0, START);
        let seen = drain(&mut schedule, Wall(START.0 + 999_999));
        assert_eq!(seen.len(), 10_000);
        assert_eq!(seen[0], (START, 0));
        for (n, pair) in seen.windows(2).enumerate() {
            assert_eq!(pair[1].1, (pair[0].1 + 1) % 64);
            assert!((99..=101).contains(&(pair[1].0 - pair[0].0)), "slot {n}: {pair:?}");
        }
    }

    #[test]
    fn a_rate_need_not_divide_anything() {
        let mut schedule = Schedule::evenly(7, 333_333.3, START);
        let seen = drain(&mut schedule, Wall(START.0 + 999_999));
        assert!((333_300..=333_370).contains(&seen.len()), "{}", seen.len());
        assert!(seen.windows(2).all(|pair| pair[1].1 == (pair[0].1 + 1) % 7 && pair[1].0 >= pair[0].0));

        // So slow that the second slot is beyond the end of time: saturated, not wrapped.
        let mut schedule = Schedule::evenly(1, 1e-300, START);
        assert_eq!(drain(&mut schedule, Wall(START.0 + 1_000 * HOUR_US)), [(START, 0)]);
    }

    #[test]
    fn nothing_to_do_is_nothing_due() {
        assert_eq!(Schedule::new(std::iter::empty(), START).next_due(), None);
        assert_eq!(Schedule::evenly(0, 1.0, START).pop_due(Wall(i64::MAX)), None);
    }
}
