//! From single samples to batches, and the bounded queue in which batches wait for the store.
//!
//! [`Batcher`] closes a batch at the first of age, rows and bytes. [`Queue`] holds closed batches, oldest
//! first. A small batch is joined to the last one waiting, so that an hour's outage of a slow node is not
//! answered with fifteen thousand transactions. Over its bound the queue drops its oldest batch and says
//! which span of time that was: recent samples are worth more, and a gap in the middle hides more than one
//! at its edge.
//!
//! Steps (the hops and attempts of a probe) travel with the samples and take the same room, but are no slot's: rows are
//! counted without them.
//!
//! Out of scope: clocks (`now` comes in), delivery, exactly-once (`drive.rs`).
//!
//! Invariant: every row pushed is in the open batch, in the queue, taken, or in a [`Gap`].

use std::collections::VecDeque;
use std::mem;

use crate::clock::{Mono, Wall};
use crate::config::{BATCH_AGE_MAX, BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use crate::sample::Sample;

use super::pgcopy::STEP_ROW_BYTES as ROW_BYTES;

/// Rows of a full batch: the row bound and the byte bound in one number.
pub(crate) const ROWS_MAX: usize =
    if BATCH_ROWS_MAX < BATCH_BYTES_MAX / ROW_BYTES { BATCH_ROWS_MAX } else { BATCH_BYTES_MAX / ROW_BYTES };

/// The last microsecond of the year 9999. No working clock is beyond it or before 1970, and both stores and
/// all readers can show what lies between; what is beyond is stored as the edge.
pub(crate) const TS_MAX: Wall = Wall(253_402_300_799_999_999);

/// Rows that are stored together, never none; steps among them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) rows: Vec<Sample>,
}

/// How many of these rows are samples of slots; the rest are steps.
pub(crate) fn slots(rows: &[Sample]) -> u64 {
    rows.iter().filter(|row| row.detail.step == 0).count() as u64
}

/// Why rows were dropped; stored by name in `ingest_gaps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// The store was away for longer than the queue could hold.
    QueueFull,
    /// The store refused the rows as such.
    Rejected,
    /// The run ended, and the store did not take the rows in time.
    Ended,
}

/// Rows that were dropped: how many, and the span in which they were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: Wall,
    pub(crate) to: Wall,
    pub(crate) rows: u64,
    /// Steps that were dropped with them, or alone.
    pub(crate) steps: u64,
    pub(crate) reason: GapReason,
}

/// The open batch.
#[derive(Debug, Default)]
pub(crate) struct Batcher {
    open: Vec<Sample>,
    slots: u64,
    opened_at: Mono,
}

/// Batches that wait for the store.
#[derive(Debug)]
pub(crate) struct Queue {
    batches: VecDeque<Batch>,
    rows: u64,
    bytes: usize,
    bytes_max: usize,
}

impl GapReason {
    /// As stored.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::Ended => "ended",
        }
    }
}

impl Batch {
    /// Memory it takes.
    pub(crate) const fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Sample>()
    }

    /// What is missing if this batch is.
    pub(crate) fn gap(&self, reason: GapReason) -> Gap {
        let ts = || self.rows.iter().map(|row| row.ts);
        let rows = slots(&self.rows);
        Gap {
            from: ts().min().unwrap_or_default(),
            to: ts().max().unwrap_or_default(),
            rows,
            steps: self.rows.len() as u64 - rows,
            reason,
        }
    }
}

impl Gap {
    /// The span and the rows of both; for gaps of one reason.
    pub(crate) fn join(self, other: Self) -> Self {
        debug_assert!(self.reason == other.reason);
        Self {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            rows: self.rows + other.rows,
            steps: self.steps + other.steps,
            reason: self.reason,
        }
    }
}

impl Batcher {
    /// Adds a sample; returns the batch that it filled.
    pub(crate) fn push(&mut self, mut sample: Sample, now: Mono) -> Option<Batch> {
        if self.open.is_empty() {
            self.opened_at = now;
        }
        sample.ts = sample.ts.clamp(Wall(0), TS_MAX);
        self.slots += u64::from(sample.detail.step == 0);
        self.open.push(sample);
        if self.open.len() == ROWS_MAX { self.close() } else { None }
    }

