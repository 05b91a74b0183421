//! [`Refused`]: what is left of a batch that the store has refused, until the rows at fault are found.
//!
//! A store refuses a transaction as a whole. So the batch is divided, and each part delivered by itself: what is
//! refused again is divided again, and a single row that is refused is at fault. The largest parts come first,
//! so that if the divisions run out ([`BATCH_DIVISIONS_MAX`]: the store refuses everything, or nearly), what is
//! dropped unexamined is small.
//!
//! ```text
//!   aaaaXaaa   refused ─► aaaa   stored
//!                         Xaaa   refused ─► Xa  refused ─► X  refused: dropped
//!                                           aa  stored     a  stored
//! ```
//!
//! A part may be delivered under the number that its batch had: of a batch that was refused nothing is stored,
//! and no earlier attempt at it can still succeed (the cursor's row was ours when the refusal came).
//!
//! Out of scope: what is a refusal (`error.rs`), delivery (`drive.rs`).
//!
//! Invariant: every row of a batch that was refused is in a part that waits, in one that was taken, or in a
//! [`Gap`]; each row at fault costs at most one division per bit of the batch's length.

use std::collections::{HashSet, VecDeque};

use super::batch::{Batch, Gap, GapReason, slots};
use crate::config::BATCH_DIVISIONS_MAX;
use crate::sample::Sample;

/// Rows that are delivered together, and those of them that are also the latest of their endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) rows: Vec<Sample>,
    pub(crate) latest: Vec<Sample>,
}

/// Parts of one batch that have not been tried yet, the largest first.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    parts: VecDeque<Part>,
    divisions: u32,
}

impl Refused {
    /// The store has refused these rows. They are divided, or else the gap that they leave is returned.
    pub(crate) fn divide(&mut self, rows: &[Sample], latest: &[Sample]) -> Option<Gap> {
        if rows.is_empty() {
            return None;
        }
        if rows.len() == 1 || self.divisions == BATCH_DIVISIONS_MAX {
            return Some(Batch { rows: rows.to_vec() }.gap(GapReason::Rejected));
        }
        self.divisions += 1;
        let (first, second) = rows.split_at(rows.len() / 2);
        // A step has the slot of its sample, which may be in the other half.
        let samples = first.iter().filter(|row| row.detail.step == 0);
        let slots: HashSet<_> = samples.map(|row| (row.endpoint_id, row.ts)).collect();
        let (latest_first, latest_second) =
            latest.iter().partition(|row| slots.contains(&(row.endpoint_id, row.ts)));
        self.parts.push_back(Part { rows: first.to_vec(), latest: latest_first });
        self.parts.push_back(Part { rows: second.to_vec(), latest: latest_second });
        None
    }

    /// The next part to try. When there is none, the batch is done with: what is refused next is another.
    pub(crate) fn take(&mut self) -> Option<Part> {
        let part = self.parts.pop_front();
        if part.is_none() {
            self.divisions = 0;
        }
        part
    }

