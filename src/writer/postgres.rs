//! The PostgreSQL driver: statements, transactions, and nothing that decides.
//!
//! A batch is one transaction: the cursor moves, the rows are copied, states and gaps are written. Whether a
//! batch whose COMMIT was not answered is in the table is therefore known from the cursor alone (`drive.rs`).
//!
//! No session state is relied on (no `SET`, no session lock, no `LISTEN`), so a pooler may stand in between.
//! Every wait has an end: `statement_timeout` does not stop a COPY whose other side went silent, so the caller
//! bounds each call and drops the connection with it.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement, Transaction};
use uuid::Uuid;

use super::migrate::{self, Applied};
use super::partition::{self, Range};
use super::rows::{EndpointRow, check_names};
use super::store::Ingest;
use super::{PostgresUrl, StoreError, StoreUrl, Upserted, pgcopy};
use crate::clock::{Micros, Wall};
use crate::config::UPSERT_ROWS_MAX;
use crate::endpoint::{Endpoint, StoredEndpoint};
use crate::sample::Sample;

/// A connection.
#[derive(Debug)]
pub(super) struct Postgres {
    client: Client,
    copy: Option<Statement>,
    /// The partitions of `metrics` that this connection has seen or made, in order.
    partitions: Vec<Range>,
}

/// Taken while migrating and while making or dropping partitions, for the transaction: "ringprob" as a number.
const LOCK_KEY: i64 = 0x7269_6e67_7072_6f62;

impl Postgres {
    pub(super) async fn connect(url: &PostgresUrl) -> Result<Self, StoreError> {
        let open =
            |message: String| StoreError::Open { store: StoreUrl::Postgres(Box::new(url.clone())), message };
        let (client, connection) =
            url.config().connect(NoTls).await.map_err(|error| open(super::error::postgres_prose(&error)))?;
        // It ends with the client; what went wrong is told to whoever waits for an answer.
        tokio::spawn(connection);
        Ok(Self { client, copy: None, partitions: Vec::new() })
    }

    // --- schema -----------------------------------------------------------------------------------------

