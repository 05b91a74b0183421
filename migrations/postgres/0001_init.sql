-- The tables of ringprobe, as ARCHITECTURE.md describes them.
--
-- Applied in one transaction together with its row in schema_migrations. Never edited once released: what
-- changes comes in the next file.

-- Codes and names ------------------------------------------------------------------------------------------

CREATE TABLE outcomes (
    code smallint PRIMARY KEY,
    name text NOT NULL UNIQUE
);

INSERT INTO outcomes (code, name) VALUES
    (1, 'up'),
    (2, 'down'),
    (3, 'missed');

-- Both why a probe found its endpoint down (below 200) and why a slot was missed: they share a column.
CREATE TABLE failure_classes (
    code smallint PRIMARY KEY,
    name text NOT NULL UNIQUE
);

INSERT INTO failure_classes (code, name) VALUES
    (10, 'dns_not_found'),
    (11, 'dns_timeout'),
    (12, 'dns_failed'),
    (20, 'connect_refused'),
    (21, 'connect_timeout'),
    (22, 'network_unreachable'),
    (23, 'connect_failed'),
    (30, 'tls_expired'),
    (31, 'tls_name'),
    (32, 'tls_untrusted'),
    (33, 'tls_protocol'),
    (34, 'tls_timeout'),
    (40, 'send_failed'),
    (41, 'ttfb_timeout'),
    (42, 'transfer_timeout'),
    (43, 'total_timeout'),
    (44, 'closed_early'),
    (45, 'reset'),
    (50, 'malformed_response'),
    (51, 'head_too_large'),
    (52, 'body_too_large'),
    (53, 'decode_failed'),
    (60, 'status_unexpected'),
    (61, 'body_mismatch'),
    (62, 'body_forbidden'),
    (70, 'too_many_redirects'),
    (71, 'redirect_blocked'),
    (80, 'policy_blocked'),
    (200, 'overlap'),
    (201, 'inflight_limit'),
    (202, 'late');

-- Endpoints ------------------------------------------------------------------------------------------------