    /// Rows that wait, steps among them.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows.len()).sum()
    }

    /// The same without steps.
    pub(crate) fn slots(&self) -> u64 {
        self.parts.iter().map(|part| slots(&part.rows)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Micros, Wall};
    use crate::sample::{EndpointId, Flags, MissReason};

    fn rows(count: i64) -> Vec<Sample> {
        let endpoint = |ts: i64| EndpointId(i32::try_from(ts % 50).unwrap());
        let row = |ts| Sample::missed(Wall(ts), endpoint(ts), Micros(0), MissReason::Late, Flags::default());
        (0..count).map(row).collect()
    }

    /// What became of a batch in a store that refuses some rows.
    #[derive(Debug, Default)]
    struct Fate {
        stored: Vec<i64>,
        latest: Vec<i64>,
        gaps: Vec<Gap>,
        refusals: u32,
    }

    fn deliver(rows: Vec<Sample>, is_bad: impl Fn(i64) -> bool) -> Fate {
        let times = |rows: &[Sample]| -> Vec<i64> { rows.iter().map(|row| row.ts.0).collect() };
        let (mut refused, mut fate, batch_rows) = (Refused::default(), Fate::default(), rows.len());
        let mut at_hand = Some(Part { latest: rows[rows.len().saturating_sub(50)..].to_vec(), rows });
        while let Some(part) = at_hand {
            assert!(part.latest.iter().all(|row| part.rows.contains(row)), "a state goes with its row");
            if part.rows.iter().any(|row| is_bad(row.ts.0)) {
                fate.refusals += 1;
                fate.gaps.extend(refused.divide(&part.rows, &part.latest));
            } else {
                fate.stored.extend(times(&part.rows));
                fate.latest.extend(times(&part.latest));
            }
            let dropped: u64 = fate.gaps.iter().map(|gap| gap.rows).sum();
            assert_eq!(fate.stored.len() as u64 + dropped + refused.rows() as u64, batch_rows as u64);
            at_hand = refused.take();
        }
        fate.stored.sort_unstable();
        fate.latest.sort_unstable();
        fate
    }

    #[test]
    fn one_row_among_many_is_found_in_as_many_steps_as_the_length_has_bits() {
        for bad in [0, 1, 12_345, 24_998, 24_999] {
            let fate = deliver(rows(25_000), |ts| ts == bad);
            let gap = Gap { from: Wall(bad), to: Wall(bad), rows: 1, steps: 0, reason: GapReason::Rejected };
            assert_eq!((fate.gaps, fate.stored.len()), (vec![gap], 24_999));
            assert!(fate.refusals <= 16, "{}", fate.refusals);
        }
    }

    #[test]
    fn a_store_that_refuses_everything_is_not_asked_for_ever() {
        for count in [1, 2, 3, 25_000] {
            let fate = deliver(rows(count), |_| true);
            assert!(fate.stored.is_empty());
            assert_eq!(fate.gaps.iter().map(|gap| gap.rows).sum::<u64>(), count.unsigned_abs());
            assert!(fate.refusals <= 2 * BATCH_DIVISIONS_MAX + 1, "{}", fate.refusals);
        }
    }

    #[test]
    fn a_state_goes_with_its_sample_and_not_with_a_step_of_it() {
        let sample = rows(1)[0];
        let mut step = sample;
        step.detail.step = 1;
        let mut refused = Refused::default();
        assert_eq!(refused.divide(&[step, sample], &[sample]), None);
        assert_eq!((refused.rows(), refused.slots()), (2, 1));
        assert_eq!(refused.take(), Some(Part { rows: vec![step], latest: Vec::new() }));
        assert_eq!(refused.take(), Some(Part { rows: vec![sample], latest: vec![sample] }));
        let gap = refused.divide(&[step], &[]).unwrap();
        assert_eq!((gap.rows, gap.steps), (0, 1));
    }

    #[test]
    fn each_batch_has_divisions_of_its_own() {
        let mut refused = Refused::default();
        for _ in 0..3 {
            assert_eq!(refused.divide(&rows(25_000), &[]), None);
            while let Some(part) = refused.take() {
                refused.divide(&part.rows, &part.latest);
            }
        }
    }

    proptest! {
        #[test]
        fn only_the_rows_at_fault_are_dropped(
            count in 1_i64..3_000,
            bad in prop::collection::hash_set(0_i64..3_000, 0..5),
        ) {
            let bad: HashSet<i64> = bad.into_iter().filter(|ts| *ts < count).collect();
            let fate = deliver(rows(count), |ts| bad.contains(&ts));
            let good: Vec<i64> = (0..count).filter(|ts| !bad.contains(ts)).collect();
            let last: Vec<i64> = good.iter().copied().filter(|ts| *ts >= count - 50).collect();
            prop_assert_eq!(fate.stored, good);
            prop_assert_eq!(fate.latest, last);
            prop_assert!(fate.gaps.iter().all(|gap| gap.rows == 1 && bad.contains(&gap.from.0)));
            let bits = i64::BITS - (count - 1).leading_zeros();
            prop_assert!(fate.refusals <= u32::try_from(bad.len()).unwrap() * (bits + 1));
        }

        #[test]
        fn no_row_is_lost_or_doubled(count in 1_i64..3_000, one_in in 1_i64..100) {
            let fate = deliver(rows(count), |ts| ts % one_in == 0);
            let dropped: u64 = fate.gaps.iter().map(|gap| gap.rows).sum();
            prop_assert!(fate.stored.is_sorted_by(|a, b| a < b), "none twice");
            prop_assert_eq!(fate.stored.len() as u64 + dropped, count.unsigned_abs());
            prop_assert!(fate.stored.iter().all(|ts| ts % one_in != 0));
        }
    }
}
