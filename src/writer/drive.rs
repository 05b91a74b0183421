//! The writer's thread: gathers from the shards, delivers to the store, and never lets the second delay the
//! first.
//!
//! ```text
//! gather   every 20 ms: rings ─► tally, batcher ─► queue          ends when every shard has
//! deliver  queue ─► one transaction per batch ─► store            ends when the queue is empty then
//! ```
//!
//! Both run on one thread and share [`State`]. Exactly once: a batch has a number, and the store's cursor says
//! whether that number is in. After any failure the connection is given up, and on the next one the cursor is
//! asked before the batch is tried again: so a COMMIT whose answer was lost is neither repeated nor forgotten.
//!
//! Out of scope: when to close a batch, what to drop, how long to pause (`batch.rs`, `backoff.rs`), which
//! errors pass (`error.rs`).

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use rtrb::Consumer;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::backoff::Backoff;
use super::batch::{Batch, Batcher, Gap, GapReason, Queue};
use super::error::Remedy;
use super::latest::Latest;
use super::store::{Ingest, Store};
use super::{Snapshot, StoreError, StoreState, StoreUrl, Tally, WriterOptions};
use crate::clock::{Micros, Mono, Wall};
use crate::config::{
    DRAIN_STORE_MAX, GATHER_EVERY, RETENTION_EVERY, SNAPSHOT_EVERY, STORE_CONNECT_MAX, STORE_DEADLINE,
};
use crate::sample::Sample;

/// Where the last picture is left for others to see.
pub(super) type Published = Arc<Mutex<Arc<Snapshot>>>;

/// What gathering and delivering share. Borrowed for moments only, never across an await.
struct State {
    tally: Tally,
    batcher: Batcher,
    queue: Queue,
    /// The rows of the batch that has been taken and not settled, and their memory.
    taken: (u64, usize),
    gaps: Vec<Gap>,
    stored: u64,
    dropped: u64,
    batches: u64,
    store_state: StoreState,
    gathered_all: bool,
}

struct Writer {
    state: RefCell<State>,
    /// There is something to deliver, or nothing will come any more.
    news: Notify,
    published: Published,
    has_store: bool,
}

/// The thread's body: until every shard has ended and its samples are stored or given up.
pub(super) fn run(
    consumers: Vec<Consumer<Sample>>,
    options: &WriterOptions,
    published: Published,
) -> std::io::Result<Arc<Snapshot>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let writer = Writer {
        state: RefCell::new(State {
            tally: Tally::new(),
            batcher: Batcher::default(),
            queue: Queue::new(options.queue_bytes_max),
            taken: (0, 0),
            gaps: Vec::new(),
            stored: 0,
            dropped: 0,
            batches: 0,
            store_state: options.store.as_ref().map_or(StoreState::None, |_| StoreState::Connecting),
            gathered_all: false,
        }),
        news: Notify::new(),
        published,
        has_store: options.store.is_some(),
    };
    runtime.block_on(async {
        let deliver = async {
            if let Some(store) = &options.store {
                Delivery::new(&writer, store, options.retention).run().await;
            }
        };
        let patience = async {
            writer.gather(consumers).await;
            sleep(DRAIN_STORE_MAX.as_duration()).await;
        };
        tokio::pin!(deliver, patience);
        let mut delivered = false;
        loop {
            tokio::select! {
                () = &mut deliver, if !delivered => delivered = true,
                () = &mut patience => break,
                () = writer.gathered(), if delivered => break,
            }
        }
    });
    Ok(writer.close())
}

impl Writer {
    /// Takes samples from the rings until all shards have ended and nothing is left.
    async fn gather(&self, mut consumers: Vec<Consumer<Sample>>) {
        let mut next_snapshot = Mono::now();
        while !self.take_samples(&mut consumers, Mono::now(), &mut next_snapshot) {
            sleep(GATHER_EVERY.as_duration()).await;
        }
    }

