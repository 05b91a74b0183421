//! [`StoreError`]: what went wrong between us and the store, and what is to be done with the batch at hand.
//!
//! The second question is answered by [`Remedy`], from the SQLSTATE or SQLite's code alone: most things pass
//! (a restart, a full disk, a lock), a missing partition can be made, and only data that the store will
//! never take is given up, row by row. What is unknown is held: dropping is the one thing that cannot be undone.

use std::error::Error;
use std::fmt;

use rusqlite::ErrorCode;

use super::StoreUrl;

/// Why the store did not do what it was asked to. Displays as one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// No connection, or no file.
    Open {
        /// Which store.
        store: StoreUrl,
        /// Why.
        message: String,
    },
    /// The schema is older than this program needs.
    SchemaOlder {
        /// The store's version.
        found: u32,
        /// The version needed.
        needed: u32,
    },
    /// The schema is newer than this program knows.
    SchemaNewer {
        /// The store's version.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// A migration was edited after it was applied.
    SchemaChanged {
        /// Which.
        version: u32,
    },
    /// A row of `endpoints` is not a valid endpoint.
    Endpoint {
        /// Its name.
        name: String,
        /// Field and reason.
        message: String,
    },
    /// Two endpoints of one call have the same name.
    Duplicate {
        /// The name.
        name: String,
    },
    /// The ingest cursor moved while we were away; connecting again tells how far.
    CursorMoved,
    /// PostgreSQL.
    Postgres(tokio_postgres::Error),
    /// SQLite.
    Sqlite(rusqlite::Error),
    /// The store did not answer within `STORE_DEADLINE`.
    Deadline,
    /// The thread or the task that serves the connection has ended.
    Closed,
}

/// What to do with a batch that was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Hold it, connect again, and try again.
    Retry,
    /// The store will never take it: find the rows at fault (`refused.rs`), drop and count them.
    Divide,
}

impl StoreError {
    /// See [`Remedy`].
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Postgres(error) => error.as_db_error().map_or(Remedy::Retry, |said| {
                // A row without a partition is reported as a failed check, but as one without a name.
                of_sqlstate(said.code().code(), said.constraint().is_some())
            }),
            Self::Sqlite(error) => error.sqlite_error_code().map_or(Remedy::Retry, of_sqlite),
            _ => Remedy::Retry,
        }
    }
}

fn of_sqlstate(state: &str, names_constraint: bool) -> Remedy {
    match state {
        // A missing partition: connecting again looks at the partitions anew, and makes those that somebody
        // has dropped.
        "23514" if !names_constraint => Remedy::Retry,
        // Data exceptions and constraints: the same data will fail again.
        _ if state.starts_with("22") || state.starts_with("23") => Remedy::Divide,
        // 08 connection, 25006 read-only (a provider whose disk is full), 40 serialisation and deadlock,
        // 42P01 no such table (the schema is being restored), 53 resources, 55 locks, 57P shutdown, 58 I/O.
        _ => Remedy::Retry,
    }
}

fn of_sqlite(code: ErrorCode) -> Remedy {
    match code {
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig => Remedy::Divide,
        // Locked, busy, full, read-only, I/O.
        _ => Remedy::Retry,
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { store, message } => write!(f, "cannot open store {store}: {message}"),
            Self::SchemaOlder { found: 0, .. } => {
                f.write_str("the store has no tables yet: run `ringprobe migrate`")
            }
            Self::SchemaOlder { found, needed } => {
                write!(
                    f,
                    "the store's schema is version {found}, and {needed} is needed: run `ringprobe migrate`"
                )
            }
            Self::SchemaNewer { found, known } => write!(
                f,
                "the store's schema is version {found}, newer than the {known} that this ringprobe knows: use a newer ringprobe"
            ),
            Self::SchemaChanged { version } => write!(
                f,
                "migration {version} is not the one that was applied to this store: was this ringprobe built from a changed file?"
            ),
            Self::Endpoint { name, message } => write!(f, "table endpoints: endpoint {name:?}: {message}"),
            Self::Duplicate { name } => write!(f, "endpoint {name:?}: name: is given twice"),
            Self::CursorMoved => f.write_str("the ingest cursor was moved by an earlier connection"),
            Self::Postgres(error) => f.write_str(&postgres_prose(error)),
            Self::Sqlite(error) => write!(f, "SQLite: {error}"),
            Self::Deadline => f.write_str("the store did not answer in time"),
            Self::Closed => f.write_str("the connection to the store has ended"),
        }
    }
}

/// The server's message and code if it said anything, else the error and its causes; on one line.
pub(super) fn postgres_prose(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let line = format!("PostgreSQL: {}{detail} [{}]", said.message(), said.code().code());
        return line.replace('\n', " ");
    }
    let mut line = format!("PostgreSQL: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    line.replace('\n', " ")
}

impl Error for StoreError {}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_that_can_never_be_stored_is_dropped() {
        for state in
            "08006 25006 40001 40P01 42P01 53100 53300 55P03 57P01 57P03 58030 23514 XX000".split(' ')
        {
            assert_eq!(of_sqlstate(state, false), Remedy::Retry, "{state}");
        }
        for state in ["22003", "22008", "22P03", "23502", "23505", "23514"] {
            assert_eq!(of_sqlstate(state, true), Remedy::Divide, "{state}");
        }
        use ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
        for code in [DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly] {
            assert_eq!(of_sqlite(code), Remedy::Retry, "{code:?}");
        }
        assert_eq!(of_sqlite(ErrorCode::ConstraintViolation), Remedy::Divide);
        assert_eq!(StoreError::Deadline.remedy(), Remedy::Retry);
    }
}