    pub(super) async fn migrate(&mut self) -> Result<Vec<u32>, StoreError> {
        let transaction = self.client.transaction().await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK_KEY]).await?;
        transaction
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL, \
                 checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
        let applied = applied(&transaction).await?;
        let mut versions = Vec::new();
        for migration in migrate::pending(migrate::POSTGRES, &applied)? {
            transaction.batch_execute(migration.sql).await?;
            let version = migration.version.cast_signed();
            transaction
                .execute(
                    "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    &[&version, &migration.name, &migration.checksum()],
                )
                .await?;
            versions.push(migration.version);
        }
        transaction.commit().await?;
        Ok(versions)
    }

    pub(super) async fn check_schema(&mut self) -> Result<(), StoreError> {
        let transaction = self.client.transaction().await?;
        let exists =
            transaction.query_one("SELECT to_regclass('schema_migrations') IS NOT NULL", &[]).await?;
        let applied = if exists.get(0) { applied(&transaction).await? } else { Vec::new() };
        migrate::check(migrate::POSTGRES, &applied)
    }

    // --- endpoints --------------------------------------------------------------------------------------

    pub(super) async fn upsert_endpoints(&mut self, endpoints: &[Endpoint]) -> Result<Upserted, StoreError> {
        check_names(endpoints)?;
        let transaction = self.client.transaction().await?;
        // Readers go on; another import waits. So no name can appear between the two statements.
        transaction.batch_execute("LOCK TABLE endpoints IN SHARE ROW EXCLUSIVE MODE").await?;
        let revision: i64 =
            transaction.query_one("SELECT coalesce(max(revision), 0) + 1 FROM endpoints", &[]).await?.get(0);
        // Updated first, and only then are the missing ones inserted: ON CONFLICT would use up an id for each
        // endpoint that is there already, and ids have 31 bits.
        let update = transaction.prepare(&format!("{UPDATE_HEAD} {ROWS_GIVEN} {UPDATE_TAIL}")).await?;
        let insert = transaction.prepare(&format!("{INSERT_HEAD} {ROWS_GIVEN} {INSERT_TAIL}")).await?;
        let (mut inserted, mut updated) = (0, 0);
        for chunk in endpoints.chunks(UPSERT_ROWS_MAX) {
            let columns = Columns::of(chunk);
            updated += transaction.execute(&update, &columns.parameters(&revision)).await?;
            inserted += transaction.execute(&insert, &columns.parameters(&revision)).await?;
        }
        transaction.commit().await?;
        Ok(Upserted { inserted, updated, unchanged: endpoints.len() as u64 - inserted - updated })
    }

    pub(super) async fn endpoints(&mut self) -> Result<Vec<StoredEndpoint>, StoreError> {
        let rows = self.client.query(SELECT_ENDPOINTS, &[]).await?;
        rows.iter()
            .map(|row| {
                let endpoint = EndpointRow {
                    name: row.get(1),
                    url: row.get(2),
                    address: row.get(3),
                    method: row.get(4),
                    headers: row.get(5),
                    body: row.get(6),
                    expect_status: row.get(7),
                    interval_ms: row.get(8),
                    timeout_ms: row.get(9),
                    connection: row.get(10),
                    tags: row.get(11),
                    enabled: row.get(12),
                };
                endpoint.endpoint(row.get(0), row.get(13))
            })
            .collect()
    }

    // --- samples ----------------------------------------------------------------------------------------

    /// The number of the last batch of this writer that is stored; 0 for none.
    pub(super) async fn cursor(&mut self, writer_id: Uuid) -> Result<i64, StoreError> {
        self.client
            .execute(
                "INSERT INTO ingest_cursor (writer_id, seq) VALUES ($1, 0) ON CONFLICT DO NOTHING",
                &[&writer_id],
            )
            .await?;
        let row = self
            .client
            .query_one("SELECT seq FROM ingest_cursor WHERE writer_id = $1", &[&writer_id])
            .await?;
        Ok(row.get(0))
    }

    /// Makes the partitions that `rows` and the near future need.
    pub(super) async fn make_partitions(
        &mut self,
        rows: &[Sample],
        now: Wall,
        width: Micros,
    ) -> Result<(), StoreError> {
        if partition::missing(&self.partitions, rows, now, width).is_empty() {
            return Ok(());
        }
        let transaction = self.client.transaction().await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK_KEY]).await?;
        let mut partitions: Vec<Range> =
            existing(&transaction).await?.into_iter().map(|(_, range)| range).collect();
        for range in partition::missing(&partitions, rows, now, width) {
            let (name, from, to) =
                (partition::name(range.from), partition::prose(range.from), partition::prose(range.to));
            // Made on its own and then attached: CREATE … PARTITION OF would lock out every reader and writer.
            transaction
                .batch_execute(&format!(
                    "CREATE TABLE {name} (LIKE metrics INCLUDING ALL); \
                     ALTER TABLE metrics ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')"
                ))
                .await?;
            log::debug!("partition {name} made");
            partitions.push(range);
        }
        transaction.commit().await?;
        partitions.sort_unstable();
        self.partitions = partitions;
        Ok(())
    }

    /// Stores a batch. [`StoreError::CursorMoved`]: the cursor does not stand before it.
    pub(super) async fn ingest(&mut self, ingest: &Ingest<'_>) -> Result<(), StoreError> {
        if self.copy.is_none() {
            let columns = pgcopy::COLUMNS.join(", ");
            let copy = format!("COPY metrics ({columns}) FROM STDIN (FORMAT binary)");
            self.copy = Some(self.client.prepare(&copy).await?);
        }
        let copy = self.copy.clone().expect("prepared just now");
        let transaction = self.client.transaction().await?;
        let moved = transaction
            .execute(
                "UPDATE ingest_cursor SET seq = $2::bigint, rows = rows + $3::bigint, updated_at = now() \
                 WHERE writer_id = $1 AND seq = $2::bigint - 1",
                &[&ingest.writer_id, &ingest.seq, &(ingest.rows.len() as u64).cast_signed()],
            )
            .await?;
        if moved != 1 {
            return Err(StoreError::CursorMoved);
        }
        let mut sink = pin!(transaction.copy_in::<_, Bytes>(&copy).await?);
        for chunk in pgcopy::chunks(ingest.rows) {
            sink.send(chunk).await?;
        }
        sink.finish().await?;
        write_states(&transaction, ingest.states).await?;
        for gap in ingest.gaps {
            transaction
                .execute(
                    "INSERT INTO ingest_gaps (writer_id, from_ts, to_ts, rows, reason) VALUES ($1, \
                     timestamptz 'epoch' + $2::float8 * interval '1 us', \
                     timestamptz 'epoch' + $3::float8 * interval '1 us', $4, $5)",
                    &[
                        &ingest.writer_id,
                        &f64_us(gap.from),
                        &f64_us(gap.to),
                        &gap.rows.cast_signed(),
                        &gap.reason.name(),
                    ],
                )
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Drops the partitions that are past their retention. One that is in use is left for the next time.
    pub(super) async fn retain(&mut self, now: Wall, retention: Micros) -> Result<(), StoreError> {
        let transaction = self.client.transaction().await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK_KEY]).await?;
        let partitions = existing(&transaction).await?;
        transaction.commit().await?;
        for (name, range) in partitions {
            if !partition::expired(range, now, retention) {
                continue;
            }
            let wait_ms = DROP_LOCK_WAIT.as_millis();
            let dropped = self
                .client
                .batch_execute(&format!(
                    "BEGIN; SET LOCAL lock_timeout = {wait_ms}; DROP TABLE IF EXISTS {name}; COMMIT"
                ))
                .await;
            match dropped {
                Ok(()) => {
                    log::info!("partition {name} is past its retention, dropped");
                    self.partitions.retain(|known| *known != range);
                }
                Err(error) => {
                    log::debug!("partition {name} is in use: {}", super::error::postgres_prose(&error));
                    self.client.batch_execute("ROLLBACK").await?;
                }
            }
        }
        Ok(())
    }
}

