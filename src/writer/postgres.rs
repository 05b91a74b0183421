//! PostgreSQL 13 or newer: one connection, no session state, so that a pooler in transaction mode will do
//! (one that tracks prepared statements: PgBouncer 1.22.1 or newer).
//!
//! A delivery is one transaction of three round trips, the first and the last pipelined:
//!
//! ```text
//! BEGIN, advance the cursor, COPY ─►        cursor row is locked: a zombie of ours is waited for
//!                    ◄─ one row, ready for data
//! COPY data in chunks of 256 KiB  ─►
//!                    ◄─ row count
//! endpoint_state, ingest_gaps, COMMIT ─►
//!                    ◄─ done               lost answer: the cursor tells on the next connection
//! ```
//!
//! Out of scope: policy (`drive.rs`), which partitions (`partition.rs`), encoding (`pgcopy.rs`).
//!
//! Invariant: after an error the connection is not used again; its transaction dies with it.

use std::pin::pin;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{join, join3, join4};
use futures_util::{SinkExt, TryStreamExt};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink, NoTls, Statement};
use uuid::Uuid;

use super::batch::Gap;
use super::latest::{address, not_after};
use super::migrate::{self, Applied};
use super::partition::{self, Range};
use super::rows::{self, check_names};
use super::store::{Delivery, Ingest};
use super::{Judgement, PostgresUrl, StoreError, Upserted, pgcopy};
use crate::clock::{Micros, Wall};
use crate::config::{ENDPOINTS_PAGE_ROWS, RETENTION_EVERY};
use crate::endpoint::record::{COLUMNS, Kind};
use crate::endpoint::{Endpoint, Interner, StoredEndpoint};
use crate::sample::Sample;

/// Advisory locks of ours have this as their first half: `ring` in ASCII.
const LOCK_SPACE: i32 = 0x7269_6e67;
/// Second half: migrations.
const LOCK_MIGRATE: i32 = 1;
/// Second half: partitions being made.
const LOCK_PARTITIONS: i32 = 2;

/// A connection.
#[derive(Debug)]
pub(super) struct Postgres {
    client: Client,
    connection: JoinHandle<()>,
    delivering: Option<Delivering>,
}

/// What deliveries need beyond the connection.
struct Delivering {
    ingest: Ingest,
    /// Where the cursor stands.
    seq: i64,
    width: Micros,
    partitions: [Vec<Partition>; TABLES.len()],
    advance: Statement,
    copy: [Statement; TABLES.len()],
    state: Statement,
    gap: Statement,
}

/// What is partitioned by time: samples of slots, and steps.
const TABLES: [&str; 2] = ["metrics", "steps"];

/// A partition of one of [`TABLES`].
struct Partition {
    range: Range,
    /// Quoted, and qualified if need be.
    table: String,
    /// Whether we made it: what others attached is not ours to drop.
    ours: bool,
}

impl std::fmt::Debug for Delivering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivering").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Closes the socket even if the server does not read from it any more.
        self.connection.abort();
    }
}

