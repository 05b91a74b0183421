//! The writer's thread: two futures on one runtime, [`gather`] and [`deliver_all`], around one [`State`].
//!
//! Neither waits for the other. Gathering empties the rings every `GATHER_EVERY` and puts closed batches in
//! the queue; delivering takes them out, one at a time, and holds the one it is at until the store has said
//! yes or a definite no. A batch whose COMMIT was not answered may be in the store, so it cannot be dropped
//! to make room: only those still in the queue can. A batch that the store refuses is tried again in parts, before
//! any other. What is left when the writer gives up is dropped, and only the record of it is offered once more: a full
//! disk may have room for that.
//!
//! Out of scope: what to store how (`postgres.rs`, `sqlite.rs`), policy (the pure cores).
//!
//! Invariant: `gathered = stored + dropped + open batch + queue + refused + held`, whenever neither future is running;
//! of samples of slots. Steps come and go with them, and are counted by themselves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtrb::Consumer;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::backoff::Backoff;
use super::batch::{Batch, Batcher, Gap, GapReason, Queue};
use super::error::Remedy;
use super::latest::Latest;
use super::refused::{Part, Refused};
use super::store::{Delivery, Ingest};
use super::{Judgement, Snapshot, Store, StoreError, StoreState, StoreUrl, Tally, WriterOptions, partition};
use crate::clock::{Mono, Wall};
use crate::config::{GATHER_EVERY, JUDGEMENTS_MAX, RETENTION_EVERY, SNAPSHOT_EVERY, STORE_DEADLINE};
use crate::sample::Sample;

/// What is shared with who started the writer.
pub(super) struct Shared {
    /// Where pictures of the writer are left.
    pub(super) published: Arc<Mutex<Arc<Snapshot>>>,
    /// Where judgements are left for it.
    pub(super) judged: Arc<Mutex<Vec<Judgement>>>,
}

/// What both futures work on; never borrowed across an await.
struct State {
    tally: Tally,
    batcher: Batcher,
    queue: Queue,
    /// What the store is being asked to take.
    held: Option<Arc<Delivery>>,
    /// Parts of what it refused: the next to be asked for.
    refused: Refused,
    /// Gaps that are not yet recorded: at most one per reason, wider each time.
    gaps: Vec<Gap>,
    /// What is to be stored beside the rows, bounded.
    judgements: VecDeque<Judgement>,
    stored: u64,
    dropped: u64,
    steps_stored: u64,
    steps_dropped: u64,
    batches: u64,
    /// The last delivery that the store has acknowledged.
    acknowledged: i64,
    store: StoreState,
    /// Every shard has ended, and everything it left is in the queue.
    ended: bool,
}

/// Runs the writer to its end, on the calling thread.
pub(super) fn run(
    id: Uuid,
    consumers: Vec<Consumer<Sample>>,
    options: &WriterOptions,
    runtime: &tokio::runtime::Runtime,
    shared: &Shared,
) -> Arc<Snapshot> {
    let state = RefCell::new(State {
        tally: Tally::new(),
        batcher: Batcher::default(),
        queue: Queue::new(options.queue_bytes_max),
        held: None,
        refused: Refused::default(),
        gaps: Vec::new(),
        judgements: VecDeque::new(),
        stored: 0,
        dropped: 0,
        steps_stored: 0,
        steps_dropped: 0,
        batches: 0,
        acknowledged: 0,
        store: if options.store.is_some() { StoreState::Connecting } else { StoreState::None },
        ended: false,
    });
    shared.publish(&Arc::new(state.borrow().snapshot()));
    let news = Notify::new();
    runtime.block_on(async {
        let storing = options.store.is_some();
        let gathered = gather(consumers, storing, &state, &news, shared);
        match &options.store {
            None => gathered.await,
            Some(url) => {
                let delivered = deliver_all(id, url, options, &state, &news);
                let give_up = async {
                    gathered.await;
                    sleep(options.drain_max.as_duration()).await;
                };
                tokio::select! {
                    () = delivered => {}
                    () = give_up => {}
                }
            }
        }
    });
    let mut state = state.into_inner();
    let last_words = state.give_up();
    if let Some(url) = &options.store
        && !last_words.is_empty()
        && let Err(error) =
            runtime.block_on(within_deadline(say(url, ingest(id, options, state.acknowledged), last_words)))
    {
        log::warn!("what was dropped is not recorded in the store: {error}");
    }
    let last = Arc::new(state.snapshot());
    shared.publish(&last);
    last
}