/// DROP needs the parent's exclusive lock; COPY must not queue behind it for long.
const DROP_LOCK_WAIT: Duration = Duration::from_millis(200);

async fn applied(transaction: &Transaction<'_>) -> Result<Vec<Applied>, StoreError> {
    let rows =
        transaction.query("SELECT version, checksum FROM schema_migrations ORDER BY version", &[]).await?;
    let applied = |row: &tokio_postgres::Row| Applied {
        version: row.get::<_, i32>(0).cast_unsigned(),
        checksum: row.get(1),
    };
    Ok(rows.iter().map(applied).collect())
}

/// The partitions of `metrics` with their bounds, in order.
async fn existing(transaction: &Transaction<'_>) -> Result<Vec<(String, Range)>, StoreError> {
    let rows = transaction
        .query(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
                    (extract(epoch FROM (b.found)[1]::timestamptz) * 1000000)::bigint,
                    (extract(epoch FROM (b.found)[2]::timestamptz) * 1000000)::bigint
             FROM pg_inherits AS i
             JOIN pg_class AS c ON c.oid = i.inhrelid
             JOIN pg_namespace AS n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL (
                 SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \\('([^']+)'\\) TO \\('([^']+)'\\)$$)
             ) AS b (found)
             WHERE i.inhparent = 'metrics'::regclass AND b.found IS NOT NULL
             ORDER BY 2",
            &[],
        )
        .await?;
    let range = |row: &tokio_postgres::Row| Range { from: Wall(row.get(1)), to: Wall(row.get(2)) };
    Ok(rows.iter().map(|row| (row.get(0), range(row))).collect())
}

