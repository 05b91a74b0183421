//! The embedded store: one SQLite file, one connection, one transaction per batch.
//!
//! SQLite calls block, for as long as the disk or another process's lock does. So the connection lives on a
//! thread of its own, which takes its jobs from a channel; the writer's thread goes on gathering meanwhile.
//! The thread is spawned from the writer's and inherits its CPU.
//!
//! WAL with `synchronous=NORMAL`: a crash of the process loses nothing that was committed; a crash of the
//! machine may lose the last commits, never the file. The cursor is kept here too: a transaction whose
//! answer came after the deadline is recognised as done.
//!
//! Out of scope: policy (`drive.rs`), decoding of endpoints (`rows.rs`).

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params, params_from_iter};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::latest::{address, not_after};
use super::migrate::{self, Applied};
use super::rows::{self, check_names};
use super::store::{Delivery, Ingest};
use super::{Judgement, StoreError, Upserted, partition, pgcopy};
use crate::clock::{Mono, Wall};
use crate::config::{ENDPOINTS_PAGE_ROWS, RETENTION_SLICE_ROWS, SQLITE_BUSY_MAX};
use crate::endpoint::record::{COLUMNS, Kind};
use crate::endpoint::{Endpoint, Interner, StoredEndpoint};
use crate::sample::Sample;

/// The file's WAL is cut back to this after a checkpoint, so that one long reader does not leave it large.
const WAL_BYTES_KEPT: i64 = 64 * 1024 * 1024;
/// Half the B-tree pages of the default for rows that are only ever appended.
const PAGE_BYTES: i64 = 8192;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A connection, on its own thread.
#[derive(Debug)]
pub(super) struct Sqlite {
    jobs: mpsc::Sender<Job>,
    ingest: Option<Ingest>,
}