/// Empties the rings until all of them are abandoned.
async fn gather(
    mut consumers: Vec<Consumer<Sample>>,
    storing: bool,
    state: &RefCell<State>,
    news: &Notify,
    shared: &Shared,
) {
    let mut tick = interval(GATHER_EVERY.as_duration());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut published_at = Mono::now();
    while !consumers.is_empty() {
        tick.tick().await;
        let now = Mono::now();
        {
            let state = &mut *state.borrow_mut();
            // In this order: what a shard pushed before it ended is seen by the drain after it.
            consumers.retain_mut(|consumer| {
                let ended = consumer.is_abandoned();
                drain(consumer, |sample| state.take(sample, storing, now));
                !ended
            });
            if let Some(batch) = state.batcher.poll(now) {
                state.enqueue(batch);
            }
            if storing {
                state.heed(&mut shared.judged.lock().unwrap_or_else(PoisonError::into_inner));
            }
            if !state.queue.is_empty() || !state.judgements.is_empty() {
                news.notify_one();
            }
        }
        if now.since(published_at) >= SNAPSHOT_EVERY.as_duration() {
            published_at = now;
            shared.publish(&Arc::new(state.borrow().snapshot()));
        }
    }
    {
        let state = &mut *state.borrow_mut();
        if let Some(batch) = state.batcher.close() {
            state.enqueue(batch);
        }
        if storing {
            state.heed(&mut shared.judged.lock().unwrap_or_else(PoisonError::into_inner));
        }
        state.ended = true;
    }
    news.notify_one();
}

/// Everything in the ring, at most its capacity.
fn drain(consumer: &mut Consumer<Sample>, mut take: impl FnMut(Sample)) {
    let Ok(chunk) = consumer.read_chunk(consumer.slots()) else { return };
    let (first, second) = chunk.as_slices();
    first.iter().chain(second).for_each(|sample| take(*sample));
    chunk.commit_all();
}

/// Brings batches to the store until there are no more to come.
async fn deliver_all(
    id: Uuid,
    url: &StoreUrl,
    options: &WriterOptions,
    state: &RefCell<State>,
    news: &Notify,
) {
    let mut backoff = Backoff::new(id.as_u64_pair().0);
    let mut latest = Latest::default();
    let mut connected: Option<Store> = None;
    let mut retained_at = Mono(0);
    loop {
        // Connect even when there is nothing to store: it is better to know.
        let Some(store) = &mut connected else {
            let ingest = ingest(id, options, state.borrow().acknowledged);
            match within_deadline(connect(url, ingest)).await {
                Ok(store) => {
                    state.borrow_mut().found(url);
                    connected = Some(store);
                }
                Err(error) => {
                    state.borrow_mut().lost(url, &error);
                    sleep(backoff.failed().as_duration()).await;
                }
            }
            continue;
        };
        let now = Mono::now();
        let mut retain_more = false;
        if now.since(retained_at) >= RETENTION_EVERY.as_duration() {
            match within_deadline(store.retain(Wall::now())).await {
                Ok(more) => retain_more = more,
                Err(error) => {
                    state.borrow_mut().lost(url, &error);
                    connected = None;
                    continue;
                }
            }
            if !retain_more {
                retained_at = now;
            }
        }
        let next = state.borrow_mut().hold(&mut latest);
        let Some(delivery) = next else {
            if state.borrow().ended {
                return;
            }
            if !retain_more {
                // Woken by a batch, or in time for the next look at retention.
                let _ = timeout(RETENTION_EVERY.as_duration(), news.notified()).await;
            }
            continue;
        };
        match within_deadline(store.deliver(&delivery, Wall::now())).await {
            Ok(()) => {
                backoff.succeeded();
                state.borrow_mut().delivered(url);
            }
            Err(error) => {
                connected = None;
                match error.remedy() {
                    Remedy::Divide => {
                        // It is there, and answers.
                        backoff.succeeded();
                        state.borrow_mut().divide(&error);
                    }
                    Remedy::Retry => state.borrow_mut().lost(url, &error),
                }
                sleep(backoff.failed().as_duration()).await;
            }
        }
    }
}

