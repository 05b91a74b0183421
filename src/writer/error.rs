//! [`StoreError`].

use std::fmt;

use super::StoreUrl;

/// Why the store did not do what it was asked to.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// No connection.
    Connect {
        /// Which store.
        store: StoreUrl,
        /// What was said.
        message: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { store, message } => write!(f, "cannot open store {store}: {message}"),
        }
    }
}

impl std::error::Error for StoreError {}