impl Sqlite {
    /// Opens the file, and makes it if it is missing.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let path: PathBuf = path.to_owned();
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, answer) = oneshot::channel();
        let serve = move || match connect(&path) {
            Ok(mut connection) => {
                let _ = opened.send(Ok(()));
                // Ends when the `Sqlite` is dropped.
                while let Ok(job) = queue.recv() {
                    job(&mut connection);
                }
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        thread::Builder::new().name("sqlite".to_owned()).spawn(serve).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)??;
        Ok(Self { jobs, ingest: None })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waits for the answer any more after a deadline; the work is done all the same.
            let _ = done.send(job(connection));
        });
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// The rows of `schema_migrations`; none if there is no such table.
    pub(super) async fn applied(&self) -> Result<Vec<Applied>, StoreError> {
        self.run(|connection| applied(connection)).await
    }

    /// See [`super::Store::migrate`].
    pub(super) async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        let now = Wall::now();
        self.run(move |connection| {
            // Immediate: the lock is taken before the table is looked at.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(
                "CREATE TABLE IF NOT EXISTS schema_migrations (
                    version    INTEGER PRIMARY KEY,
                    name       TEXT NOT NULL,
                    checksum   TEXT NOT NULL,
                    applied_at INTEGER NOT NULL
                ) STRICT",
            )?;
            let pending = migrate::pending(migrate::SQLITE, &applied(&transaction)?)?;
            for migration in &pending {
                transaction.execute_batch(migration.sql)?;
                transaction.execute(
                    "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?)",
                    params![migration.version, migration.name, migration.checksum(), now.0],
                )?;
            }
            transaction.commit()?;
            Ok(pending.iter().map(|migration| migration.version).collect())
        })
        .await
    }

    /// See [`super::Store::upsert_endpoints`].
    pub(super) async fn upsert_endpoints(&self, endpoints: Vec<Endpoint>) -> Result<Upserted, StoreError> {
        check_names(&endpoints)?;
        let now = Wall::now();
        self.run(move |connection| upsert(connection, &endpoints, now)).await
    }

    /// See [`super::Store::fold_endpoints`].
    pub(super) async fn fold_endpoints<T: Send + 'static>(
        &self,
        start: T,
        mut fold: impl FnMut(&mut T, Vec<StoredEndpoint>) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |connection| {
            let mut folded = start;
            let mut statement = connection.prepare(&select_endpoints())?;
            let mut rows = statement.query([])?;
            let mut page = Vec::new();
            let mut interner = Interner::default();
            while let Some(row) = rows.next()? {
                page.push(rows::endpoint(
                    row.get(0)?,
                    row.get_ref(1)?.as_str().unwrap_or_default(),
                    &mut interner,
                )?);
                if page.len() == ENDPOINTS_PAGE_ROWS {
                    fold(&mut folded, std::mem::take(&mut page));
                }
            }
            fold(&mut folded, page);
            Ok(folded)
        })
        .await
    }

    /// See [`super::Store::begin_ingest`].
    pub(super) async fn begin_ingest(&mut self, ingest: Ingest) -> Result<(), StoreError> {
        migrate::check(migrate::SQLITE, &self.applied().await?)?;
        self.ingest = Some(ingest);
        Ok(())
    }

    /// See [`super::Store::deliver`].
    pub(super) async fn deliver(&self, delivery: Arc<Delivery>, now: Wall) -> Result<(), StoreError> {
        let Some(Ingest { writer, .. }) = self.ingest else { return Err(StoreError::Closed) };
        self.run(move |connection| deliver(connection, &writer.to_string(), &delivery, now)).await
    }

    /// See [`super::Store::judged`].
    pub(super) async fn judged(&self, writer: Uuid, judgement: Judgement) -> Result<(), StoreError> {
        self.run(move |connection| insert_judgements(connection, &writer.to_string(), &[judgement])).await
    }

    /// See [`super::Store::retain`]: one slice.
    pub(super) async fn retain(&self, now: Wall) -> Result<bool, StoreError> {
        let Some(Ingest { retention: Some(retention), .. }) = self.ingest else { return Ok(false) };
        let cutoff = partition::cutoff(now, retention);
        self.run(move |connection| {
            // Rows lie in order of arrival, which is the order of time but for a few seconds: what is past
            // its retention is at the front, and no index is needed to find it.
            let mut more = false;
            for table in ["metrics", "steps"] {
                let delete = format!(
                    "DELETE FROM {table}
                     WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT ?1) AND ts < ?2"
                );
                let deleted = connection.execute(&delete, params![RETENTION_SLICE_ROWS, cutoff.0])?;
                more |= deleted == usize::try_from(RETENTION_SLICE_ROWS).unwrap_or(usize::MAX);
            }
            Ok(more)
        })
        .await
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Headers of endpoints may hold credentials: a new file is its owner's alone, and so are its WAL and index, which
    // take its mode. What is wrong with the path, SQLite says better.
    let _exists = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(SQLITE_BUSY_MAX.as_duration())?;
    // Has an effect only on a file that is still empty, and must come before the journal mode.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    write_ahead(&connection)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    Ok(connection)
}

/// Switches the file to WAL, unless it is. SQLite does not wait for a lock there, whatever the busy timeout says, so
/// two processes that make the same file would fail each other.
fn write_ahead(connection: &Connection) -> Result<(), StoreError> {
    let until = Mono::now() + SQLITE_BUSY_MAX;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Mono::now() < until =>
            {
                thread::park_timeout(Duration::from_millis(5));
            }
            result => return Ok(result?),
        }
    }
}