    /// Empties the rings once; whether that was all there will ever be.
    fn take_samples(&self, consumers: &mut [Consumer<Sample>], now: Mono, next_snapshot: &mut Mono) -> bool {
        let mut state = self.state.borrow_mut();
        // Looked at before the last samples are taken: a shard that ends in between has left them.
        let all_ended = consumers.iter().all(Consumer::is_abandoned);
        for consumer in consumers {
            let waiting = consumer.slots();
            let Ok(samples) = consumer.read_chunk(waiting) else { continue };
            for sample in samples {
                state.take_in(sample, self.has_store, now);
            }
        }
        if let Some(batch) = if all_ended { state.batcher.close() } else { state.batcher.poll(now) } {
            state.enqueue(batch);
        }
        state.gathered_all = all_ended;
        if all_ended || !state.queue.is_empty() {
            self.news.notify_one();
        }
        if now >= *next_snapshot {
            *next_snapshot = now + SNAPSHOT_EVERY;
            self.publish(&state);
        }
        all_ended
    }

    /// Waits for the end of gathering; only asked once delivery is over, which is then close.
    async fn gathered(&self) {
        while !self.state.borrow().gathered_all {
            sleep(GATHER_EVERY.as_duration()).await;
        }
    }

    fn publish(&self, state: &State) -> Arc<Snapshot> {
        let snapshot = Arc::new(state.snapshot());
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        snapshot
    }

    /// The final picture: what is still waiting is given up.
    fn close(self) -> Arc<Snapshot> {
        let mut state = self.state.borrow_mut();
        let left = state.taken.0 + state.queue.rows() + state.batcher.rows();
        if left > 0 {
            log::error!("{left} rows could not be stored before the end, and are lost");
        }
        state.dropped += left;
        state.taken = (0, 0);
        while state.queue.take().is_some() {}
        state.batcher.close();
        state.store_state = StoreState::Closed;
        self.publish(&state)
    }
}

impl State {
    fn take_in(&mut self, sample: Sample, has_store: bool, now: Mono) {
        self.tally.record(&sample);
        if has_store && let Some(batch) = self.batcher.push(sample, now) {
            self.enqueue(batch);
        }
    }

    fn enqueue(&mut self, batch: Batch) {
        if let Some(gap) = self.queue.push(batch, self.taken.1) {
            log::warn!("the queue is full: {} rows dropped", gap.rows);
            self.give_up(gap);
        }
    }

    /// Counts dropped rows, and keeps their span until it can be recorded; spans of one reason are joined.
    fn give_up(&mut self, gap: Gap) {
        self.dropped += gap.rows;
        self.keep_gap(gap);
    }

    fn keep_gap(&mut self, gap: Gap) {
        match self.gaps.iter_mut().find(|known| known.reason == gap.reason) {
            Some(known) => *known = known.join(gap),
            None => self.gaps.push(gap),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            tally: self.tally.clone(),
            stored: self.stored,
            dropped: self.dropped,
            queued_rows: self.taken.0 + self.queue.rows() + self.batcher.rows(),
            queue_bytes: self.taken.1 + self.queue.bytes(),
            batches: self.batches,
            store_state: self.store_state.clone(),
        }
    }
}

/// The way of batches into the store.
struct Delivery<'a> {
    writer: &'a Writer,
    url: &'a StoreUrl,
    retention: Option<Micros>,
    writer_id: Uuid,
    store: Option<Store>,
    /// Number of the last batch known to be stored.
    seq: i64,
    latest: Latest,
    backoff: Backoff,
    next_retention: Mono,
    away_since: Option<Mono>,
}