impl Postgres {
    /// Connects.
    pub(super) async fn open(url: &PostgresUrl) -> Result<Self, StoreError> {
        let (client, connection) = url.config().connect(NoTls).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Whoever waits for an answer gets the error too, and says what it means.
                log::debug!("connection to the database: {}", super::error::postgres_prose(&error));
            }
        });
        Ok(Self { client, connection, delivering: None })
    }

    /// The rows of `schema_migrations`; none if there is no such table.
    pub(super) async fn applied(&self) -> Result<Vec<Applied>, StoreError> {
        applied(&self.client).await
    }

    /// See [`super::Store::migrate`].
    pub(super) async fn migrate(&mut self) -> Result<Vec<u32>, StoreError> {
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(&lock(LOCK_MIGRATE)).await?;
        transaction
            .batch_execute(
                "SET LOCAL client_min_messages = warning;
                 CREATE TABLE IF NOT EXISTS schema_migrations (
                    version    integer PRIMARY KEY,
                    name       text NOT NULL,
                    checksum   text NOT NULL,
                    applied_at timestamptz NOT NULL DEFAULT now()
                )",
            )
            .await?;
        let pending = migrate::pending(migrate::POSTGRES, &applied(transaction.client()).await?)?;
        for migration in &pending {
            transaction.batch_execute(migration.sql).await?;
            let insert = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)";
            let version = i32::try_from(migration.version).unwrap_or(i32::MAX);
            transaction.execute(insert, &[&version, &migration.name, &migration.checksum()]).await?;
        }
        transaction.commit().await?;
        Ok(pending.iter().map(|migration| migration.version).collect())
    }

    pub(super) async fn upsert_endpoints(&mut self, endpoints: &[Endpoint]) -> Result<Upserted, StoreError> {
        check_names(endpoints)?;
        let transaction = self.client.transaction().await?;
        // Readers go on; another import waits. So no name can appear between the two statements.
        transaction.batch_execute("LOCK TABLE endpoints IN SHARE ROW EXCLUSIVE MODE").await?;
        let revision: i64 =
            transaction.query_one("SELECT coalesce(max(revision), 0) + 1 FROM endpoints", &[]).await?.get(0);
        let upsert = transaction.prepare(&upsert_endpoints()).await?;
        let (mut inserted, mut updated) = (0, 0);
        for batch in rows::batches(endpoints) {
            let counts = transaction.query_one(&upsert, &[&batch, &revision]).await?;
            inserted += counts.get::<_, i64>(0).unsigned_abs();
            updated += counts.get::<_, i64>(1).unsigned_abs();
        }
        transaction.commit().await?;
        Ok(Upserted { inserted, updated, unchanged: endpoints.len() as u64 - inserted - updated })
    }

    /// See [`super::Store::fold_endpoints`].
    pub(super) async fn fold_endpoints<T>(
        &mut self,
        start: T,
        mut fold: impl FnMut(&mut T, Vec<StoredEndpoint>),
    ) -> Result<T, StoreError> {
        let none: [&str; 0] = [];
        let rows = self.client.query_raw(&select_endpoints(), none).await?;
        let mut rows = pin!(rows);
        let mut folded = start;
        let mut page = Vec::new();
        let mut interner = Interner::default();
        while let Some(row) = rows.try_next().await? {
            page.push(rows::endpoint(row.get(0), row.get(1), &mut interner)?);
            if page.len() == ENDPOINTS_PAGE_ROWS {
                fold(&mut folded, std::mem::take(&mut page));
            }
        }
        fold(&mut folded, page);
        Ok(folded)
    }

    /// See [`super::Store::begin_ingest`].
    pub(super) async fn begin_ingest(&mut self, ingest: Ingest) -> Result<(), StoreError> {
        migrate::check(migrate::POSTGRES, &self.applied().await?)?;
        let client = &self.client;
        let columns = pgcopy::COLUMNS.join(", ");
        let copy = format!("COPY metrics ({columns}) FROM STDIN (FORMAT binary)");
        let copy_steps =
            format!("COPY steps ({columns}, {}) FROM STDIN (FORMAT binary)", pgcopy::STEP_COLUMN);
        let (advance, copies, state, gap) = join4(
            client.prepare(ADVANCE),
            join(client.prepare(&copy), client.prepare(&copy_steps)),
            client.prepare(STATE),
            client.prepare(GAP),
        )
        .await;
        let create = "INSERT INTO ingest_cursor (writer_id, seq) VALUES ($1, 0) ON CONFLICT DO NOTHING";
        client.execute(create, &[&ingest.writer]).await?;
        let query = "SELECT seq FROM ingest_cursor WHERE writer_id = $1";
        let seq: i64 = client.query_one(query, &[&ingest.writer]).await?.get(0);
        if seq < ingest.acknowledged {
            // Rows and cursor went back together, and the batches are no longer in memory.
            log::warn!(
                "the database has forgotten {} batches that it had acknowledged: was it restored, or failed over to an asynchronous standby?",
                ingest.acknowledged - seq
            );
        }
        self.delivering = Some(Delivering {
            ingest,
            seq,
            width: partition::width(ingest.retention),
            partitions: list_all_partitions(client).await?,
            advance: advance?,
            copy: [copies.0?, copies.1?],
            state: state?,
            gap: gap?,
        });
        Ok(())
    }

    /// See [`super::Store::deliver`].
    pub(super) async fn deliver(&mut self, delivery: &Delivery, now: Wall) -> Result<(), StoreError> {
        let Self { client, delivering: Some(delivering), .. } = self else { return Err(StoreError::Closed) };
        if delivery.seq <= delivering.seq {
            // The COMMIT of an earlier connection was done, and its answer lost.
            return Ok(());
        }
        delivering.make_partitions(client, delivery, now).await?;
        let Delivering { ingest, seq, advance, copy, state, gap, .. } = &*delivering;
        let (samples, steps) = (delivery.samples(), delivery.steps());
        let [rows, step_rows] = [samples, steps].map(|rows| i64::try_from(rows.len()).unwrap_or(i64::MAX));
        let values: [&(dyn ToSql + Sync); 5] = [&ingest.writer, &delivery.seq, seq, &rows, &step_rows];
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let begin_and_advance = join(client.batch_execute(begin), client.execute(advance, &values));
        if samples.is_empty() {
            let (begun, advanced) = begin_and_advance.await;
            begun?;
            one_row(advanced?)?;
        } else {
            let ((begun, advanced), sink) =
                join(begin_and_advance, client.copy_in::<_, Bytes>(&copy[0])).await;
            begun?;
            one_row(advanced?)?;
            copy_rows(sink?, pgcopy::chunks(samples), samples.len()).await?;
        }
        if !steps.is_empty() {
            let sink = client.copy_in::<_, Bytes>(&copy[1]).await?;
            copy_rows(sink, pgcopy::step_chunks(steps), steps.len()).await?;
        }
        write_judgements(client, ingest.writer, &delivery.judgements).await?;
        let (stated, recorded, committed) = join3(
            write_state(client, state, &delivery.latest),
            write_gaps(client, gap, ingest, delivery),
            client.batch_execute("COMMIT"),
        )
        .await;
        // If either failed, the COMMIT was a rollback.
        stated?;
        recorded?;
        committed?;
        delivering.seq = delivery.seq;
        Ok(())
    }

    /// See [`super::Store::judged`].
    pub(super) async fn judged(&mut self, writer: Uuid, judgement: &Judgement) -> Result<(), StoreError> {
        write_judgements(&self.client, writer, std::slice::from_ref(judgement)).await
    }

    /// See [`super::Store::retain`].
    pub(super) async fn retain(&mut self, now: Wall) -> Result<bool, StoreError> {
        let Self { client, delivering: Some(delivering), .. } = self else { return Ok(false) };
        let retention = delivering.ingest.retention;
        let gone = |it: &Partition| {
            it.ours && retention.is_some_and(|retention| partition::expired(it.range, now, retention))
        };
        // What others have made or dropped meanwhile counts too.
        delivering.partitions = list_all_partitions(client).await?;
        let partitions = delivering.partitions.iter().flatten();
        let expired: Vec<String> = partitions.filter(|it| gone(it)).map(|it| it.table.clone()).collect();
        for table in expired {
            // Queries on the whole table wait behind us while we wait: so briefly, and again in the next round.
            let drop = format!(
                "BEGIN; SET LOCAL lock_timeout = '200ms'; SET LOCAL client_min_messages = warning; DROP TABLE IF EXISTS {table}; COMMIT"
            );
            match client.batch_execute(&drop).await {
                Ok(()) => log::debug!("partition {table} dropped: past its retention"),
                Err(error) if error.as_db_error().is_some() => {
                    log::debug!(
                        "partition {table} not dropped yet: {}",
                        super::error::postgres_prose(&error)
                    );
                    client.batch_execute("ROLLBACK").await?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        delivering.partitions = list_all_partitions(client).await?;
        delivering.summarize(client, now).await?;
        Ok(false)
    }
}

/// Sends one COPY's data, in chunks.
async fn copy_rows(
    sink: CopyInSink<Bytes>,
    chunks: impl Iterator<Item = Bytes>,
    rows: usize,
) -> Result<(), StoreError> {
    let mut sink = pin!(sink);
    for chunk in chunks {
        sink.feed(chunk).await?;
    }
    let copied = sink.as_mut().finish().await?;
    assert!(copied == rows as u64, "COPY counts what it was sent");
    Ok(())
}

impl Delivering {
    /// Makes the partitions that these rows, and the hours to come, need.
    async fn make_partitions(
        &mut self,
        client: &Client,
        delivery: &Delivery,
        now: Wall,
    ) -> Result<(), StoreError> {
        let rows = [delivery.samples(), delivery.steps()];
        let width = self.width;
        // Who has no steps needs no partitions for them.
        let missing = |table: usize, existing: &[Partition]| match (table, rows[table]) {
            (1, []) => Vec::new(),
            (_, rows) => partition::missing(&ranges(existing), rows, now, width),
        };
        if self.partitions.iter().enumerate().all(|(table, existing)| missing(table, existing).is_empty()) {
            return Ok(());
        }
        client.batch_execute(&format!("BEGIN; {}", lock(LOCK_PARTITIONS))).await?;
        // Again under the lock: another writer may have made them just now.
        let existing = list_all_partitions(client).await?;
        for (table, (parent, existing)) in TABLES.iter().zip(&existing).enumerate() {
            for range in missing(table, existing) {
                make_partition(client, parent, range).await?;
            }
        }
        let (partitions, committed) =
            (list_all_partitions(client).await?, client.batch_execute("COMMIT").await);
        committed?;
        self.partitions = partitions;
        Ok(())
    }
}

/// Made apart and then attached: `PARTITION OF` would lock out every reader of the whole. Rows are never updated and
/// soon dropped, so nothing is gained by vacuuming them after inserts.
async fn make_partition(client: &Client, parent: &str, range: Range) -> Result<(), StoreError> {
    let table = partition::name(parent, range.from);
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (LIKE {parent} INCLUDING ALL)
                 WITH (autovacuum_vacuum_insert_threshold = -1);
             ALTER TABLE {parent} ATTACH PARTITION {table}
                 FOR VALUES FROM (to_timestamp({})) TO (to_timestamp({}))",
            partition::unix_s(range.from),
            partition::unix_s(range.to)
        ))
        .await?;
    log::debug!("partition {table} made");
    Ok(())
}