fn applied(connection: &Connection) -> Result<Vec<Applied>, StoreError> {
    let table = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'", [], |_| Ok(()))
        .optional()?;
    if table.is_none() {
        return Ok(Vec::new());
    }
    let mut statement =
        connection.prepare("SELECT version, checksum FROM schema_migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| Ok(Applied { version: row.get(0)?, checksum: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn upsert(connection: &mut Connection, endpoints: &[Endpoint], now: Wall) -> Result<Upserted, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut inserted, mut updated) = (0, 0);
    {
        let revision: i64 =
            transaction
                .query_row("SELECT coalesce(max(revision), 0) + 1 FROM endpoints", [], |row| row.get(0))?;
        let mut update = transaction.prepare(&update_endpoint())?;
        let mut insert = transaction.prepare(&insert_endpoint())?;
        for endpoint in endpoints {
            let mut values = values_of(endpoint);
            values.extend([Value::Integer(revision), Value::Integer(now.0)]);
            let changed = update.execute(params_from_iter(&values))? as u64;
            updated += changed;
            if changed == 0 {
                inserted += insert.execute(params_from_iter(&values))? as u64;
            }
        }
    }
    transaction.commit()?;
    Ok(Upserted { inserted, updated, unchanged: endpoints.len() as u64 - inserted - updated })
}

fn deliver(
    connection: &mut Connection,
    writer: &str,
    delivery: &Delivery,
    now: Wall,
) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let count = |rows: &[Sample]| i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let advanced = transaction
            .prepare_cached(
                "INSERT INTO ingest_cursor AS cursor (writer_id, seq, rows, steps, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (writer_id) DO UPDATE
                 SET seq = excluded.seq, rows = cursor.rows + excluded.rows, steps = cursor.steps + excluded.steps,
                     updated_at = excluded.updated_at
                 WHERE cursor.seq < excluded.seq",
            )?
            .execute(params![
                writer,
                delivery.seq,
                count(delivery.samples()),
                count(delivery.steps()),
                now.0
            ])?;
        if advanced == 0 {
            // An earlier attempt was committed after its deadline.
            return Ok(());
        }
        insert_samples(&transaction, "metrics", &pgcopy::COLUMNS, delivery.samples())?;
        let step_columns = [&pgcopy::COLUMNS[..], &[pgcopy::STEP_COLUMN]].concat();
        insert_samples(&transaction, "steps", &step_columns, delivery.steps())?;
        let mut state = transaction.prepare_cached(
            "INSERT INTO endpoint_state AS state (endpoint_id, ts, since, tls_not_after, address, resolve_us,
                 connect_us, tls_us, processing_us, transfer_us, total_us, outcome, failure, status, tls_cipher,
                 write_us)
             VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT (endpoint_id) DO UPDATE
             SET since = iif(state.outcome = excluded.outcome, state.since, excluded.ts), ts = excluded.ts,
                 tls_not_after = excluded.tls_not_after, address = excluded.address,
                 resolve_us = excluded.resolve_us, connect_us = excluded.connect_us, tls_us = excluded.tls_us,
                 processing_us = excluded.processing_us, transfer_us = excluded.transfer_us,
                 total_us = excluded.total_us, outcome = excluded.outcome, failure = excluded.failure,
                 status = excluded.status, tls_cipher = excluded.tls_cipher, write_us = excluded.write_us
             WHERE state.ts < excluded.ts",
        )?;
        for row in &delivery.latest {
            let [resolve_us, connect_us, tls_us, processing_us, transfer_us] = row.phases.as_array();
            state.execute(params![
                row.endpoint_id.0,
                row.ts.0,
                not_after(row).map(|at| at.0),
                address(row),
                resolve_us,
                connect_us,
                tls_us,
                processing_us,
                transfer_us,
                row.total_us,
                row.outcome as i16,
                row.reason,
                row.status,
                row.detail.tls_cipher.cast_signed(),
                row.write_us
            ])?;
        }
        let mut gaps = transaction.prepare_cached(
            "INSERT INTO ingest_gaps (writer_id, from_ts, to_ts, rows, steps, reason, recorded_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        for gap in &delivery.gaps {
            let [rows, steps] = [gap.rows, gap.steps].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
            gaps.execute(params![writer, gap.from.0, gap.to.0, rows, steps, gap.reason.name(), now.0])?;
        }
    }
    insert_judgements(&transaction, writer, &delivery.judgements)?;
    transaction.commit()?;
    Ok(())
}

fn insert_judgements(
    connection: &Connection,
    writer: &str,
    judgements: &[Judgement],
) -> Result<(), StoreError> {
    for judgement in judgements {
        connection.execute(
            "INSERT INTO verdicts (writer_id, ts, span_ms, whole_run, valid, reasons, due, sampled, missed,
                 dropped, lag_p99_us, agent_p99_us, canary_p99_us, stolen_percent, clock_steps)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                writer,
                judgement.ts.0,
                Judgement::column(judgement.span.0 / 1_000),
                judgement.whole_run,
                judgement.is_valid(),
                serde_json::Value::from(judgement.reasons.clone()).to_string(),
                Judgement::column(judgement.due),
                Judgement::column(judgement.sampled),
                Judgement::column(judgement.missed),
                Judgement::column(judgement.dropped),
                Judgement::column(judgement.lag_p99_us),
                Judgement::column(judgement.agent_p99_us),
                judgement.canary_p99_us.map(Judgement::column),
                judgement.stolen_percent,
                Judgement::column(judgement.clock_steps),
            ],
        )?;
    }
    Ok(())
}

