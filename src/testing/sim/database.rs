//! The simulated database, and the writer that stores into it.
//!
//! The database goes away and comes back, is slow, and sometimes commits without its answer arriving: also
//! after the writer has given up. What keeps rows from being stored twice is the cursor that is moved in the
//! same transaction, as in the real one: a commit that would move it by anything but one fails. Some rows it
//! refuses, each time and with everything that came along.
//!
//! In scope: what can become of a batch. Out of scope: SQL, encoding. Invariant: nothing here is visible to the
//! network or the engine; the only way from there to here is the bounded ring.

use rtrb::Consumer;

use super::clock::mix;
use super::clock::{Agenda, Random};
use crate::clock::Mono;
use crate::config::{BATCH_AGE_MAX, GATHER_EVERY, STORE_DEADLINE};
use crate::sample::Sample;
use crate::writer::backoff::Backoff;
use crate::writer::batch::{Batch, Batcher, Queue};
use crate::writer::refused::Refused;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// A database that comes and goes.
#[derive(Debug)]
pub struct Database {
    random: Random,
    /// Whether it is ever away.
    fails: bool,
    up: bool,
    changes_at: Mono,
    /// The number of the last batch applied.
    cursor: u64,
    commits: Agenda<(u64, Vec<Sample>)>,
    /// A fault put in to see that it is found: commits are applied whatever the cursor says.
    pub ignores_cursor: bool,
}

/// What became of an attempt to store, as the writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Stored,
    /// Broken off or timed out: it may have been committed all the same.
    Unknown,
    /// There is a row in it that is never taken.
    Refused,
}

impl Database {
    /// One that never fails unless `fails`.
    #[must_use]
    pub fn new(random: Random, fails: bool) -> Self {
        Self {
            random,
            fails,
            up: true,
            changes_at: Mono(0),
            cursor: 0,
            commits: Agenda::default(),
            ignores_cursor: false,
        }
    }

    /// When the next commit happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Mono> {
        self.commits.next_at()
    }

    /// Carries out the commits until `now`, and hands out the rows that became visible.
    pub fn advance(&mut self, now: Mono, visible: &mut impl FnMut(&Sample)) {
        while let Some((_, (number, rows))) = self.commits.take(now) {
            if number == self.cursor + 1 || self.ignores_cursor {
                self.cursor = self.cursor.max(number);
                rows.iter().for_each(&mut *visible);
            }
        }
    }

    fn is_up(&mut self, now: Mono) -> bool {
        while self.fails && now >= self.changes_at {
            self.up = !self.up;
            let longest = if self.up { 4 * 3_600 * SECOND } else { 1_200 * SECOND };
            self.changes_at = Mono(
                self.changes_at.0.max(now.0.saturating_sub(longest))
                    + self.random.between_orders(10 * MS, longest),
            );
        }
        self.up
    }

    /// The cursor, if it can be asked.
    fn connect(&mut self, now: Mono) -> Option<u64> {
        (self.is_up(now) && !(self.fails && self.random.chance(50))).then_some(self.cursor)
    }

    /// A batch arrives: the reply, and when.
    fn store(&mut self, now: Mono, number: u64, batch: &Batch) -> (Mono, Reply) {
        let deadline = now + STORE_DEADLINE;
        if !self.is_up(now) {
            // A refusal is quick; a host that is gone is not.
            let quick = self.random.chance(700);
            return (if quick { Mono(now.0 + MS) } else { deadline }, Reply::Unknown);
        }
        let mut takes = self.random.between_orders(MS, 100 * MS);
        if self.fails && self.random.chance(30) {
            takes = self.random.between_orders(SECOND, 90 * SECOND);
        }
        let at = Mono(now.0 + takes);
        if self.fails && self.random.chance(20) {
            // Broken off before the commit.
            return (at.min(deadline), Reply::Unknown);
        }
        if self.fails && batch.rows.iter().any(is_refused) {
            return if at > deadline { (deadline, Reply::Unknown) } else { (at, Reply::Refused) };
        }
        self.commits.note(at, (number, batch.rows.clone()));
        let lost = self.fails && self.random.chance(40);
        if lost || at > deadline { (at.min(deadline), Reply::Unknown) } else { (at, Reply::Stored) }
    }
}

/// One row in a few thousand, and always the same.
fn is_refused(row: &Sample) -> bool {
    let slot = row.ts.0.cast_unsigned() ^ mix(u64::from(row.endpoint_id.0.cast_unsigned()));
    mix(slot).is_multiple_of(3_000)
}

/// The writer: gathers from the ring, batches, and stores.
#[derive(Debug)]
pub struct Writer {
    samples: Consumer<Sample>,
    random: Random,
    batcher: Batcher,
    queue: Queue,
    gather_at: Option<Mono>,
    /// No earlier than this.
    poll_at: Option<Mono>,
    held: Option<(u64, Batch)>,
    refused: Refused,
    state: State,
    backoff: Backoff,
    /// The number of the last batch acknowledged.
    acknowledged: u64,
    /// Rows acknowledged.
    pub stored: u64,
    /// Rows that the queue had no room for, or the database no liking.
    pub dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Connected, nothing under way.
    Ready,
    /// A batch is under way.
    Waiting(Mono, Reply),
    /// Disconnected until then.
    Pausing(Mono),
}

