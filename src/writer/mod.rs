//! The writer: from the shards' rings to rows in the store.
//!
//! ```text
//!  shard rings ══► gather ──► tally                     (what the status block and the summary show)
//!                     └─────► batcher ─► queue ─► store task ─► PostgreSQL or SQLite
//!                             (pure)     (pure, bounded)  reconnects, holds, retries
//! ```
//!
//! [`spawn`] runs all of it on one thread of its own, pinned if wanted. Gathering never waits for the store:
//! while the store is away batches stay in the bounded queue, and when that is full the oldest is dropped,
//! counted, and recorded in `ingest_gaps` once the store is back. A batch that the store refuses is divided until the
//! rows at fault are found; these are dropped, counted and recorded too, and so is what is left at the end.
//!
//! Policy is in pure cores (`batch`, `refused`, `tally`, `pgcopy`, `latest`, `partition`, `backoff`, and
//! the error classes in `error`); the drivers (`drive`, `postgres`, `sqlite`) hold none.
//!
//! Invariant: every sample gathered is, at the end, stored exactly once or counted as dropped.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rtrb::Consumer;
use uuid::Uuid;

use crate::clock::Micros;
use crate::config::{DRAIN_STORE_MAX, QUEUE_BYTES_MAX, RETENTION_DEFAULT};
use crate::sample::Sample;

pub(crate) mod backoff;
pub(crate) mod batch;
mod drive;
mod error;
mod judgement;
mod latest;
mod migrate;
mod partition;
pub mod pgcopy;
mod postgres;
pub(crate) mod refused;
mod rows;
mod sqlite;
mod store;
mod tally;
mod url;

pub use error::StoreError;
pub use judgement::Judgement;
pub use store::{Store, Upserted, block_on};
pub use tally::{Distribution, Percentiles, Tally};
pub use url::{PostgresUrl, StoreUrl, StoreUrlError};

/// What [`spawn`] is told.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Where rows go; `None` counts samples and stores nothing (`bench`).
    pub store: Option<StoreUrl>,
    /// The CPU to pin the thread to (an id of `core_affinity`).
    pub cpu: Option<usize>,
    /// Bound of the queue in memory.
    pub queue_bytes_max: usize,
    /// How long raw samples are kept; `None` keeps them for ever.
    pub retention: Option<Micros>,
    /// How long to go on trying to store what is left when all shards have ended.
    pub drain_max: Micros,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            store: None,
            cpu: None,
            queue_bytes_max: QUEUE_BYTES_MAX,
            retention: Some(RETENTION_DEFAULT),
            drain_max: DRAIN_STORE_MAX,
        }
    }
}

/// What the writer has seen and done: one consistent picture, at most [`SNAPSHOT_EVERY`] old while it runs.
///
/// [`SNAPSHOT_EVERY`]: crate::config::SNAPSHOT_EVERY
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every sample gathered, whatever became of its row.
    pub tally: Tally,
    /// Rows known to be in the store.
    pub stored: u64,
    /// Rows given up: the queue was full, the store refused them, or it did not come back before the end.
    pub dropped: u64,
    /// Steps known to be in the store: they are no rows of slots, and counted by themselves.
    pub steps_stored: u64,
    /// Steps given up.
    pub steps_dropped: u64,
    /// Rows gathered and neither stored nor dropped.
    pub queued_rows: u64,
    /// What they take in memory.
    pub queue_bytes: usize,
    /// Batches stored.
    pub batches: u64,
    /// How the store is.
    pub store_state: StoreState,
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreState {
    /// There is none.
    #[default]
    None,
    /// Not yet connected for the first time.
    Connecting,
    /// The last we heard of it was good.
    Connected,
    /// It is away, and batches are held.
    Reconnecting {
        /// What it said last.
        error: String,
    },
    /// The writer has ended.
    Closed,
}

/// A running writer. Dropping the handle does not stop it: it ends when all shards have.
#[derive(Debug)]
pub struct WriterHandle {
    id: Uuid,
    published: Arc<Mutex<Arc<Snapshot>>>,
    judged: Arc<Mutex<Vec<Judgement>>>,
    thread: JoinHandle<Arc<Snapshot>>,
}

impl WriterHandle {
    /// The last published picture; costs a lock that nobody holds for longer than a pointer takes to copy.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the store knows this writer by.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Has a judgement stored, with the next rows.
    pub fn judged(&self, judgement: Judgement) {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner).push(judgement);
    }

    /// Whether the writer has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, and returns the final picture, in which nothing is queued.
    #[must_use]
    pub fn join(self) -> Arc<Snapshot> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Starts the writer on a thread of its own.
///
/// It ends by itself once every producer is gone and every ring is empty, and all of it is stored, or
/// `drain_max` after that; what then remains counts as dropped.
///
/// # Errors
/// If the thread or its runtime cannot be made.
pub fn spawn(consumers: Vec<Consumer<Sample>>, options: WriterOptions) -> std::io::Result<WriterHandle> {
    let id = Uuid::new_v4();
    let published = Arc::new(Mutex::new(Arc::new(Snapshot::default())));
    let judged = Arc::new(Mutex::new(Vec::new()));
    let shared = drive::Shared { published: Arc::clone(&published), judged: Arc::clone(&judged) };
    let runtime = drive::runtime()?;
    let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
        if let Some(id) = options.cpu
            && !core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            // The CPU was taken from us since we asked: the scheduler then chooses.
            log::warn!("the writer cannot be pinned to CPU {id}");
        }
        drive::run(id, consumers, &options, &runtime, &shared)
    })?;
    Ok(WriterHandle { id, published, judged, thread })
}