impl Delivering {
    /// Has the block ranges filled since the last time entered into the BRIN index of `ts`; until then every
    /// query reads them.
    async fn summarize(&self, client: &Client, now: Wall) -> Result<(), StoreError> {
        // Twice the time between calls, so that the end of a closed partition is not forgotten.
        let since = partition::cutoff(now, Micros(2 * RETENTION_EVERY.0));
        let recent = self
            .partitions
            .iter()
            .flatten()
            .filter(|it| it.ours && it.range.to > since && it.range.from <= now);
        for Partition { table, .. } in recent {
            let summarize = format!(
                "SELECT brin_summarize_new_values(index.indexrelid)
                 FROM pg_index AS index JOIN pg_inherits AS parent ON parent.inhrelid = index.indexrelid
                 WHERE index.indrelid = '{table}'::regclass
                     AND parent.inhparent IN ('metrics_ts'::regclass, 'steps_ts'::regclass)"
            );
            match client.batch_execute(&summarize).await {
                Ok(()) => {}
                // Somebody else's table, or index: reading takes longer, and nothing is wrong.
                Err(error) if error.as_db_error().is_some() => {
                    log::debug!("{table} not summarised: {}", super::error::postgres_prose(&error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn lock(key: i32) -> String {
    format!("SELECT pg_advisory_xact_lock({LOCK_SPACE}, {key})")
}

/// Exactly one cursor row must have moved.
fn one_row(advanced: u64) -> Result<(), StoreError> {
    if advanced == 1 { Ok(()) } else { Err(StoreError::CursorMoved) }
}

async fn applied(client: &Client) -> Result<Vec<Applied>, StoreError> {
    let table = client.query_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[]).await?;
    if !table.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT version, checksum FROM schema_migrations ORDER BY version", &[]).await?;
    let applied = rows.iter().map(|row| Applied {
        version: u32::try_from(row.get::<_, i32>(0)).unwrap_or(u32::MAX),
        checksum: row.get(1),
    });
    Ok(applied.collect())
}

fn ranges(partitions: &[Partition]) -> Vec<Range> {
    partitions.iter().map(|partition| partition.range).collect()
}

/// The partitions of each of [`TABLES`].
async fn list_all_partitions(client: &Client) -> Result<[Vec<Partition>; TABLES.len()], StoreError> {
    let [metrics, steps] = TABLES.map(|table| list_partitions(client, table));
    let (metrics, steps) = join(metrics, steps).await;
    Ok([metrics?, steps?])
}

/// The partitions of a table, in order of time.
async fn list_partitions(client: &Client, parent: &str) -> Result<Vec<Partition>, StoreError> {
    // The bounds are printed and parsed by the same session, so its time zone and date style do not matter.
    // An open end (MINVALUE, or a default partition) is as far as samples can be from.
    let rows = client
        .query(
            &format!(r"SELECT coalesce(floor(extract(epoch FROM bound[1]::timestamptz))::bigint, 0),
                     coalesce(ceil(extract(epoch FROM bound[2]::timestamptz))::bigint, 253402304400),
                     table_name,
                     ours
              FROM (
                  SELECT regexp_match(pg_get_expr(relpartbound, oid), 'FROM \(''?(.+?)''?\) TO \(''?(.+?)''?\)') AS raw,
                         oid::regclass::text AS table_name,
                         relname ~ '^{parent}_\d{{8}}_\d{{4,6}}$' AS ours
                  FROM pg_class
                  WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = '{parent}'::regclass)
              ) AS partitions,
              LATERAL (SELECT ARRAY[nullif(raw[1], 'MINVALUE'), nullif(raw[2], 'MAXVALUE')] AS bound) AS bounds
              ORDER BY 1"),
            &[],
        )
        .await?;
    let wall = |seconds: i64| Wall(seconds.saturating_mul(1_000_000));
    let partition = |row: &tokio_postgres::Row| Partition {
        range: Range { from: wall(row.get(0)), to: wall(row.get(1)) },
        table: row.get(2),
        ours: row.get(3),
    };
    Ok(rows.iter().map(partition).collect())
}

/// Upserts `endpoint_state`; one statement, whatever the number of rows.
async fn write_state(client: &Client, statement: &Statement, latest: &[Sample]) -> Result<(), StoreError> {
    if latest.is_empty() {
        return Ok(());
    }
    let ids: Vec<i32> = latest.iter().map(|row| row.endpoint_id.0).collect();
    let ts: Vec<_> = latest.iter().map(|row| timestamp(row.ts)).collect();
    let not_after: Vec<_> = latest.iter().map(|row| not_after(row).map(timestamp)).collect();
    let addresses: Vec<_> = latest.iter().map(address).collect();
    let codes: [Vec<i16>; 4] = [
        latest.iter().map(|row| row.outcome as i16).collect(),
        latest.iter().map(|row| row.reason).collect(),
        latest.iter().map(|row| row.status).collect(),
        latest.iter().map(|row| row.detail.tls_cipher.cast_signed()).collect(),
    ];
    let phase =
        |phase: usize| -> Vec<i32> { latest.iter().map(|row| row.phases.as_array()[phase]).collect() };
    let phases = [phase(0), phase(1), phase(2), phase(3), phase(4)];
    let total_us: Vec<i32> = latest.iter().map(|row| row.total_us).collect();
    let write_us: Vec<i32> = latest.iter().map(|row| row.write_us).collect();
    client
        .execute(
            statement,
            &[
                &ids, &ts, &not_after, &addresses, &phases[0], &phases[1], &phases[2], &phases[3],
                &phases[4], &total_us, &codes[0], &codes[1], &codes[2], &codes[3], &write_us,
            ],
        )
        .await?;
    Ok(())
}

async fn write_gaps(
    client: &Client,
    statement: &Statement,
    ingest: &Ingest,
    delivery: &Delivery,
) -> Result<(), StoreError> {
    if delivery.gaps.is_empty() {
        return Ok(());
    }
    let from: Vec<_> = delivery.gaps.iter().map(|gap| timestamp(gap.from)).collect();
    let to: Vec<_> = delivery.gaps.iter().map(|gap| timestamp(gap.to)).collect();
    let counts = |count: fn(&Gap) -> u64| -> Vec<i64> {
        delivery.gaps.iter().map(|gap| i64::try_from(count(gap)).unwrap_or(i64::MAX)).collect()
    };
    let (rows, steps) = (counts(|gap| gap.rows), counts(|gap| gap.steps));
    let reason: Vec<&str> = delivery.gaps.iter().map(|gap| gap.reason.name()).collect();
    client.execute(statement, &[&ingest.writer, &from, &to, &rows, &steps, &reason]).await?;
    Ok(())
}

/// One a minute: not worth a prepared statement.
async fn write_judgements(client: &Client, writer: Uuid, judgements: &[Judgement]) -> Result<(), StoreError> {
    for judgement in judgements {
        let [due, sampled, missed, dropped, lag_us, agent_us, clock_steps] = [
            judgement.due,
            judgement.sampled,
            judgement.missed,
            judgement.dropped,
            judgement.lag_p99_us,
            judgement.agent_p99_us,
            judgement.clock_steps,
        ]
        .map(Judgement::column);
        let span_ms = Judgement::column(judgement.span.0 / 1_000);
        let canary_us = judgement.canary_p99_us.map(Judgement::column);
        #[expect(clippy::cast_possible_truncation, reason = "a percentage")]
        let stolen_percent = judgement.stolen_percent as f32;
        client
            .execute(
                VERDICT,
                &[
                    &writer,
                    &timestamp(judgement.ts),
                    &span_ms,
                    &judgement.whole_run,
                    &judgement.is_valid(),
                    &judgement.reasons,
                    &due,
                    &sampled,
                    &missed,
                    &dropped,
                    &lag_us,
                    &agent_us,
                    &canary_us,
                    &stolen_percent,
                    &clock_steps,
                ],
            )
            .await?;
    }
    Ok(())
}

const VERDICT: &str =
    "INSERT INTO verdicts (writer_id, ts, span_ms, whole_run, valid, reasons, due, sampled, missed,
        dropped, lag_p99_us, agent_p99_us, canary_p99_us, stolen_percent, clock_steps)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// What the driver sends as a `timestamptz`. Samples are from 1970 or later (`batch.rs`).
fn timestamp(at: Wall) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.0.max(0).unsigned_abs())
}

const ADVANCE: &str =
    "UPDATE ingest_cursor SET seq = $2, rows = rows + $4, steps = steps + $5, updated_at = now()
    WHERE writer_id = $1 AND seq = $3";

const STATE: &str =
    "INSERT INTO endpoint_state AS state (endpoint_id, ts, since, tls_not_after, address, resolve_us,
        connect_us, tls_us, processing_us, transfer_us, total_us, outcome, failure, status, tls_cipher, write_us)
    SELECT endpoint_id, ts, ts, tls_not_after, address::inet, resolve_us, connect_us, tls_us, processing_us,
        transfer_us, total_us, outcome, failure, status, tls_cipher, write_us
    FROM UNNEST($1::integer[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::integer[], $6::integer[],
        $7::integer[], $8::integer[], $9::integer[], $10::integer[], $11::smallint[], $12::smallint[],
        $13::smallint[], $14::smallint[], $15::integer[])
        AS latest (endpoint_id, ts, tls_not_after, address, resolve_us, connect_us, tls_us, processing_us,
        transfer_us, total_us, outcome, failure, status, tls_cipher, write_us)
    ON CONFLICT (endpoint_id) DO UPDATE
    SET ts = excluded.ts,
        since = CASE WHEN state.outcome = excluded.outcome THEN state.since ELSE excluded.ts END,
        tls_not_after = excluded.tls_not_after, address = excluded.address, resolve_us = excluded.resolve_us,
        connect_us = excluded.connect_us, tls_us = excluded.tls_us, processing_us = excluded.processing_us,
        transfer_us = excluded.transfer_us, total_us = excluded.total_us, outcome = excluded.outcome,
        failure = excluded.failure, status = excluded.status, tls_cipher = excluded.tls_cipher,
        write_us = excluded.write_us
    WHERE state.ts < excluded.ts";

const GAP: &str = "INSERT INTO ingest_gaps (writer_id, from_ts, to_ts, rows, steps, reason)
    SELECT $1, from_ts, to_ts, rows, steps, reason
    FROM UNNEST($2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[])
        AS gaps (from_ts, to_ts, rows, steps, reason)";

/// One piece of text for each column of an endpoint but those that are left out.
fn columns(without: &str, text: impl Fn(&str, Kind) -> String) -> String {
    let columns = COLUMNS.iter().filter(|(name, _)| *name != without).map(|(name, kind)| text(name, *kind));
    columns.collect::<Vec<_>>().join(", ")
}

/// Updates the endpoints of the rows given as `$1` that differ, inserts those that are missing, and counts both.
///
/// `ON CONFLICT` would use up an id for each endpoint that is there already, and ids have 31 bits.
fn upsert_endpoints() -> String {
    let types = columns("", |name, kind| {
        let kind = match kind {
            Kind::Text | Kind::Bytes => "text",
            Kind::Address => "inet",
            Kind::Small => "smallint",
            Kind::Integer => "integer",
            Kind::Big => "bigint",
            Kind::Boolean => "boolean",
            Kind::Texts => "text[]",
            Kind::Json => "jsonb",
        };
        format!("{name} {kind}")
    });
    let values = columns("", |name, kind| match kind {
        Kind::Bytes => format!("decode(g.{name}, 'hex') AS {name}"),
        _ => format!("g.{name}"),
    });
    let names = columns("", |name, _| name.to_owned());
    let of = |table: &'static str, without| columns(without, move |name, _| format!("{table}.{name}"));
    let (old, new, all) = (of("e", "name"), of("u", "name"), of("u", ""));
    let set = columns("name", |name, _| format!("{name} = u.{name}"));
    // Inserted in the order given: ids then follow it, and neighbours in the file are far apart in phase.
    format!(
        "WITH u AS MATERIALIZED (
             SELECT g.ord, {values} FROM ROWS FROM (jsonb_to_recordset($1::text::jsonb) AS ({types}))
                 WITH ORDINALITY AS g ({names}, ord)
         ), updated AS (
             UPDATE endpoints AS e SET {set}, revision = $2::bigint, updated_at = now() FROM u
             WHERE e.name = u.name AND ({old}) IS DISTINCT FROM ({new})
             RETURNING 1
         ), inserted AS (
             INSERT INTO endpoints ({names}, revision) SELECT {all}, $2::bigint FROM u
             WHERE NOT EXISTS (SELECT FROM endpoints AS e WHERE e.name = u.name) ORDER BY u.ord
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM inserted), (SELECT count(*) FROM updated)"
    )
}

/// The id and the row, as `rows.rs` reads it.
fn select_endpoints() -> String {
    let values = columns("", |name, kind| match kind {
        Kind::Bytes => format!("encode({name}, 'hex') AS {name}"),
        Kind::Address => format!("host({name}) AS {name}"),
        _ => name.to_owned(),
    });
    format!(
        "SELECT r.endpoint_id, row_to_json(r)::text FROM (SELECT endpoint_id, {values} FROM endpoints) AS r
         ORDER BY r.endpoint_id"
    )
}
