//! The SQLite driver: the same statements as `postgres.rs`, for a file.
//!
//! Calls block; they run on the writer's own thread, or before probing starts. The file is in WAL mode with
//! `synchronous = NORMAL`: a crash of this process loses nothing that was committed, a power cut may lose the
//! last commits but never the file.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::migrate::{self, Applied};
use super::rows::{EndpointRow, check_names};
use super::store::Ingest;
use super::{StoreError, StoreUrl, Upserted, partition, pgcopy};
use crate::clock::{Micros, Wall};
use crate::config::{RETENTION_SLICE_ROWS, SQLITE_BUSY_MAX};
use crate::endpoint::{Endpoint, StoredEndpoint};

/// An open file.
#[derive(Debug)]
pub(super) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |error: rusqlite::Error| StoreError::Open {
            store: StoreUrl::Sqlite(path.to_owned()),
            message: error.to_string(),
        };
        let connection = Connection::open(path).map_err(open)?;
        connection.busy_timeout(SQLITE_BUSY_MAX.as_duration()).map_err(open)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(open)?;
        Ok(Self { connection })
    }

    // --- schema -----------------------------------------------------------------------------------------

    pub(super) fn migrate(&mut self, now: Wall) -> Result<Vec<u32>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, \
             checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT",
        )?;
        let applied = applied(&transaction)?;
        let mut versions = Vec::new();
        for migration in migrate::pending(migrate::SQLITE, &applied)? {
            transaction.execute_batch(migration.sql)?;
            transaction.execute(
                "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
                params![migration.version, migration.name, migration.checksum(), now.0],
            )?;
            versions.push(migration.version);
        }
        transaction.commit()?;
        Ok(versions)
    }

    pub(super) fn check_schema(&mut self) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        let exists: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations')",
            [],
            |row| row.get(0),
        )?;
        let applied = if exists { applied(&transaction)? } else { Vec::new() };
        migrate::check(migrate::SQLITE, &applied)
    }

    // --- endpoints --------------------------------------------------------------------------------------

    pub(super) fn upsert_endpoints(
        &mut self,
        endpoints: &[Endpoint],
        now: Wall,
    ) -> Result<Upserted, StoreError> {
        check_names(endpoints)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut inserted, mut updated) = (0, 0);
        {
            let revision: i64 =
                transaction.query_row("SELECT coalesce(max(revision), 0) + 1 FROM endpoints", [], |row| {
                    row.get(0)
                })?;
            let mut update = transaction.prepare(UPDATE_ENDPOINT)?;
            let mut insert = transaction.prepare(INSERT_ENDPOINT)?;
            for row in endpoints.iter().map(EndpointRow::of) {
                let values = params![
                    row.name,
                    row.url,
                    row.address,
                    row.method,
                    row.headers,
                    row.body,
                    row.expect_status,
                    row.interval_ms,
                    row.timeout_ms,
                    row.connection,
                    row.tags,
                    row.enabled,
                    revision,
                    now.0
                ];
                let changed = update.execute(values)? as u64;
                updated += changed;
                if changed == 0 {
                    inserted += insert.execute(values)? as u64;
                }
            }
        }
        transaction.commit()?;
        Ok(Upserted { inserted, updated, unchanged: endpoints.len() as u64 - inserted - updated })
    }

    pub(super) fn endpoints(&mut self) -> Result<Vec<StoredEndpoint>, StoreError> {
        let mut statement = self.connection.prepare(SELECT_ENDPOINTS)?;
        let mut rows = statement.query([])?;
        let mut endpoints = Vec::new();
        while let Some(row) = rows.next()? {
            let endpoint = EndpointRow {
                name: row.get(1)?,
                url: row.get(2)?,
                address: row.get(3)?,
                method: row.get(4)?,
                headers: row.get(5)?,
                body: row.get(6)?,
                expect_status: row.get(7)?,
                interval_ms: row.get(8)?,
                timeout_ms: row.get(9)?,
                connection: row.get(10)?,
                tags: row.get(11)?,
                enabled: row.get(12)?,
            };
            endpoints.push(endpoint.endpoint(row.get(0)?, row.get(13)?)?);
        }
        Ok(endpoints)
    }

    // --- samples ----------------------------------------------------------------------------------------

    pub(super) fn cursor(&mut self, writer_id: &str) -> Result<i64, StoreError> {
        self.connection
            .execute("INSERT OR IGNORE INTO ingest_cursor (writer_id, seq) VALUES (?1, 0)", [writer_id])?;
        let cursor = "SELECT seq FROM ingest_cursor WHERE writer_id = ?1";
        Ok(self.connection.query_row(cursor, [writer_id], |row| row.get(0))?)
    }

    pub(super) fn ingest(&mut self, ingest: &Ingest<'_>) -> Result<(), StoreError> {
        let writer_id = ingest.writer_id.to_string();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let moved = transaction.execute(
            "UPDATE ingest_cursor SET seq = ?2, rows = rows + ?3, updated_at = ?4 \
             WHERE writer_id = ?1 AND seq = ?2 - 1",
            params![writer_id, ingest.seq, (ingest.rows.len() as u64).cast_signed(), ingest.now.0],
        )?;
        if moved != 1 {
            return Err(StoreError::CursorMoved);
        }
        {
            let columns = pgcopy::COLUMNS.join(", ");
            let mut insert = transaction.prepare_cached(&format!(
                "INSERT INTO metrics ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
                 ?14, ?15, ?16, ?17)"
            ))?;
            for row in ingest.rows {
                insert.execute(params![
                    row.ts.0,
                    row.endpoint_id.0,
                    row.lag_us,
                    row.phases.resolve_us,
                    row.phases.connect_us,
                    row.phases.tls_us,
                    row.phases.processing_us,
                    row.phases.transfer_us,
                    row.total_us,
                    row.agent_us,
                    row.bytes_in,
                    row.bytes_out,
                    row.cpu_ns,
                    row.status,
                    row.outcome as i16,
                    row.reason,
                    row.flags.0
                ])?;
            }
            let mut state = transaction.prepare_cached(UPSERT_STATE)?;
            for row in ingest.states {
                state.execute(params![
                    row.endpoint_id.0,
                    row.ts.0,
                    row.outcome as i16,
                    row.reason,
                    row.status,
                    row.phases.resolve_us,
                    row.phases.connect_us,
                    row.phases.tls_us,
                    row.phases.processing_us,
                    row.phases.transfer_us,
                    row.total_us
                ])?;
            }
            for gap in ingest.gaps {
                transaction.execute(
                    "INSERT INTO ingest_gaps (writer_id, from_ts, to_ts, rows, reason, recorded_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        writer_id,
                        gap.from.0,
                        gap.to.0,
                        gap.rows.cast_signed(),
                        gap.reason.name(),
                        ingest.now.0
                    ],
                )?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Deletes rows past their retention from the front of the table, a slice at a time.
    pub(super) fn retain(&mut self, now: Wall, retention: Micros) -> Result<(), StoreError> {
        // Rows are in order of arrival, nearly that of time; without an index only the front is looked at.
        let delete = "DELETE FROM metrics WHERE ts < ?1 AND rowid IN \
                      (SELECT rowid FROM metrics ORDER BY rowid LIMIT ?2)";
        self.connection
            .execute(delete, params![partition::cutoff(now, retention).0, RETENTION_SLICE_ROWS])?;
        Ok(())
    }
}

