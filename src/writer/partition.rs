//! Which partitions `metrics` and `steps` need, and which are past their retention.
//!
//! A row without a partition fails the whole batch, and a default partition would forbid detaching others
//! without a lock; so the writer makes partitions before it needs them, [`PARTITIONS_AHEAD`] in advance, and
//! for whatever time the samples at hand are from.
//!
//! The width follows from the retention: an hour while that makes no more than a few hundred partitions, so
//! that data is dropped soon after its time and a query over a day touches little else; then a quarter of a
//! day; then a day, because planning takes time and locks for each partition. Should the retention change,
//! partitions of both widths stand side by side: what is missing is whatever the existing ones leave open.
//!
//! Out of scope: SQL (`postgres.rs`).
//!
//! Invariant: ranges to be made never overlap existing ones, and start and end on whole seconds.

use crate::clock::{Micros, Wall};
use crate::config::PARTITIONS_AHEAD;
use crate::sample::Sample;

const SECOND_US: i64 = 1_000_000;
const HOUR: Micros = Micros::from_millis(3_600_000);
const DAY: Micros = Micros(24 * HOUR.0);

/// A span of time, its end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) from: Wall,
    pub(super) to: Wall,
}

/// The width of partitions for a retention.
pub(super) fn width(retention: Option<Micros>) -> Micros {
    match retention {
        Some(retention) if retention <= Micros(7 * DAY.0) => HOUR,
        Some(retention) if retention <= Micros(42 * DAY.0) => Micros(6 * HOUR.0),
        _ => DAY,
    }
}

/// The partitions to make for `rows` and for the time to come, given those that exist, sorted.
pub(super) fn missing(existing: &[Range], rows: &[Sample], now: Wall, width: Micros) -> Vec<Range> {
    let width_us = width.0.cast_signed();
    let slot = |ts: Wall| ts.0.div_euclid(width_us);
    let mut slots: Vec<i64> = (0..=i64::from(PARTITIONS_AHEAD)).map(|ahead| slot(now) + ahead).collect();
    for row in rows {
        let slot = slot(row.ts);
        // Rows come in order of time, nearly: the slot is nearly always among the first.
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }
    slots.sort_unstable();
    let mut missing = Vec::new();
    for slot in slots {
        let end = Wall((slot + 1) * width_us);
        let start = Wall(slot * width_us);
        let mut from = start;
        for taken in existing.iter().filter(|taken| taken.to > start && taken.from < end) {
            if taken.from > from {
                missing.push(Range { from, to: taken.from });
            }
            from = from.max(taken.to);
        }
        if from < end {
            missing.push(Range { from, to: end });
        }
    }
    missing
}

/// Whether a partition holds nothing that is still to be kept.
pub(super) fn expired(partition: Range, now: Wall, retention: Micros) -> bool {
    partition.to <= cutoff(now, retention)
}

/// What is older is not kept.
pub(super) fn cutoff(now: Wall, retention: Micros) -> Wall {
    Wall(now.0.saturating_sub_unsigned(retention.0))
}

/// The name of the partition of `table` that starts at `from`; partitions do not overlap, so starts are unique.
pub(super) fn name(table: &str, from: Wall) -> String {
    let Utc { year, month, day, hour, minute, second } = utc(from);
    match second {
        0 => format!("{table}_{year:04}{month:02}{day:02}_{hour:02}{minute:02}"),
        _ => format!("{table}_{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}"),
    }
}