impl<'a> Delivery<'a> {
    fn new(writer: &'a Writer, url: &'a StoreUrl, retention: Option<Micros>) -> Self {
        let writer_id = Uuid::new_v4();
        let (seed, _) = writer_id.as_u64_pair();
        Self {
            writer,
            url,
            retention,
            writer_id,
            store: None,
            seq: 0,
            latest: Latest::default(),
            backoff: Backoff::new(seed),
            next_retention: Mono::now(),
            away_since: None,
        }
    }

    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            let states = self.latest.select(&batch.rows);
            self.deliver(&batch, &states).await;
            self.retain().await;
        }
    }

    /// The oldest batch; `None` when there will be no more.
    async fn next_batch(&self) -> Option<Batch> {
        loop {
            {
                let mut state = self.writer.state.borrow_mut();
                if let Some(batch) = state.queue.take() {
                    state.taken = (batch.rows.len() as u64, batch.bytes());
                    return Some(batch);
                }
                if state.gathered_all {
                    return None;
                }
            }
            self.writer.news.notified().await;
        }
    }

    /// Until the batch is stored, or known never to be.
    async fn deliver(&mut self, batch: &Batch, states: &[Sample]) {
        let seq = self.seq + 1;
        loop {
            let gaps = std::mem::take(&mut self.writer.state.borrow_mut().gaps);
            let result = self.attempt(seq, batch, states, &gaps).await;
            if self.settle(seq, batch, gaps, result) {
                return;
            }
            sleep(self.backoff.failed().as_duration()).await;
        }
    }

    /// The books after a try; whether the batch is dealt with.
    fn settle(&mut self, seq: i64, batch: &Batch, gaps: Vec<Gap>, result: Result<(), StoreError>) -> bool {
        let mut state = self.writer.state.borrow_mut();
        if result.is_err() {
            // Dropped and counted they are; what is open still is to record them.
            gaps.into_iter().for_each(|gap| state.keep_gap(gap));
        }
        match result {
            Ok(()) => {
                self.seq = seq;
                state.stored += batch.rows.len() as u64;
                state.batches += 1;
                state.taken = (0, 0);
                self.backoff.succeeded();
                state.store_state = StoreState::Connected;
                if let Some(since) = self.away_since.take() {
                    let away = Micros::from_nanos(Mono::now().nanos_since(since));
                    log::info!("the store is back after {away}; {} more rows are held", state.queue.rows());
                }
                true
            }
            Err(error) if error.remedy() == Remedy::Drop => {
                log::error!("{} rows refused by the store, and dropped: {error}", batch.rows.len());
                state.give_up(batch.gap(GapReason::Rejected));
                state.taken = (0, 0);
                self.store = None;
                true
            }
            Err(error) => {
                self.store = None;
                let error = error.to_string();
                if self.away_since.is_none() {
                    self.away_since = Some(Mono::now());
                    log::warn!("the store is away, samples are held in memory: {error}");
                }
                state.store_state = StoreState::Reconnecting { error };
                false
            }
        }
    }

    /// One try, on the connection at hand or a new one.
    async fn attempt(
        &mut self,
        seq: i64,
        batch: &Batch,
        states: &[Sample],
        gaps: &[Gap],
    ) -> Result<(), StoreError> {
        let store = match &mut self.store {
            Some(store) => store,
            None => {
                let mut store = within(STORE_CONNECT_MAX, Store::open(self.url)).await?;
                let cursor = within(STORE_DEADLINE, store.cursor(self.writer_id)).await?;
                let store = self.store.insert(store);
                if cursor >= seq {
                    // An earlier try got through, and only its answer was lost.
                    return Ok(());
                }
                store
            }
        };
        let ingest =
            Ingest { writer_id: self.writer_id, seq, rows: &batch.rows, states, gaps, now: Wall::now() };
        within(STORE_DEADLINE, store.ingest(&ingest, self.retention)).await
    }

    async fn retain(&mut self) {
        let (Some(retention), Some(store)) = (self.retention, &mut self.store) else { return };
        if Mono::now() < self.next_retention {
            return;
        }
        self.next_retention = Mono::now() + RETENTION_EVERY;
        if let Err(error) = within(STORE_DEADLINE, store.retain(Wall::now(), retention)).await {
            log::warn!("retention: {error}");
            self.store = None;
        }
    }
}

/// `future`, or [`StoreError::Deadline`] when it takes longer than `limit`.
async fn within<T>(
    limit: Micros,
    future: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit.as_duration(), future).await.unwrap_or(Err(StoreError::Deadline))
}
