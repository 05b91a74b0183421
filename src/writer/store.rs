//! [`Store`]: what `cli/` and the writer ask of a store, whichever it is.

use super::{StoreError, StoreUrl};
use crate::endpoint::{Endpoint, StoredEndpoint};

/// An open store.
#[derive(Debug)]
pub struct Store {
    url: StoreUrl,
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

/// Runs a future that uses a [`Store`] to its end, on a runtime made for it. The store must not outlive it.
pub fn block_on<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

impl Store {
    /// Opens the store; does not look at its schema.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        Ok(Self { url: url.clone() })
    }

    /// Brings the schema up to date; returns the versions applied, none if it was.
    pub async fn migrate(&mut self) -> Result<Vec<u32>, StoreError> {
        Err(self.unfinished())
    }

    /// Says whether the schema is the one this program needs: the error names the remedy.
    pub async fn check_schema(&mut self) -> Result<(), StoreError> {
        Err(self.unfinished())
    }

    /// Brings the table in line with `endpoints`, by name, in one transaction. Others are left alone.
    pub async fn upsert_endpoints(&mut self, _endpoints: &[Endpoint]) -> Result<Upserted, StoreError> {
        Err(self.unfinished())
    }

    /// Every endpoint in the table, disabled ones too, in order of id.
    pub async fn endpoints(&mut self) -> Result<Vec<StoredEndpoint>, StoreError> {
        Err(self.unfinished())
    }

    fn unfinished(&self) -> StoreError {
        StoreError::Connect { store: self.url.clone(), message: "not built yet".to_owned() }
    }
}