/// A time for people: `2026-11-24 06:00:00Z`.
pub(super) fn prose(at: Wall) -> String {
    let Utc { year, month, day, hour, minute, second } = utc(at);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Whole seconds since the Unix epoch.
pub(super) fn unix_s(at: Wall) -> i64 {
    at.0.div_euclid(SECOND_US)
}

struct Utc {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// The proleptic Gregorian date; the algorithm is Howard Hinnant's `civil_from_days`.
fn utc(at: Wall) -> Utc {
    let seconds = unix_s(at);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years start in March here, so that the leap day comes last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Utc {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        hour: of_day / 3_600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::{EndpointId, Flags, MissReason};
    use crate::writer::batch::TS_MAX;

    fn at(hours: i64) -> Wall {
        Wall(hours * HOUR.0.cast_signed())
    }

    fn range(from: i64, to: i64) -> Range {
        Range { from: at(from), to: at(to) }
    }

    fn row(ts: Wall) -> Sample {
        Sample::missed(ts, EndpointId(1), Micros(0), MissReason::Late, Flags::default())
    }

    #[test]
    fn partitions_are_made_ahead_and_for_the_rows_at_hand() {
        let ahead = [range(100, 101), range(101, 102), range(102, 103)];
        assert_eq!(missing(&[], &[], at(100), HOUR), ahead);
        assert_eq!(missing(&ahead, &[row(at(100)), row(at(103))], at(100), HOUR), [range(103, 104)]);
        assert_eq!(missing(&ahead, &[row(at(3))], at(100), HOUR), [range(3, 4)], "and only those");
        assert_eq!(missing(&ahead, &[row(Wall(at(104).0 - 1))], at(100), HOUR), [range(103, 104)]);
    }

    #[test]
    fn a_changed_width_fills_what_is_open() {
        let six = Micros(6 * HOUR.0);
        let existing = [range(97, 98), range(99, 100)];
        assert_eq!(
            missing(&existing, &[], at(98), six),
            [range(96, 97), range(98, 99), range(100, 102), range(102, 108), range(108, 114)]
        );
        assert_eq!(missing(&[range(0, 24 * 365)], &[], at(98), HOUR), []);
    }

    #[test]
    fn a_partition_goes_when_its_last_row_is_past_retention() {
        let day = DAY;
        assert!(expired(range(0, 1), at(25), day));
        assert!(!expired(range(0, 2), at(25), day));
        assert!(!expired(range(100, 101), at(25), day), "the future stays");
    }

    #[test]
    fn widths_keep_the_number_of_partitions_in_the_hundreds() {
        for days in 1..=400 {
            let partitions = days * DAY.0 / width(Some(Micros(days * DAY.0))).0;
            assert!(partitions <= 400, "{days} days: {partitions}");
        }
    }

    #[test]
    fn names_are_dates() {
        for (seconds, expected) in [
            (0, "metrics_19700101_0000"),
            (951_782_400, "metrics_20000229_0000"),
            (1_795_500_000, "metrics_20261124_0600"),
            (1_795_500_061, "metrics_20261124_060101"),
            (unix_s(TS_MAX), "metrics_99991231_235959"),
        ] {
            assert_eq!(name("metrics", Wall(seconds * SECOND_US)), expected);
        }
        assert_eq!(prose(Wall(1_795_500_061_999_999)), "2026-11-24 06:01:01Z");
    }

    proptest! {
        #[test]
        fn every_row_gets_exactly_one_partition(
            cuts in prop::collection::btree_set(0_i64..200, 0..40),
            hours in prop::collection::vec(0_i64..200, 0..20),
            now in 0_i64..200,
            width_hours in prop::sample::select(vec![1_u64, 6, 24]),
        ) {
            // Every other span between neighbouring cuts exists already.
            let cuts: Vec<i64> = cuts.into_iter().collect();
            let existing: Vec<Range> = cuts.chunks_exact(2).map(|cut| range(cut[0], cut[1])).collect();
            let rows: Vec<Sample> = hours.iter().map(|hour| row(at(*hour))).collect();
            let mut all = existing.clone();
            all.extend(missing(&existing, &rows, at(now), Micros(width_hours * HOUR.0)));
            all.sort_unstable();
            for pair in all.windows(2) {
                prop_assert!(pair[0].to <= pair[1].from, "{:?} overlaps {:?}", pair[0], pair[1]);
            }
            for ts in rows.iter().map(|row| row.ts).chain([at(now)]) {
                prop_assert_eq!(all.iter().filter(|range| range.from <= ts && ts < range.to).count(), 1);
            }
            prop_assert!(missing(&all, &rows, at(now), Micros(width_hours * HOUR.0)).is_empty());
        }
    }
}