const fn ingest(writer: Uuid, options: &WriterOptions, acknowledged: i64) -> Ingest {
    Ingest { writer, retention: options.retention, acknowledged }
}

/// Brings what is no rows to the store, once.
async fn say(url: &StoreUrl, ingest: Ingest, deliveries: Vec<Delivery>) -> Result<(), StoreError> {
    let mut store = connect(url, ingest).await?;
    for delivery in deliveries {
        store.deliver(&Arc::new(delivery), Wall::now()).await?;
    }
    Ok(())
}

async fn connect(url: &StoreUrl, ingest: Ingest) -> Result<Store, StoreError> {
    let mut store = Store::open(url).await?;
    store.begin_ingest(ingest).await?;
    Ok(store)
}

async fn within_deadline<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(STORE_DEADLINE.as_duration(), work).await.unwrap_or(Err(StoreError::Deadline))
}

impl Shared {
    fn publish(&self, snapshot: &Arc<Snapshot>) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(snapshot);
    }
}

impl State {
    /// Counts a sample, and puts it where it will be stored.
    fn take(&mut self, sample: Sample, storing: bool, now: Mono) {
        self.tally.record(&sample);
        let storing = storing && !sample.endpoint_id.is_canary();
        if storing && let Some(batch) = self.batcher.push(sample, now) {
            self.enqueue(batch);
        }
    }

    fn enqueue(&mut self, batch: Batch) {
        if let Some(gap) = self.queue.push(batch, self.taken_bytes()) {
            self.drop_rows(gap);
            log::warn!(
                "queue full while the store is away: {} samples dropped, due {} to {}",
                gap.rows,
                partition::prose(gap.from),
                partition::prose(gap.to)
            );
        }
    }

    /// Takes over judgements that are to be stored. While the store is away for long, the oldest are forgotten.
    fn heed(&mut self, judged: &mut Vec<Judgement>) {
        self.judgements.extend(judged.drain(..));
        let excess = self.judgements.len().saturating_sub(JUDGEMENTS_MAX);
        self.judgements.drain(..excess);
    }

    fn count(&mut self, gap: &Gap) {
        self.dropped += gap.rows;
        self.steps_dropped += gap.steps;
    }

    /// Counts rows as dropped, and remembers to record it.
    fn drop_rows(&mut self, gap: Gap) {
        self.count(&gap);
        match self.gaps.iter_mut().find(|known| known.reason == gap.reason) {
            Some(known) => *known = known.join(gap),
            None => self.gaps.push(gap),
        }
    }

    /// What the store is to take next: what is held already, or else a part of what it refused, or else the
    /// oldest batch, all gaps and all judgements.
    fn hold(&mut self, latest: &mut Latest) -> Option<Arc<Delivery>> {
        if self.held.is_none() {
            let seq = self.acknowledged + 1;
            let delivery = if let Some(Part { rows, latest }) = self.refused.take() {
                // Without gaps, so that it is only about these rows.
                Delivery::new(seq, rows, latest, Vec::new(), Vec::new())
            } else {
                let rows = self.queue.take().map(|batch| batch.rows).unwrap_or_default();
                let gaps = std::mem::take(&mut self.gaps);
                let judgements = Vec::from(std::mem::take(&mut self.judgements));
                if rows.is_empty() && gaps.is_empty() && judgements.is_empty() {
                    return None;
                }
                let latest = latest.select(&rows);
                Delivery::new(seq, rows, latest, gaps, judgements)
            };
            self.held = Some(Arc::new(delivery));
        }
        self.held.clone()
    }

    /// The store has what is held.
    fn delivered(&mut self, url: &StoreUrl) {
        if matches!(self.store, StoreState::Reconnecting { .. }) {
            log::info!("store {url} is back; {} samples were held for it", self.waiting_rows());
        }
        if let Some(held) = self.held.take() {
            self.acknowledged = held.seq;
            self.stored += held.samples().len() as u64;
            self.steps_stored += held.steps().len() as u64;
            self.batches += u64::from(!held.rows().is_empty());
        }
        self.store = StoreState::Connected;
    }

