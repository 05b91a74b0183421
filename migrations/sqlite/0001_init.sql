-- The tables of ringprobe, as ARCHITECTURE.md describes them; migrations/postgres holds the same with more
-- words. Here times are microseconds since 1970 (the views show them as text, UTC), arrays and objects are
-- JSON text, truth is 0 or 1.
--
-- Applied in one transaction together with its row in schema_migrations. Never edited once released: what
-- changes comes in the next file.

-- Codes and names ------------------------------------------------------------------------------------------

CREATE TABLE outcomes (
    code INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO outcomes (code, name) VALUES
    (1, 'up'),
    (2, 'down'),
    (3, 'missed');

-- Both why a probe found its endpoint down (below 200) and why a slot was missed: they share a column.
CREATE TABLE failure_classes (
    code INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

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

CREATE TABLE endpoints (
    -- Autoincrement: the id of a deleted endpoint must not come back, its samples are still there.
    endpoint_id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name                  TEXT NOT NULL UNIQUE CHECK (name <> ''),
    url                   TEXT NOT NULL,
    interval_ms           INTEGER NOT NULL DEFAULT 60000 CHECK (interval_ms BETWEEN 100 AND 86400000),
    enabled               INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    priority              INTEGER NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    method                TEXT NOT NULL DEFAULT 'GET',
    headers               TEXT NOT NULL DEFAULT '[]' CHECK (json_type(headers) = 'array'),
    secret_headers        TEXT NOT NULL DEFAULT '[]' CHECK (json_type(secret_headers) = 'array'),
    body                  BLOB NOT NULL DEFAULT x'',
    basic_auth            TEXT CHECK (json_type(basic_auth) = 'object' AND bearer IS NULL),
    bearer                TEXT CHECK (bearer GLOB 'env:*' OR bearer GLOB 'file:*' OR bearer GLOB 'cred:*'),
    user_agent            TEXT,
    accept_encoding       TEXT NOT NULL DEFAULT '[]' CHECK (json_type(accept_encoding) = 'array'),
    expect                TEXT NOT NULL DEFAULT 'up' CHECK (expect IN ('up', 'down')),
    expect_status         TEXT NOT NULL DEFAULT '["200-299"]' CHECK (json_type(expect_status) = 'array'),
    expect_headers        TEXT NOT NULL DEFAULT '[]' CHECK (json_type(expect_headers) = 'array'),
    expect_version        TEXT CHECK (expect_version IN ('1.0', '1.1')),
    expect_within_ms      INTEGER CHECK (expect_within_ms BETWEEN 1 AND 300000),
    body_match            TEXT NOT NULL DEFAULT '[]' CHECK (json_type(body_match) = 'array'),
    body_forbid           TEXT NOT NULL DEFAULT '[]' CHECK (json_type(body_forbid) = 'array'),
    body_limit_bytes      INTEGER NOT NULL DEFAULT 10485760 CHECK (body_limit_bytes BETWEEN 1 AND 1073741824),
    body_stop             INTEGER NOT NULL DEFAULT 0 CHECK (body_stop IN (0, 1)),
    charset               TEXT NOT NULL DEFAULT 'raw' CHECK (charset IN ('raw', 'auto')),
    cert_expires_within_s INTEGER CHECK (cert_expires_within_s BETWEEN 1 AND 315360000),
    redirects             INTEGER NOT NULL DEFAULT 10 CHECK (redirects BETWEEN 0 AND 20),
    redirect_downgrade    INTEGER NOT NULL DEFAULT 0 CHECK (redirect_downgrade IN (0, 1)),
    timeout_ms            INTEGER NOT NULL DEFAULT 10000 CHECK (timeout_ms BETWEEN 1 AND 300000),
    resolve_timeout_ms    INTEGER CHECK (resolve_timeout_ms BETWEEN 1 AND 300000),
    connect_timeout_ms    INTEGER CHECK (connect_timeout_ms BETWEEN 1 AND 300000),
    tls_timeout_ms        INTEGER CHECK (tls_timeout_ms BETWEEN 1 AND 300000),
    ttfb_timeout_ms       INTEGER CHECK (ttfb_timeout_ms BETWEEN 1 AND 300000),
    idle_timeout_ms       INTEGER CHECK (idle_timeout_ms BETWEEN 1 AND 300000),
    retries               INTEGER NOT NULL DEFAULT 0 CHECK (retries BETWEEN 0 AND 5),
    dns                   TEXT NOT NULL DEFAULT 'cached' CHECK (dns IN ('cached', 'every')),
    expand                TEXT NOT NULL DEFAULT 'one' CHECK (expand IN ('one', 'all')),
    family                TEXT NOT NULL DEFAULT 'any' CHECK (family IN ('any', 'prefer4', 'prefer6', '4', '6')),
    address               TEXT,
    source                TEXT,
    connection            TEXT NOT NULL DEFAULT 'fresh' CHECK (connection IN ('fresh', 'reuse')),
    close                 TEXT NOT NULL DEFAULT 'peer' CHECK (close IN ('peer', 'fin', 'rst')),
    tls                   TEXT CHECK (json_type(tls) = 'object'),
    tags                  TEXT NOT NULL DEFAULT '{}' CHECK (json_type(tags) = 'object'),
    revision              INTEGER NOT NULL DEFAULT 0,
    updated_at            INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Samples --------------------------------------------------------------------------------------------------

-- One row per due slot, in order of arrival: retention deletes from the front, by rowid. No index: one on
-- (endpoint_id, ts) costs more than the rows, and endpoint_state answers the commonest question.
CREATE TABLE metrics (
    ts            INTEGER NOT NULL,
    endpoint_id   INTEGER NOT NULL,
    lag_us        INTEGER NOT NULL,
    resolve_us    INTEGER NOT NULL,
    connect_us    INTEGER NOT NULL,
    tls_us        INTEGER NOT NULL,
    processing_us INTEGER NOT NULL,
    transfer_us   INTEGER NOT NULL,
    total_us      INTEGER NOT NULL,
    agent_us      INTEGER NOT NULL,
    bytes_in      INTEGER NOT NULL,
    bytes_out     INTEGER NOT NULL,
    cpu_ns        INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    outcome       INTEGER NOT NULL,
    failure       INTEGER NOT NULL,
    flags         INTEGER NOT NULL
) STRICT;

-- What the last probe of each endpoint found: written when that changes, and once a minute when it does not.
CREATE TABLE endpoint_state (
    endpoint_id   INTEGER PRIMARY KEY,
    ts            INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    outcome       INTEGER NOT NULL,
    failure       INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    resolve_us    INTEGER NOT NULL,
    connect_us    INTEGER NOT NULL,
    tls_us        INTEGER NOT NULL,
    processing_us INTEGER NOT NULL,
    transfer_us   INTEGER NOT NULL,
    total_us      INTEGER NOT NULL
) STRICT;

-- Ingest ---------------------------------------------------------------------------------------------------

CREATE TABLE ingest_cursor (
    -- A UUID as text.
    writer_id  TEXT PRIMARY KEY,
    seq        INTEGER NOT NULL,
    rows       INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE ingest_gaps (
    writer_id   TEXT NOT NULL,
    from_ts     INTEGER NOT NULL,
    to_ts       INTEGER NOT NULL,
    rows        INTEGER NOT NULL CHECK (rows > 0),
    reason      TEXT NOT NULL,
    recorded_at INTEGER NOT NULL DEFAULT 0
) STRICT;

-- For people -----------------------------------------------------------------------------------------------

CREATE VIEW samples AS
SELECT
    strftime('%Y-%m-%d %H:%M:%f', m.ts / 1e6, 'unixepoch') AS ts,
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
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure;

CREATE VIEW failures AS
SELECT
    strftime('%Y-%m-%d %H:%M:%f', m.ts / 1e6, 'unixepoch') AS ts,
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
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN failure_classes AS f ON f.code = m.failure
WHERE m.outcome = 2;

CREATE VIEW latest AS
SELECT
    e.endpoint_id,
    e.name,
    e.url,
    strftime('%Y-%m-%d %H:%M:%f', s.ts / 1e6, 'unixepoch') AS ts,
    strftime('%Y-%m-%d %H:%M:%f', s.since / 1e6, 'unixepoch') AS since,
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
LEFT JOIN endpoint_state AS s ON s.endpoint_id = e.endpoint_id
LEFT JOIN outcomes AS o ON o.code = s.outcome
LEFT JOIN failure_classes AS f ON f.code = s.failure
WHERE e.enabled;
