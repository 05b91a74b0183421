//! [`Store`]: what `cli/` and the writer ask of a store, whichever it is.
//!
//! PostgreSQL is served by a task of the runtime that opened the store, SQLite by a thread of its own
//! (`sqlite.rs` says why); both end with the `Store`.

use std::sync::Arc;

use uuid::Uuid;

use super::batch::Gap;
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{Judgement, StoreError, StoreUrl, migrate};
use crate::clock::{Micros, Wall};
use crate::endpoint::{Endpoint, StoredEndpoint};
use crate::sample::Sample;

/// An open store.
#[derive(Debug)]
pub struct Store {
    driver: Driver,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per process")]
enum Driver {
    Postgres(Postgres),
    Sqlite(Sqlite),
}

/// What [`Store::upsert_endpoints`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upserted {
    /// New names.
    pub inserted: u64,
    /// Known names with something changed.
    pub updated: u64,
    /// Known names with nothing changed.
    pub unchanged: u64,
}

/// What one transaction brings to the store.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Counts up, per writer; what makes a delivery recognisable when it comes again.
    pub(super) seq: i64,
    /// For `metrics`, and behind them for `steps`; may be empty if there is anything else to record.
    rows: Vec<Sample>,
    /// How many are for `metrics`.
    slots: usize,
    /// For `endpoint_state`.
    pub(super) latest: Vec<Sample>,
    /// For `ingest_gaps`.
    pub(super) gaps: Vec<Gap>,
    /// For `verdicts`.
    pub(super) judgements: Vec<Judgement>,
}

impl Delivery {
    /// Sorts the rows by where they go.
    pub(super) fn new(
        seq: i64,
        mut rows: Vec<Sample>,
        latest: Vec<Sample>,
        gaps: Vec<Gap>,
        judgements: Vec<Judgement>,
    ) -> Self {
        // Stable: rows stay in order of time, nearly.
        rows.sort_by_key(|row| row.detail.step != 0);
        let slots = rows.partition_point(|row| row.detail.step == 0);
        Self { seq, rows, slots, latest, gaps, judgements }
    }

    /// All rows.
    pub(super) fn rows(&self) -> &[Sample] {
        &self.rows
    }

    /// Rows for `metrics`.
    pub(super) fn samples(&self) -> &[Sample] {
        &self.rows[..self.slots]
    }

    /// Rows for `steps`.
    pub(super) fn steps(&self) -> &[Sample] {
        &self.rows[self.slots..]
    }
}

/// Who delivers, and how samples are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ingest {
    pub(super) writer: Uuid,
    pub(super) retention: Option<Micros>,
    /// The last delivery that the store has acknowledged.
    pub(super) acknowledged: i64,
}

/// Runs a future that uses a [`Store`] to its end, on a runtime made for it. The store must not outlive it.
pub fn block_on<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

impl Store {
    /// Opens the store; does not look at its schema. An SQLite file is made if it is missing.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        let driver = match url {
            StoreUrl::Postgres(parsed) => Postgres::open(parsed).await.map(Driver::Postgres),
            StoreUrl::Sqlite(path) => Sqlite::open(path).await.map(Driver::Sqlite),
        };
        match driver {
            Ok(driver) => Ok(Self { driver }),
            Err(error) => Err(StoreError::Open { store: url.clone(), message: error.to_string() }),
        }
    }

    /// Brings the schema up to date, in one transaction and one process at a time; returns the versions
    /// applied, none if it was up to date.
    pub async fn migrate(&mut self) -> Result<Vec<u32>, StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.migrate().await,
            Driver::Sqlite(sqlite) => sqlite.migrate().await,
        }
    }

    /// Says whether the schema is the one this program needs: the error names the remedy.
    pub async fn check_schema(&mut self) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => migrate::check(migrate::POSTGRES, &postgres.applied().await?),
            Driver::Sqlite(sqlite) => migrate::check(migrate::SQLITE, &sqlite.applied().await?),
        }
    }

    /// Brings the table in line with `endpoints`, by name, in one transaction. Others are left alone, and so
    /// are columns that an [`Endpoint`] has not got. `revision` moves on only if something changed.
    pub async fn upsert_endpoints(&mut self, endpoints: Vec<Endpoint>) -> Result<Upserted, StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.upsert_endpoints(&endpoints).await,
            Driver::Sqlite(sqlite) => sqlite.upsert_endpoints(endpoints).await,
        }
    }

    /// Every endpoint in the table, disabled ones too, in order of id. A row that is not a valid endpoint is
    /// an error that names it.
    pub async fn endpoints(&mut self) -> Result<Vec<StoredEndpoint>, StoreError> {
        self.fold_endpoints(Vec::new(), |all, page| all.extend(page)).await
    }

    /// The same, page by page, for who does not want to hold all of them. `fold` runs where the rows are read, which
    /// may be another thread: what it frees was allocated there.
    pub async fn fold_endpoints<T: Send + 'static>(
        &mut self,
        start: T,
        fold: impl FnMut(&mut T, Vec<StoredEndpoint>) + Send + 'static,
    ) -> Result<T, StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.fold_endpoints(start, fold).await,
            Driver::Sqlite(sqlite) => sqlite.fold_endpoints(start, fold).await,
        }
    }

    /// Prepares for [`Self::deliver`].
    pub(super) async fn begin_ingest(&mut self, ingest: Ingest) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.begin_ingest(ingest).await,
            Driver::Sqlite(sqlite) => sqlite.begin_ingest(ingest).await,
        }
    }

    /// Stores a delivery in one transaction, unless an earlier attempt has done so. After an error the store
    /// must be opened again before the next attempt.
    pub(super) async fn deliver(&mut self, delivery: &Arc<Delivery>, now: Wall) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.deliver(delivery, now).await,
            Driver::Sqlite(sqlite) => sqlite.deliver(Arc::clone(delivery), now).await,
        }
    }

    /// Stores a judgement by itself: that of a run, which is come to when its writer has ended.
    pub async fn judged(&mut self, writer: Uuid, judgement: Judgement) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.judged(writer, &judgement).await,
            Driver::Sqlite(sqlite) => sqlite.judged(writer, judgement).await,
        }
    }

    /// Upkeep: removes some of what is past its retention, and returns whether there is more.
    pub(super) async fn retain(&mut self, now: Wall) -> Result<bool, StoreError> {
        match &mut self.driver {
            Driver::Postgres(postgres) => postgres.retain(now).await,
            Driver::Sqlite(sqlite) => sqlite.retain(now).await,
        }
    }
}
