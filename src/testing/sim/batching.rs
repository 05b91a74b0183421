//! The one place where the simulation takes hold of the writer's pure cores.
//!
//! Signatures are those of `writer::batch`: an open batch that age or size closes, and a bounded queue that
//! drops its oldest. The small model below has them too, so that replacing it is one `use` line here.

use std::collections::VecDeque;
use std::mem;

use crate::clock::Mono;
use crate::config::{BATCH_AGE_MAX, BATCH_ROWS_MAX};
use crate::sample::Sample;

/// Rows that are stored together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the order in which they came.
    pub(super) rows: Vec<Sample>,
}

/// Rows that were dropped.
#[derive(Debug)]
pub(super) struct Gap {
    /// How many.
    pub(super) rows: u64,
}

/// The open batch.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    open: Vec<Sample>,
    opened_at: Mono,
}

/// Batches that wait for the store.
#[derive(Debug)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    bytes_max: usize,
}

impl Batch {
    const fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Sample>()
    }
}

impl Batcher {
    pub(super) fn push(&mut self, sample: Sample, now: Mono) -> Option<Batch> {
        if self.open.is_empty() {
            self.opened_at = now;
        }
        self.open.push(sample);
        if self.open.len() == BATCH_ROWS_MAX { self.close() } else { None }
    }

    pub(super) fn poll(&mut self, now: Mono) -> Option<Batch> {
        if now.since(self.opened_at) >= BATCH_AGE_MAX.as_duration() { self.close() } else { None }
    }

    pub(super) fn close(&mut self) -> Option<Batch> {
        (!self.open.is_empty()).then(|| Batch { rows: mem::take(&mut self.open) })
    }

    pub(super) const fn rows(&self) -> u64 {
        self.open.len() as u64
    }
}

impl Queue {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), bytes_max }
    }

    pub(super) fn push(&mut self, batch: Batch, held: usize) -> Option<Gap> {
        self.batches.push_back(batch);
        let mut rows = 0;
        while self.bytes() + held > self.bytes_max
            && let Some(oldest) = self.take()
        {
            rows += oldest.rows.len() as u64;
        }
        (rows > 0).then_some(Gap { rows })
    }

    pub(super) fn take(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.rows.len() as u64).sum()
    }

    fn bytes(&self) -> usize {
        self.batches.iter().map(Batch::bytes).sum()
    }
}