    /// The store will never take what is held, but maybe most of it.
    fn divide(&mut self, error: &StoreError) {
        let Some(held) = self.held.take() else { return };
        self.judgements.extend(held.judgements.iter().cloned());
        for gap in &held.gaps {
            // They were counted when they were dropped.
            self.dropped -= gap.rows;
            self.steps_dropped -= gap.steps;
            self.drop_rows(*gap);
        }
        if let Some(gap) = self.refused.divide(held.rows(), &held.latest) {
            log::error!("the store refuses {} rows, which are dropped: {error}", gap.rows + gap.steps);
            self.drop_rows(gap);
        } else {
            log::debug!("the store refuses something in {} rows: {error}", held.rows().len());
        }
    }

    fn found(&mut self, url: &StoreUrl) {
        log::debug!("store {url} is open");
        // One that can be opened is back when it has taken something: a full disk can be opened.
        if self.waiting_rows() == 0 || self.store == StoreState::Connecting {
            self.store = StoreState::Connected;
        }
    }

    fn lost(&mut self, url: &StoreUrl, error: &StoreError) {
        // Said once per outage, not once per attempt.
        if !matches!(self.store, StoreState::Reconnecting { .. }) {
            log::warn!("store {url} is away, samples are held in memory: {error}");
        }
        self.store = StoreState::Reconnecting { error: error.to_string() };
    }

    /// The end: what is left will not be stored. What the store should still be told of that, and has not been.
    fn give_up(&mut self) -> Vec<Delivery> {
        let left = self.waiting_rows();
        if left > 0 && self.store != StoreState::None {
            log::error!("the store did not come back in time: {left} samples are lost");
        }
        let mut last_words = Vec::new();
        let mut next = self.acknowledged + 1;
        if let Some(held) = self.held.take() {
            let gap = (!held.rows().is_empty()).then(|| of_rows(held.rows()));
            gap.iter().for_each(|gap| self.count(gap));
            let gaps = held.gaps.iter().copied().chain(gap).collect();
            // Under its own number: if the store has it, and the answer was lost, nothing is missing.
            last_words.push(Delivery::new(held.seq, Vec::new(), Vec::new(), gaps, held.judgements.clone()));
            next = held.seq + 1;
        }
        while let Some(part) = self.refused.take() {
            self.drop_rows(of_rows(&part.rows));
        }
        while let Some(batch) = self.queue.take().or_else(|| self.batcher.close()) {
            self.drop_rows(of_rows(&batch.rows));
        }
        if !self.gaps.is_empty() || !self.judgements.is_empty() {
            let (gaps, judgements) = (std::mem::take(&mut self.gaps), std::mem::take(&mut self.judgements));
            last_words.push(Delivery::new(next, Vec::new(), Vec::new(), gaps, judgements.into()));
        }
        if self.store != StoreState::None {
            self.store = StoreState::Closed;
        }
        last_words
    }

    /// Rows gathered and neither stored nor dropped.
    fn waiting_rows(&self) -> u64 {
        let held = self.held.as_ref().map_or(0, |held| held.samples().len() as u64);
        self.batcher.rows() + self.queue.rows() + held + self.refused.slots()
    }

    /// Memory of what was taken from the queue and is neither stored nor dropped.
    fn taken_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| size_of_val(held.rows()))
            + self.refused.rows() * size_of::<Sample>()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            tally: self.tally.clone(),
            stored: self.stored,
            dropped: self.dropped,
            steps_stored: self.steps_stored,
            steps_dropped: self.steps_dropped,
            queued_rows: self.waiting_rows(),
            queue_bytes: self.queue.bytes() + self.taken_bytes(),
            batches: self.batches,
            store_state: self.store.clone(),
        }
    }
}

/// What is missing if these rows are, at the end.
fn of_rows(rows: &[Sample]) -> Gap {
    Batch { rows: rows.to_vec() }.gap(GapReason::Ended)
}

/// The runtime that [`run`] wants; made by the caller so that a failure is the caller's to report.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // No blocking pool is used except by the resolver, whose idle threads need not stay.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
}