-- docs/endpoints.md says what each column means; its field is named alike, without the unit.
CREATE TABLE endpoints (
    endpoint_id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- How the endpoint file and this table find each other. The URL is not a key.
    name                  text NOT NULL UNIQUE CHECK (name <> '' AND octet_length(name) <= 255),
    url                   text NOT NULL CHECK (octet_length(url) <= 8192),
    interval_ms           integer NOT NULL DEFAULT 60000 CHECK (interval_ms BETWEEN 100 AND 86400000),
    enabled               boolean NOT NULL DEFAULT true,
    priority              smallint NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    -- The request. Header fields are [["Name", "value"], …]: in order, and a name may come twice.
    method                text NOT NULL DEFAULT 'GET',
    headers               jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(headers) = 'array'),
    -- Where the secrets are (env:NAME, file:PATH, cred:NAME), never the secrets.
    secret_headers        jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(secret_headers) = 'array'),
    body                  bytea NOT NULL DEFAULT '',
    -- {"username": …, "password": a reference}
    basic_auth            jsonb CHECK (jsonb_typeof(basic_auth) = 'object' AND bearer IS NULL),
    bearer                text CHECK (bearer ~ '^(env|file|cred):'),
    user_agent            text,
    accept_encoding       text[] NOT NULL DEFAULT '{}' CHECK (accept_encoding <@ '{gzip,deflate,br}'),
    -- What is expected. Statuses are entries such as 200-299 and 304.
    expect                text NOT NULL DEFAULT 'up' CHECK (expect IN ('up', 'down')),
    expect_status         text[] NOT NULL DEFAULT '{200-299}',
    -- [["Name", a pattern, true for present or false for absent], …]
    expect_headers        jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(expect_headers) = 'array'),
    expect_version        text CHECK (expect_version IN ('1.0', '1.1')),
    expect_within_ms      integer CHECK (expect_within_ms BETWEEN 1 AND 300000),
    body_match            text[] NOT NULL DEFAULT '{}',
    body_forbid           text[] NOT NULL DEFAULT '{}',
    body_limit_bytes      bigint NOT NULL DEFAULT 10485760 CHECK (body_limit_bytes BETWEEN 1 AND 1073741824),
    body_stop             boolean NOT NULL DEFAULT false,
    charset               text NOT NULL DEFAULT 'raw' CHECK (charset IN ('raw', 'auto')),
    cert_expires_within_s integer CHECK (cert_expires_within_s BETWEEN 1 AND 315360000),
    redirects             smallint NOT NULL DEFAULT 10 CHECK (redirects BETWEEN 0 AND 20),
    redirect_downgrade    boolean NOT NULL DEFAULT false,
    -- From the start of a probe to its verdict; those below it, where set, are for one phase.
    timeout_ms            integer NOT NULL DEFAULT 10000 CHECK (timeout_ms BETWEEN 1 AND 300000),
    resolve_timeout_ms    integer CHECK (resolve_timeout_ms BETWEEN 1 AND 300000),
    connect_timeout_ms    integer CHECK (connect_timeout_ms BETWEEN 1 AND 300000),
    tls_timeout_ms        integer CHECK (tls_timeout_ms BETWEEN 1 AND 300000),
    ttfb_timeout_ms       integer CHECK (ttfb_timeout_ms BETWEEN 1 AND 300000),
    idle_timeout_ms       integer CHECK (idle_timeout_ms BETWEEN 1 AND 300000),
    retries               smallint NOT NULL DEFAULT 0 CHECK (retries BETWEEN 0 AND 5),
    -- The way there.
    dns                   text NOT NULL DEFAULT 'cached' CHECK (dns IN ('cached', 'every')),
    expand                text NOT NULL DEFAULT 'one' CHECK (expand IN ('one', 'all')),
    family                text NOT NULL DEFAULT 'any' CHECK (family IN ('any', 'prefer4', 'prefer6', '4', '6')),
    -- Connect here instead of resolving the URL's host.
    address               inet,
    source                text,
    connection            text NOT NULL DEFAULT 'fresh' CHECK (connection IN ('fresh', 'reuse')),
    close                 text NOT NULL DEFAULT 'peer' CHECK (close IN ('peer', 'fin', 'rst')),
    tls                   jsonb CHECK (jsonb_typeof(tls) = 'object'),
    tags                  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(tags) = 'object'),
    -- Counts the changes of this table: a row has the number of the change that touched it last.
    revision              bigint NOT NULL DEFAULT 0,
    updated_at            timestamptz NOT NULL DEFAULT now()
);

-- Samples --------------------------------------------------------------------------------------------------

-- One row per due slot. 64 bytes of data without padding, nothing null (-1: this phase did not happen), and
-- no key, foreign key or trigger: each would cost more than the row. Exactly once is ingest_cursor's task.
-- Partitions are made ahead by the writer; there is no default partition, because it would forbid detaching
-- the others without a lock.
CREATE TABLE metrics (
    -- The scheduled time of the slot.
    ts            timestamptz NOT NULL,
    endpoint_id   integer NOT NULL,
    -- Actual start minus scheduled time.
    lag_us        integer NOT NULL,
    resolve_us    integer NOT NULL,
    connect_us    integer NOT NULL,
    tls_us        integer NOT NULL,
    processing_us integer NOT NULL,
    transfer_us   integer NOT NULL,
    total_us      integer NOT NULL,
    -- The prober's own delay: not part of the phases.
    agent_us      integer NOT NULL,
    bytes_in      integer NOT NULL,
    bytes_out     integer NOT NULL,
    cpu_ns        integer NOT NULL,
    status        smallint NOT NULL,
    outcome       smallint NOT NULL,
    failure       smallint NOT NULL,
    flags         integer NOT NULL
) PARTITION BY RANGE (ts);

-- Rows arrive in order of time, so block ranges find them at a thousandth of a B-tree's size and cost. The
-- writer has them summarised once a minute: autosummarize asks autovacuum for each range, whose list holds
-- 256 requests, and fills the server's log with the rest.
CREATE INDEX metrics_ts ON metrics USING brin (ts) WITH (pages_per_range = 32);

-- What the last probe of each endpoint found: written when that changes, and once a minute when it does not.
CREATE TABLE endpoint_state (
    endpoint_id   integer PRIMARY KEY,
    ts            timestamptz NOT NULL,
    -- Since when the outcome is what it is.
    since         timestamptz NOT NULL,
    outcome       smallint NOT NULL,
    failure       smallint NOT NULL,
    status        smallint NOT NULL,
    resolve_us    integer NOT NULL,
    connect_us    integer NOT NULL,
    tls_us        integer NOT NULL,
    processing_us integer NOT NULL,
    transfer_us   integer NOT NULL,
    total_us      integer NOT NULL
) WITH (fillfactor = 50); -- Room for updates on the same page: no index is touched.