    /// The open batch, if it is old enough.
    pub(crate) fn poll(&mut self, now: Mono) -> Option<Batch> {
        if now.since(self.opened_at) >= BATCH_AGE_MAX.as_duration() { self.close() } else { None }
    }

    /// The open batch, if there is one.
    pub(crate) fn close(&mut self) -> Option<Batch> {
        if self.open.is_empty() {
            return None;
        }
        // A little more than this batch had: rates change slowly, and the queue counts rows, not capacity.
        let capacity = (self.open.len() + self.open.len() / 8).min(ROWS_MAX);
        self.slots = 0;
        let mut rows = mem::replace(&mut self.open, Vec::with_capacity(capacity));
        if rows.capacity() > rows.len() * 2 {
            rows.shrink_to_fit();
        }
        Some(Batch { rows })
    }

    /// Rows in the open batch.
    pub(crate) const fn rows(&self) -> u64 {
        self.slots
    }
}

impl Queue {
    /// An empty queue that holds `bytes_max` bytes of samples.
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), rows: 0, bytes: 0, bytes_max }
    }

    /// Adds a batch behind all others. If that is too much together with the `held` bytes of batches that
    /// have been taken and not delivered, the oldest are dropped: the gap they leave is returned.
    pub(crate) fn push(&mut self, mut batch: Batch, held: usize) -> Option<Gap> {
        self.rows += slots(&batch.rows);
        self.bytes += batch.bytes();
        match self.batches.back_mut() {
            Some(last) if last.rows.len() + batch.rows.len() <= ROWS_MAX => last.rows.append(&mut batch.rows),
            _ => self.batches.push_back(batch),
        }
        let mut gap: Option<Gap> = None;
        while self.bytes + held > self.bytes_max
            && let Some(oldest) = self.take()
        {
            let dropped = oldest.gap(GapReason::QueueFull);
            gap = Some(gap.map_or(dropped, |gap| gap.join(dropped)));
        }
        gap
    }

    /// The oldest batch.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.rows -= slots(&batch.rows);
        self.bytes -= batch.bytes();
        Some(batch)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Rows that wait.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Memory they take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Micros;
    use crate::sample::{EndpointId, Flags, MissReason};

    fn sample(ts: i64) -> Sample {
        Sample::missed(Wall(ts), EndpointId(1), Micros(0), MissReason::Late, Flags::default())
    }

    fn batch(ts: impl IntoIterator<Item = i64>) -> Batch {
        Batch { rows: ts.into_iter().map(sample).collect() }
    }

    #[test]
    fn a_batch_is_closed_at_the_first_of_age_rows_and_bytes() {
        let mut batcher = Batcher::default();
        let start = Mono(1_000_000);
        let just_before = Mono((start + BATCH_AGE_MAX).0 - 1);
        assert!(batcher.push(sample(1), start).is_none());
        assert!(batcher.push(sample(2), just_before).is_none());
        assert!(batcher.poll(just_before).is_none());
        assert_eq!(batcher.poll(start + BATCH_AGE_MAX).unwrap().rows.len(), 2);
        assert!(batcher.poll(start + Micros(60_000_000)).is_none(), "nothing is not a batch");
        let closed: Vec<usize> = (0..2 * i64::try_from(ROWS_MAX).unwrap())
            .filter_map(|ts| batcher.push(sample(ts), start))
            .map(|batch| batch.rows.len())
            .collect();
        assert_eq!(closed, [ROWS_MAX, ROWS_MAX]);
        const { assert!(ROWS_MAX * ROW_BYTES <= BATCH_BYTES_MAX && ROWS_MAX <= BATCH_ROWS_MAX) };
        assert!(batcher.close().is_none());
    }

    #[test]
    fn times_that_no_clock_has_become_the_edge() {
        let mut batcher = Batcher::default();
        for ts in [i64::MIN, -1, 0, 5, TS_MAX.0, i64::MAX] {
            batcher.push(sample(ts), Mono(0));
        }
        let stored: Vec<i64> = batcher.close().unwrap().rows.iter().map(|row| row.ts.0).collect();
        assert_eq!(stored, [0, 0, 0, 5, TS_MAX.0, TS_MAX.0]);
    }

    #[test]
    fn steps_take_room_and_are_no_rows() {
        let step = |ts| {
            let mut step = sample(ts);
            step.detail.step = 1;
            step
        };
        let mut batcher = Batcher::default();
        for row in [sample(5), step(3), step(9)] {
            assert!(batcher.push(row, Mono(0)).is_none());
        }
        assert_eq!(batcher.rows(), 1);
        let batch = batcher.close().unwrap();
        assert_eq!((batch.rows.len(), batcher.rows()), (3, 0));
        let mut queue = Queue::new(3 * size_of::<Sample>());
        assert_eq!(queue.push(batch, 0), None);
        assert_eq!((queue.rows(), queue.bytes()), (1, 3 * size_of::<Sample>()));
        let gap = queue.push(Batch { rows: vec![step(7); ROWS_MAX] }, 0).unwrap();
        assert_eq!((gap.rows, gap.steps), (1, 2 + ROWS_MAX as u64), "both batches are over the bound");
        assert_eq!((gap.from, gap.to, queue.rows()), (Wall(3), Wall(9), 0));
    }

    #[test]
    fn small_batches_are_joined_while_they_wait() {
        let mut queue = Queue::new(usize::MAX);
        for ts in 0..1000 {
            queue.push(batch([ts]), 0);
        }
        assert_eq!(queue.take().unwrap().rows.len(), 1000);
        assert!(queue.is_empty());
    }

    #[test]
    fn over_the_bound_the_oldest_goes_and_the_span_is_told() {
        let full = |from: i64| batch(from..from + i64::try_from(ROWS_MAX).unwrap());
        let bytes = full(0).bytes();
        let mut queue = Queue::new(2 * bytes);
        assert_eq!(queue.push(full(0), 0), None);
        assert_eq!(queue.push(full(100_000), 0), None);
        let gap = queue.push(full(200_000), bytes).unwrap();
        assert_eq!((gap.from, gap.rows, gap.reason), (Wall(0), 2 * ROWS_MAX as u64, GapReason::QueueFull));
        assert_eq!(gap.to, Wall(100_000 + i64::try_from(ROWS_MAX).unwrap() - 1));
        assert_eq!(queue.take().unwrap().rows[0].ts, Wall(200_000));
        assert_eq!((queue.rows(), queue.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn no_row_is_lost_or_doubled(
            sizes in prop::collection::vec((1_usize..3 * ROWS_MAX / 2, prop::bool::ANY), 1..30),
            bytes_max in 1_usize..6 * ROWS_MAX * 64,
        ) {
            let (mut queue, mut next, mut taken, mut dropped) = (Queue::new(bytes_max), 0_i64, 0, 0);
            let mut last = -1;
            for (size, take) in sizes {
                let size = size.min(ROWS_MAX);
                let rows = next..next + i64::try_from(size).unwrap();
                next = rows.end;
                dropped += queue.push(batch(rows), 0).map_or(0, |gap| gap.rows);
                prop_assert!(queue.bytes() <= bytes_max);
                if take && let Some(batch) = queue.take() {
                    prop_assert!(batch.rows.len() <= ROWS_MAX);
                    prop_assert!(batch.rows.is_sorted_by_key(|row| row.ts));
                    prop_assert!(batch.rows[0].ts.0 > last, "later than the batch before");
                    last = batch.rows[batch.rows.len() - 1].ts.0;
                    taken += batch.rows.len() as u64;
                }
                prop_assert_eq!(taken + dropped + queue.rows(), next.unsigned_abs());
            }
        }
    }
}
