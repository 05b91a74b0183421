//! [`Store`]: what `cli/` and the writer ask of a store, whichever it is.
//!
//! The two drivers hold the SQL; this file only chooses between them. SQLite's calls block, which is why a
//! store lives on the writer's thread, or is used before probing starts.

use uuid::Uuid;

use super::batch::Gap;
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{StoreError, StoreUrl, partition};
use crate::clock::{Micros, Wall};
use crate::endpoint::{Endpoint, StoredEndpoint};
use crate::sample::Sample;

/// An open store.
#[derive(Debug)]
pub struct Store(Driver);

#[derive(Debug)]
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

/// One batch, as a transaction.
#[derive(Debug)]
pub(super) struct Ingest<'a> {
    pub(super) writer_id: Uuid,
    /// The batch's own number; the cursor must stand at the one before.
    pub(super) seq: i64,
    pub(super) rows: &'a [Sample],
    pub(super) states: &'a [Sample],
    pub(super) gaps: &'a [Gap],
    pub(super) now: Wall,
}

/// Runs a future that uses a [`Store`] to its end, on a runtime made for it. The store must not outlive it.
///
/// # Errors
/// If the runtime cannot be made.
pub fn block_on<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

impl Store {
    /// Opens the store; does not look at its schema.
    ///
    /// # Errors
    /// If it cannot be reached or opened.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        Ok(Self(match url {
            StoreUrl::Postgres(url) => Driver::Postgres(Postgres::connect(url).await?),
            StoreUrl::Sqlite(path) => Driver::Sqlite(Sqlite::open(path)?),
        }))
    }

    /// Brings the schema up to date; returns the versions applied, none if it was.
    ///
    /// # Errors
    /// If the schema is newer than this program, was changed, or the store refuses.
    pub async fn migrate(&mut self) -> Result<Vec<u32>, StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => store.migrate().await,
            Driver::Sqlite(store) => store.migrate(Wall::now()),
        }
    }

    /// Says whether the schema is the one this program needs: the error names the remedy.
    ///
    /// # Errors
    /// If it is not.
    pub async fn check_schema(&mut self) -> Result<(), StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => store.check_schema().await,
            Driver::Sqlite(store) => store.check_schema(),
        }
    }

    /// Brings the table in line with `endpoints`, by name, in one transaction. Others are left alone.
    ///
    /// # Errors
    /// If a name is given twice, or the store refuses.
    pub async fn upsert_endpoints(&mut self, endpoints: &[Endpoint]) -> Result<Upserted, StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => store.upsert_endpoints(endpoints).await,
            Driver::Sqlite(store) => store.upsert_endpoints(endpoints, Wall::now()),
        }
    }

    /// Every endpoint in the table, disabled ones too, in order of id.
    ///
    /// # Errors
    /// If a row is not a valid endpoint, or the store refuses.
    pub async fn endpoints(&mut self) -> Result<Vec<StoredEndpoint>, StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => store.endpoints().await,
            Driver::Sqlite(store) => store.endpoints(),
        }
    }

    /// The number of the last batch of this writer that is stored; 0 for none.
    pub(super) async fn cursor(&mut self, writer_id: Uuid) -> Result<i64, StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => store.cursor(writer_id).await,
            Driver::Sqlite(store) => store.cursor(&writer_id.to_string()),
        }
    }

    /// Stores a batch in one transaction, with room made for it first.
    ///
    /// # Errors
    /// [`StoreError::CursorMoved`] if the cursor does not stand before it; else whatever the store says.
    pub(super) async fn ingest(
        &mut self,
        ingest: &Ingest<'_>,
        retention: Option<Micros>,
    ) -> Result<(), StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => {
                store.make_partitions(ingest.rows, ingest.now, partition::width(retention)).await?;
                store.ingest(ingest).await
            }
            Driver::Sqlite(store) => store.ingest(ingest),
        }
    }

    /// Lets go of what is past its retention, or of a part of it.
    pub(super) async fn retain(&mut self, now: Wall, retention: Micros) -> Result<(), StoreError> {
        match &mut self.0 {
            Driver::Postgres(store) => store.retain(now, retention).await,
            Driver::Sqlite(store) => store.retain(now, retention),
        }
    }
}