-- Ingest ---------------------------------------------------------------------------------------------------

-- How far each writer has come. Updated in the transaction that stores the rows, so that a batch whose
-- COMMIT was not answered is known to be stored, or not, when the writer asks again.
CREATE TABLE ingest_cursor (
    writer_id  uuid PRIMARY KEY,
    seq        bigint NOT NULL,
    -- Rows stored by this writer: sum(rows) is count(metrics) while nothing is past retention.
    rows       bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Rows that were dropped. No data is not "down".
CREATE TABLE ingest_gaps (
    writer_id   uuid NOT NULL,
    from_ts     timestamptz NOT NULL,
    to_ts       timestamptz NOT NULL,
    rows        bigint NOT NULL CHECK (rows > 0),
    -- queue_full: the database was away for too long; rejected: it refused the rows.
    reason      text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

-- For people -----------------------------------------------------------------------------------------------

CREATE VIEW samples AS
SELECT
    m.ts,
    m.endpoint_id,
    e.name,
    e.url,
    o.name AS outcome,
    f.name AS failure,
    nullif(m.status, 0) AS status,
    m.lag_us / 1000.0 AS lag_ms,
    nullif(m.resolve_us, -1) / 1000.0 AS resolve_ms,
    nullif(m.connect_us, -1) / 1000.0 AS connect_ms,
    nullif(m.tls_us, -1) / 1000.0 AS tls_ms,
    nullif(m.processing_us, -1) / 1000.0 AS processing_ms,
    nullif(m.transfer_us, -1) / 1000.0 AS transfer_ms,
    nullif(m.total_us, -1) / 1000.0 AS total_ms,
    m.agent_us / 1000.0 AS agent_ms,
    m.bytes_in,
    m.bytes_out,
    m.flags & 1 <> 0 AS reuse,
    m.flags & 2 <> 0 AS reused,
    m.flags & 4 <> 0 AS censored
FROM metrics AS m
LEFT JOIN endpoints AS e USING (endpoint_id)
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure;

-- What went wrong, when. Give it a span of ts: it looks at every row in it.
CREATE VIEW failures AS
SELECT
    m.ts,
    m.endpoint_id,
    e.name,
    e.url,
    f.name AS failure,
    nullif(m.status, 0) AS status,
    nullif(m.resolve_us, -1) / 1000.0 AS resolve_ms,
    nullif(m.connect_us, -1) / 1000.0 AS connect_ms,
    nullif(m.tls_us, -1) / 1000.0 AS tls_ms,
    nullif(m.processing_us, -1) / 1000.0 AS processing_ms,
    nullif(m.transfer_us, -1) / 1000.0 AS transfer_ms,
    m.total_us / 1000.0 AS total_ms
FROM metrics AS m
LEFT JOIN endpoints AS e USING (endpoint_id)
LEFT JOIN failure_classes AS f ON f.code = m.failure
WHERE m.outcome = 2;

-- Every endpoint with what its last probe found; outcome is null for one that has not been probed yet.
CREATE VIEW latest AS
SELECT
    e.endpoint_id,
    e.name,
    e.url,
    s.ts,
    s.since,
    o.name AS outcome,
    f.name AS failure,
    nullif(s.status, 0) AS status,
    nullif(s.resolve_us, -1) / 1000.0 AS resolve_ms,
    nullif(s.connect_us, -1) / 1000.0 AS connect_ms,
    nullif(s.tls_us, -1) / 1000.0 AS tls_ms,
    nullif(s.processing_us, -1) / 1000.0 AS processing_ms,
    nullif(s.transfer_us, -1) / 1000.0 AS transfer_ms,
    nullif(s.total_us, -1) / 1000.0 AS total_ms
FROM endpoints AS e
LEFT JOIN endpoint_state AS s USING (endpoint_id)
LEFT JOIN outcomes AS o ON o.code = s.outcome
LEFT JOIN failure_classes AS f ON f.code = s.failure
WHERE e.enabled;