/// `columns`: those of a sample, with or without that of a step.
fn insert_samples(
    connection: &Connection,
    table: &str,
    columns: &[&str],
    rows: &[Sample],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let names = columns.join(", ");
    let values = vec!["?"; columns.len()].join(", ");
    let mut insert =
        connection.prepare_cached(&format!("INSERT INTO {table} ({names}) VALUES ({values})"))?;
    for row in rows {
        let (address_hi, address_lo) = pgcopy::address_halves(row.detail.address);
        let [resolve_us, connect_us, tls_us, processing_us, transfer_us] = row.phases.as_array();
        let values: [i64; pgcopy::COLUMNS.len() + 1] = [
            row.ts.0,
            address_hi,
            address_lo,
            row.endpoint_id.0.into(),
            row.lag_us.into(),
            resolve_us.into(),
            connect_us.into(),
            tls_us.into(),
            processing_us.into(),
            transfer_us.into(),
            row.total_us.into(),
            row.write_us.into(),
            row.agent_us.into(),
            row.bytes_in.into(),
            row.bytes_out.into(),
            row.cpu_ns.into(),
            row.flags.0.into(),
            row.status.into(),
            (row.outcome as i16).into(),
            row.reason.into(),
            row.detail.tls_cipher.cast_signed().into(),
            row.detail.pattern.into(),
            row.detail.redirects.into(),
            row.detail.attempt.into(),
            (row.detail.body as u8).into(),
            row.twin.into(),
            row.detail.step.into(),
        ];
        insert.execute(params_from_iter(&values[..columns.len()]))?;
    }
    Ok(())
}

/// One piece of text for each column of an endpoint.
fn columns(text: impl Fn(&str, Kind) -> String) -> Vec<String> {
    COLUMNS.iter().map(|(name, kind)| text(name, *kind)).collect()
}

/// The values of an endpoint's columns: lists and objects as JSON text, true as 1.
fn values_of(endpoint: &Endpoint) -> Vec<Value> {
    let value = |((_, kind), value): (&(&str, Kind), serde_json::Value)| match (kind, value) {
        (Kind::Bytes, _) => Value::Blob(endpoint.options.body.clone()),
        (_, serde_json::Value::Null) => Value::Null,
        (_, serde_json::Value::Bool(truth)) => Value::Integer(truth.into()),
        (_, serde_json::Value::String(text)) => Value::Text(text),
        (_, serde_json::Value::Number(number)) => Value::Integer(number.as_i64().unwrap_or(i64::MAX)),
        (_, other) => Value::Text(other.to_string()),
    };
    COLUMNS.iter().zip(rows::values(endpoint)).map(value).collect()
}

/// The parameter of each column: `?1`, `?2` and so on; then come the revision and the time.
fn parameters() -> Vec<String> {
    (1..=COLUMNS.len() + 2).map(|number| format!("?{number}")).collect()
}

// A row is either changed, or as it was, or not there. The revision moves in the first case only.
fn update_endpoint() -> String {
    let parameters = parameters();
    let columns = || COLUMNS.iter().zip(&parameters).skip(1);
    let set: Vec<String> = columns().map(|((name, _), value)| format!("{name} = {value}")).collect();
    let differs: Vec<String> = columns().map(|((name, _), value)| format!("{name} IS NOT {value}")).collect();
    let [.., revision, now] = parameters.as_slice() else { unreachable!("there are columns") };
    format!(
        "UPDATE endpoints SET {}, revision = {revision}, updated_at = {now} WHERE name = ?1 AND ({})",
        set.join(", "),
        differs.join(" OR ")
    )
}

fn insert_endpoint() -> String {
    let names = columns(|name, _| name.to_owned()).join(", ");
    let values = parameters().join(", ");
    format!(
        "INSERT INTO endpoints ({names}, revision, updated_at) SELECT {values}
         WHERE NOT EXISTS (SELECT 1 FROM endpoints WHERE name = ?1)"
    )
}

/// The id and the row, as `rows.rs` reads it.
fn select_endpoints() -> String {
    let fields = columns(|name, kind| match kind {
        Kind::Bytes => format!("'{name}', hex({name})"),
        Kind::Texts | Kind::Json => format!("'{name}', json({name})"),
        _ => format!("'{name}', {name}"),
    });
    format!("SELECT endpoint_id, json_object({}) FROM endpoints ORDER BY endpoint_id", fields.join(", "))
}