/// One statement for all: states are few compared with samples, and an upsert per row would not be.
async fn write_states(transaction: &Transaction<'_>, states: &[Sample]) -> Result<(), StoreError> {
    if states.is_empty() {
        return Ok(());
    }
    let ints = |of: fn(&Sample) -> i32| states.iter().map(of).collect::<Vec<i32>>();
    let smalls = |of: fn(&Sample) -> i16| states.iter().map(of).collect::<Vec<i16>>();
    let ts: Vec<f64> = states.iter().map(|state| f64_us(state.ts)).collect();
    let ids = ints(|state| state.endpoint_id.0);
    let (outcome, failure, status) =
        (smalls(|state| state.outcome as i16), smalls(|state| state.reason), smalls(|state| state.status));
    let phases: [Vec<i32>; 6] = [
        ints(|state| state.phases.resolve_us),
        ints(|state| state.phases.connect_us),
        ints(|state| state.phases.tls_us),
        ints(|state| state.phases.processing_us),
        ints(|state| state.phases.transfer_us),
        ints(|state| state.total_us),
    ];
    let [resolve, connect, tls, processing, transfer, total] = &phases;
    transaction
        .execute(
            "INSERT INTO endpoint_state (endpoint_id, ts, since, outcome, failure, status, resolve_us, \
                 connect_us, tls_us, processing_us, transfer_us, total_us)
             SELECT u.id, timestamptz 'epoch' + u.us * interval '1 us', timestamptz 'epoch' + u.us * interval \
                 '1 us', u.outcome, u.failure, u.status, u.resolve, u.connect, u.tls, u.processing, u.transfer, \
                 u.total
             FROM unnest($1::int[], $2::float8[], $3::smallint[], $4::smallint[], $5::smallint[], $6::int[], \
                 $7::int[], $8::int[], $9::int[], $10::int[], $11::int[])
                 AS u (id, us, outcome, failure, status, resolve, connect, tls, processing, transfer, total)
             ON CONFLICT (endpoint_id) DO UPDATE SET
                 ts = excluded.ts,
                 since = CASE WHEN endpoint_state.outcome = excluded.outcome THEN endpoint_state.since
                         ELSE excluded.ts END,
                 outcome = excluded.outcome, failure = excluded.failure, status = excluded.status,
                 resolve_us = excluded.resolve_us, connect_us = excluded.connect_us, tls_us = excluded.tls_us,
                 processing_us = excluded.processing_us, transfer_us = excluded.transfer_us,
                 total_us = excluded.total_us
             WHERE excluded.ts > endpoint_state.ts",
            &[&ids, &ts, &outcome, &failure, &status, resolve, connect, tls, processing, transfer, total],
        )
        .await?;
    Ok(())
}

/// An interval is multiplied by a double in PostgreSQL. Exact: microseconds until the year 2255 are below 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "below 2^53 until the year 2255")]
fn f64_us(at: Wall) -> f64 {
    at.0 as f64
}

/// The rows of a statement, as one array per column.
#[derive(Debug, Default)]
struct Columns {
    names: Vec<String>,
    urls: Vec<String>,
    addresses: Vec<Option<String>>,
    methods: Vec<String>,
    headers: Vec<String>,
    bodies: Vec<Vec<u8>>,
    expect_statuses: Vec<String>,
    intervals_ms: Vec<i32>,
    timeouts_ms: Vec<i32>,
    connections: Vec<String>,
    tags: Vec<String>,
    enabled: Vec<bool>,
}

impl Columns {
    fn of(endpoints: &[Endpoint]) -> Self {
        let mut columns = Self::default();
        for row in endpoints.iter().map(EndpointRow::of) {
            columns.names.push(row.name);
            columns.urls.push(row.url);
            columns.addresses.push(row.address);
            columns.methods.push(row.method);
            columns.headers.push(row.headers);
            columns.bodies.push(row.body);
            columns.expect_statuses.push(row.expect_status);
            columns.intervals_ms.push(row.interval_ms);
            columns.timeouts_ms.push(row.timeout_ms);
            columns.connections.push(row.connection);
            columns.tags.push(row.tags);
            columns.enabled.push(row.enabled);
        }
        columns
    }

