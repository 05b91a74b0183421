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
    (35, 'tls_not_yet_valid'),
    (36, 'tls_chain'),
    (37, 'tls_alert'),
    (40, 'send_failed'),
    (41, 'ttfb_timeout'),
    (42, 'transfer_timeout'),
    (43, 'total_timeout'),
    (44, 'closed_early'),
    (45, 'reset'),
    (46, 'idle_timeout'),
    (50, 'malformed_response'),
    (51, 'head_too_large'),
    (52, 'body_too_large'),
    (53, 'decode_failed'),
    (60, 'status_unexpected'),
    (61, 'body_mismatch'),
    (62, 'body_forbidden'),
    (63, 'body_no_verdict'),
    (64, 'header_mismatch'),
    (65, 'too_slow'),
    (66, 'version_unexpected'),
    (67, 'cert_expiring'),
    (68, 'up_unexpected'),
    (70, 'too_many_redirects'),
    (71, 'redirect_blocked'),
    (72, 'redirect_loop'),
    (73, 'redirect_invalid'),
    (80, 'policy_blocked'),
    (200, 'overlap'),
    (201, 'inflight_limit'),
    (202, 'late'),
    (203, 'origin_limit'),
    (204, 'overload');

-- What became of the body patterns.
CREATE TABLE body_matches (
    code INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO body_matches (code, name) VALUES
    (0, 'not_asked'),
    (1, 'matched'),
    (2, 'not_matched'),
    (3, 'not_evaluated'),
    (4, 'no_verdict');

-- The cipher suites that we speak, by IANA's numbers; there is no unsigned type, so those from 0x8000 are negative.
CREATE TABLE tls_ciphers (
    code    INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    name    TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO tls_ciphers (code, version, name) VALUES
    (4865, '1.3', 'TLS_AES_128_GCM_SHA256'),
    (4866, '1.3', 'TLS_AES_256_GCM_SHA384'),
    (4867, '1.3', 'TLS_CHACHA20_POLY1305_SHA256'),
    (-16341, '1.2', 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256'),
    (-16340, '1.2', 'TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384'),
    (-16337, '1.2', 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256'),
    (-16336, '1.2', 'TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384'),
    (-13144, '1.2', 'TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256'),
    (-13143, '1.2', 'TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256');

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
    basic_auth            TEXT CHECK (basic_auth IS NULL OR (json_type(basic_auth) = 'object' AND bearer IS NULL)),
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
    address_hi    INTEGER NOT NULL,
    address_lo    INTEGER NOT NULL,
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
    flags         INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    outcome       INTEGER NOT NULL,
    failure       INTEGER NOT NULL,
    tls_cipher    INTEGER NOT NULL,
    pattern       INTEGER NOT NULL,
    redirects     INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    body          INTEGER NOT NULL
) STRICT;

-- The hops and attempts of probes that followed redirects or were tried again.
CREATE TABLE steps (
    ts            INTEGER NOT NULL,
    address_hi    INTEGER NOT NULL,
    address_lo    INTEGER NOT NULL,
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
    flags         INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    outcome       INTEGER NOT NULL,
    failure       INTEGER NOT NULL,
    tls_cipher    INTEGER NOT NULL,
    pattern       INTEGER NOT NULL,
    redirects     INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    body          INTEGER NOT NULL,
    -- From 1, in the order in which they were made.
    step          INTEGER NOT NULL
) STRICT;

-- What the last probe of each endpoint found: written when that changes, and once a minute when it does not.
CREATE TABLE endpoint_state (
    endpoint_id   INTEGER PRIMARY KEY,
    ts            INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    tls_not_after INTEGER,
    address       TEXT,
    resolve_us    INTEGER NOT NULL,
    connect_us    INTEGER NOT NULL,
    tls_us        INTEGER NOT NULL,
    processing_us INTEGER NOT NULL,
    transfer_us   INTEGER NOT NULL,
    total_us      INTEGER NOT NULL,
    outcome       INTEGER NOT NULL,
    failure       INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    tls_cipher    INTEGER NOT NULL
) STRICT;

-- Ingest ---------------------------------------------------------------------------------------------------

CREATE TABLE ingest_cursor (
    -- A UUID as text.
    writer_id  TEXT PRIMARY KEY,
    seq        INTEGER NOT NULL,
    rows       INTEGER NOT NULL DEFAULT 0,
    steps      INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE ingest_gaps (
    writer_id   TEXT NOT NULL,
    from_ts     INTEGER NOT NULL,
    to_ts       INTEGER NOT NULL,
    rows        INTEGER NOT NULL CHECK (rows >= 0),
    steps       INTEGER NOT NULL DEFAULT 0 CHECK (rows + steps > 0),
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
    CASE
        WHEN m.address_hi = 0 AND m.address_lo = 0 THEN NULL
        WHEN m.address_hi = 0 AND m.address_lo >> 32 = 65535 THEN printf('%d.%d.%d.%d', (m.address_lo >> 24) & 255,
            (m.address_lo >> 16) & 255, (m.address_lo >> 8) & 255, m.address_lo & 255)
        ELSE printf('%x:%x:%x:%x:%x:%x:%x:%x',
            (m.address_hi >> 48) & 65535, (m.address_hi >> 32) & 65535,
            (m.address_hi >> 16) & 65535, m.address_hi & 65535,
            (m.address_lo >> 48) & 65535, (m.address_lo >> 32) & 65535,
            (m.address_lo >> 16) & 65535, m.address_lo & 65535)
    END AS address,
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
    c.version AS tls_version,
    coalesce(c.name, nullif(m.tls_cipher, 0)) AS tls_cipher,
    b.name AS body,
    nullif(m.pattern, -1) AS pattern,
    m.redirects,
    nullif(m.attempt, 0) AS attempt,
    m.flags & 1 <> 0 AS reuse,
    m.flags & 2 <> 0 AS reused,
    m.flags & 4 <> 0 AS censored,
    m.flags & 8 <> 0 AS user_time,
    m.flags & 16 <> 0 AS tls,
    m.flags & 32 <> 0 AS tls_resumed,
    m.flags & 64 <> 0 AS dns_stale,
    m.flags & 128 <> 0 AS dns_asked,
    m.flags & 256 <> 0 AS stopped,
    m.flags & 512 <> 0 AS tainted
FROM metrics AS m
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure
LEFT JOIN tls_ciphers AS c ON c.code = m.tls_cipher
LEFT JOIN body_matches AS b ON b.code = m.body;

-- Each hop and each attempt of a probe, in order of `step`; redirects are those before it.
CREATE VIEW sample_steps AS
SELECT
    strftime('%Y-%m-%d %H:%M:%f', m.ts / 1e6, 'unixepoch') AS ts,
    m.endpoint_id,
    e.name,
    e.url,
    m.step,
    o.name AS outcome,
    f.name AS failure,
    nullif(m.status, 0) AS status,
    CASE
        WHEN m.address_hi = 0 AND m.address_lo = 0 THEN NULL
        WHEN m.address_hi = 0 AND m.address_lo >> 32 = 65535 THEN printf('%d.%d.%d.%d', (m.address_lo >> 24) & 255,
            (m.address_lo >> 16) & 255, (m.address_lo >> 8) & 255, m.address_lo & 255)
        ELSE printf('%x:%x:%x:%x:%x:%x:%x:%x',
            (m.address_hi >> 48) & 65535, (m.address_hi >> 32) & 65535,
            (m.address_hi >> 16) & 65535, m.address_hi & 65535,
            (m.address_lo >> 48) & 65535, (m.address_lo >> 32) & 65535,
            (m.address_lo >> 16) & 65535, m.address_lo & 65535)
    END AS address,
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
    c.version AS tls_version,
    coalesce(c.name, nullif(m.tls_cipher, 0)) AS tls_cipher,
    b.name AS body,
    nullif(m.pattern, -1) AS pattern,
    m.redirects,
    nullif(m.attempt, 0) AS attempt,
    m.flags & 1 <> 0 AS reuse,
    m.flags & 2 <> 0 AS reused,
    m.flags & 4 <> 0 AS censored,
    m.flags & 8 <> 0 AS user_time,
    m.flags & 16 <> 0 AS tls,
    m.flags & 32 <> 0 AS tls_resumed,
    m.flags & 64 <> 0 AS dns_stale,
    m.flags & 128 <> 0 AS dns_asked,
    m.flags & 256 <> 0 AS stopped,
    m.flags & 512 <> 0 AS tainted
FROM steps AS m
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure
LEFT JOIN tls_ciphers AS c ON c.code = m.tls_cipher
LEFT JOIN body_matches AS b ON b.code = m.body;

-- What went wrong, when. Give it a span of ts: it looks at every row in it.
CREATE VIEW failures AS
SELECT
    ts,
    endpoint_id,
    name,
    url,
    failure,
    status,
    address,
    resolve_ms,
    connect_ms,
    tls_ms,
    processing_ms,
    transfer_ms,
    total_ms,
    body,
    pattern,
    redirects,
    attempt
FROM samples
WHERE outcome = 'down';

-- Every endpoint with what its last probe found; outcome is null for one that has not been probed yet.
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
    s.address,
    nullif(s.resolve_us, -1) / 1000.0 AS resolve_ms,
    nullif(s.connect_us, -1) / 1000.0 AS connect_ms,
    nullif(s.tls_us, -1) / 1000.0 AS tls_ms,
    nullif(s.processing_us, -1) / 1000.0 AS processing_ms,
    nullif(s.transfer_us, -1) / 1000.0 AS transfer_ms,
    nullif(s.total_us, -1) / 1000.0 AS total_ms,
    c.version AS tls_version,
    c.name AS tls_cipher,
    strftime('%Y-%m-%d %H:%M:%f', s.tls_not_after / 1e6, 'unixepoch') AS tls_not_after,
    round(s.tls_not_after / 86400e6 - unixepoch() / 86400.0, 1) AS tls_days_left
FROM endpoints AS e
LEFT JOIN endpoint_state AS s ON s.endpoint_id = e.endpoint_id
LEFT JOIN outcomes AS o ON o.code = s.outcome
LEFT JOIN failure_classes AS f ON f.code = s.failure
LEFT JOIN tls_ciphers AS c ON c.code = s.tls_cipher
WHERE e.enabled;