fn applied(transaction: &Transaction<'_>) -> Result<Vec<Applied>, StoreError> {
    let mut statement =
        transaction.prepare("SELECT version, checksum FROM schema_migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| Ok(Applied { version: row.get(0)?, checksum: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

// A row is either changed, or as it was, or not there. The revision moves in the first case only.
const UPDATE_ENDPOINT: &str = "UPDATE endpoints SET url = ?2, address = ?3, method = ?4, headers = ?5,
    body = ?6, expect_status = ?7, interval_ms = ?8, timeout_ms = ?9, connection = ?10, tags = ?11,
    enabled = ?12, revision = ?13, updated_at = ?14
    WHERE name = ?1 AND (url, method, headers, body, expect_status, interval_ms, timeout_ms, connection, tags,
    enabled, coalesce(address, '')) <> (?2, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, coalesce(?3, ''))";
const INSERT_ENDPOINT: &str =
    "INSERT INTO endpoints (name, url, address, method, headers, body, expect_status,
    interval_ms, timeout_ms, connection, tags, enabled, revision, updated_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14
    WHERE NOT EXISTS (SELECT 1 FROM endpoints WHERE name = ?1)";
const SELECT_ENDPOINTS: &str = "SELECT endpoint_id, name, url, address, method, headers, body, expect_status,
    interval_ms, timeout_ms, connection, tags, enabled,
    CASE WHEN auth_ref IS NOT NULL THEN 'auth_ref' WHEN body_match <> '[]' THEN 'body_match'
        WHEN body_forbid <> '[]' THEN 'body_forbid' WHEN resolve_timeout_ms IS NOT NULL THEN 'resolve_timeout_ms'
        WHEN connect_timeout_ms IS NOT NULL THEN 'connect_timeout_ms'
        WHEN tls_timeout_ms IS NOT NULL THEN 'tls_timeout_ms'
        WHEN processing_timeout_ms IS NOT NULL THEN 'processing_timeout_ms'
        WHEN transfer_timeout_ms IS NOT NULL THEN 'transfer_timeout_ms'
        WHEN redirects <> 0 THEN 'redirects' WHEN tls IS NOT NULL THEN 'tls' END
    FROM endpoints ORDER BY endpoint_id";
const UPSERT_STATE: &str = "INSERT INTO endpoint_state (endpoint_id, ts, since, outcome, failure, status,
    resolve_us, connect_us, tls_us, processing_us, transfer_us, total_us)
    VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
    ON CONFLICT (endpoint_id) DO UPDATE SET ts = excluded.ts,
    since = CASE WHEN outcome = excluded.outcome THEN since ELSE excluded.ts END,
    outcome = excluded.outcome, failure = excluded.failure, status = excluded.status,
    resolve_us = excluded.resolve_us, connect_us = excluded.connect_us, tls_us = excluded.tls_us,
    processing_us = excluded.processing_us, transfer_us = excluded.transfer_us, total_us = excluded.total_us
    WHERE excluded.ts > ts";