    fn parameters<'a>(&'a self, revision: &'a i64) -> [&'a (dyn ToSql + Sync); 13] {
        [
            &self.names,
            &self.urls,
            &self.addresses,
            &self.methods,
            &self.headers,
            &self.bodies,
            &self.expect_statuses,
            &self.intervals_ms,
            &self.timeouts_ms,
            &self.connections,
            &self.tags,
            &self.enabled,
            revision,
        ]
    }
}

const ROWS_GIVEN: &str = "(
    SELECT g.ord, g.name, g.url, g.address::inet AS address, g.method, g.headers::jsonb AS headers, g.body,
        ARRAY(SELECT jsonb_array_elements_text(g.expect_status::jsonb)) AS expect_status,
        g.interval_ms, g.timeout_ms, g.connection, g.tags::jsonb AS tags, g.enabled, $13::bigint AS revision
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::int[],
        $9::int[], $10::text[], $11::text[], $12::boolean[])
        WITH ORDINALITY AS g (name, url, address, method, headers, body, expect_status, interval_ms, timeout_ms,
        connection, tags, enabled, ord)
) AS u";
const UPDATE_HEAD: &str = "UPDATE endpoints AS e SET url = u.url, address = u.address, method = u.method,
    headers = u.headers, body = u.body, expect_status = u.expect_status, interval_ms = u.interval_ms,
    timeout_ms = u.timeout_ms, connection = u.connection, tags = u.tags, enabled = u.enabled,
    revision = u.revision, updated_at = now() FROM";
const UPDATE_TAIL: &str = "WHERE e.name = u.name AND (e.url, e.address, e.method, e.headers, e.body,
    e.expect_status, e.interval_ms, e.timeout_ms, e.connection, e.tags, e.enabled) IS DISTINCT FROM (u.url,
    u.address, u.method, u.headers, u.body, u.expect_status, u.interval_ms, u.timeout_ms, u.connection, u.tags,
    u.enabled)";
const INSERT_HEAD: &str = "INSERT INTO endpoints (name, url, address, method, headers, body, expect_status,
    interval_ms, timeout_ms, connection, tags, enabled, revision)
    SELECT u.name, u.url, u.address, u.method, u.headers, u.body, u.expect_status, u.interval_ms, u.timeout_ms,
    u.connection, u.tags, u.enabled, u.revision FROM";
// In the order given: ids then follow it, and neighbours in the file are far apart in phase.
const INSERT_TAIL: &str =
    "WHERE NOT EXISTS (SELECT FROM endpoints AS e WHERE e.name = u.name) ORDER BY u.ord";
const SELECT_ENDPOINTS: &str = "SELECT endpoint_id, name, url, host(address), method, headers::text, body,
    array_to_json(expect_status)::text, interval_ms, timeout_ms, connection, tags::text, enabled,
    CASE WHEN auth_ref IS NOT NULL THEN 'auth_ref' WHEN body_match <> '{}' THEN 'body_match'
        WHEN body_forbid <> '{}' THEN 'body_forbid' WHEN resolve_timeout_ms IS NOT NULL THEN 'resolve_timeout_ms'
        WHEN connect_timeout_ms IS NOT NULL THEN 'connect_timeout_ms'
        WHEN tls_timeout_ms IS NOT NULL THEN 'tls_timeout_ms'
        WHEN processing_timeout_ms IS NOT NULL THEN 'processing_timeout_ms'
        WHEN transfer_timeout_ms IS NOT NULL THEN 'transfer_timeout_ms'
        WHEN redirects <> 0 THEN 'redirects' WHEN tls IS NOT NULL THEN 'tls' END
    FROM endpoints ORDER BY endpoint_id";