impl Writer {
    /// A writer at the other end of a shard's ring, with a queue of `queue_bytes_max`.
    #[must_use]
    pub fn new(samples: Consumer<Sample>, mut random: Random, queue_bytes_max: usize) -> Self {
        Self {
            samples,
            backoff: Backoff::new(random.draw()),
            random,
            batcher: Batcher::default(),
            queue: Queue::new(queue_bytes_max),
            gather_at: None,
            poll_at: None,
            held: None,
            refused: Refused::default(),
            state: State::Ready,
            acknowledged: 0,
            stored: 0,
            dropped: 0,
        }
    }

    /// There is something in the ring: the next of its regular looks will find it, or a late one.
    pub fn notice(&mut self, now: Mono) {
        if self.gather_at.is_none() {
            let late = if self.random.chance(2) { self.random.between_orders(MS, 120 * SECOND) } else { 0 };
            self.gather_at = Some(Mono((now + GATHER_EVERY).0 + late));
        }
    }

    /// When it has something to do next.
    #[must_use]
    pub fn next_at(&self) -> Option<Mono> {
        let store_at = match self.state {
            State::Ready => None,
            State::Waiting(at, _) | State::Pausing(at) => Some(at),
        };
        [self.gather_at, self.poll_at, store_at].into_iter().flatten().min()
    }

    /// Rows here and neither known to be stored nor dropped.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.samples.slots() as u64 + self.batcher.rows() + self.queue.rows() + self.taken_rows() as u64
    }

    fn taken_rows(&self) -> usize {
        self.held.as_ref().map_or(0, |(_, batch)| batch.rows.len()) + self.refused.rows()
    }

    /// Does what is to be done by `now`.
    pub fn advance(&mut self, now: Mono, database: &mut Database) {
        if self.gather_at.is_some_and(|at| at <= now) {
            self.gather_at = None;
            while let Ok(sample) = self.samples.pop() {
                let full = self.batcher.push(sample, now);
                self.enqueue(full);
            }
            self.poll_at.get_or_insert(now + BATCH_AGE_MAX);
        }
        if self.poll_at.is_some_and(|at| at <= now) {
            let old = self.batcher.poll(now);
            self.enqueue(old);
            self.poll_at = (self.batcher.rows() > 0).then_some(now + GATHER_EVERY);
        }
        match self.state {
            State::Waiting(at, reply) if at <= now => match reply {
                Reply::Stored => self.delivered(),
                Reply::Unknown => self.pause(now),
                Reply::Refused => self.divide(now),
            },
            State::Pausing(at) if at <= now => self.reconnect(now, database),
            _ => {}
        }
        if self.state == State::Ready {
            if self.held.is_none() {
                let part = self.refused.take().map(|part| Batch { rows: part.rows });
                self.held = part.or_else(|| self.queue.take()).map(|batch| (self.acknowledged + 1, batch));
            }
            if let Some((number, batch)) = &self.held {
                let (at, reply) = database.store(now, *number, batch);
                self.state = State::Waiting(at, reply);
            }
        }
    }

    /// Everything that is still in the ring or open goes to the queue: the shard has ended.
    pub fn finish(&mut self, now: Mono, database: &mut Database) {
        self.gather_at = Some(now);
        self.advance(now, database);
        let last = self.batcher.close();
        self.enqueue(last);
        self.poll_at = None;
        self.advance(now, database);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_none() && self.refused.rows() == 0 && self.queue.is_empty() && self.batcher.rows() == 0
    }

    fn enqueue(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else { return };
        if let Some(gap) = self.queue.push(batch, self.taken_rows() * size_of::<Sample>()) {
            self.dropped += gap.rows;
        }
    }

    fn delivered(&mut self) {
        let (number, batch) = self.held.take().expect("a reply is to a batch");
        self.acknowledged = number;
        self.stored += batch.rows.len() as u64;
        self.backoff.succeeded();
        self.state = State::Ready;
    }

    fn divide(&mut self, now: Mono) {
        let (_, batch) = self.held.take().expect("a reply is to a batch");
        if let Some(gap) = self.refused.divide(&batch.rows, &[]) {
            self.dropped += gap.rows;
        }
        self.backoff.succeeded();
        self.pause(now);
    }

    fn pause(&mut self, now: Mono) {
        self.state = State::Pausing(now + self.backoff.failed());
    }

    /// Asks first what became of the batch whose fate is unknown.
    fn reconnect(&mut self, now: Mono, database: &mut Database) {
        match (database.connect(now), &self.held) {
            (None, _) => self.pause(now),
            (Some(cursor), Some((number, _))) if cursor >= *number => self.delivered(),
            (Some(_), _) => self.state = State::Ready,
        }
    }
}
