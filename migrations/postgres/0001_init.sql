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
    code smallint PRIMARY KEY,
    name text NOT NULL UNIQUE
);

INSERT INTO body_matches (code, name) VALUES
    (0, 'not_asked'),
    (1, 'matched'),
    (2, 'not_matched'),
    (3, 'not_evaluated'),
    (4, 'no_verdict');

-- The cipher suites that we speak, by IANA's numbers; there is no unsigned type, so those from 0x8000 are negative.
CREATE TABLE tls_ciphers (
    code    smallint PRIMARY KEY,
    version text NOT NULL,
    name    text NOT NULL UNIQUE
);

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
    basic_auth            jsonb CHECK (basic_auth IS NULL OR (jsonb_typeof(basic_auth) = 'object' AND bearer IS NULL)),
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

-- One row per due slot. 92 bytes of data without padding, nothing null (-1: this phase did not happen), and
-- no key, foreign key or trigger: each would cost more than the row. Exactly once is ingest_cursor's task.
-- Partitions are made ahead by the writer; there is no default partition, because it would forbid detaching
-- the others without a lock.
CREATE TABLE metrics (
    -- The scheduled time of the slot.
    ts            timestamptz NOT NULL,
    -- The address connected to, last, as two halves of 64 bits; IPv4 as ::ffff:a.b.c.d, 0 and 0 if there was none.
    address_hi    bigint NOT NULL,
    address_lo    bigint NOT NULL,
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
    flags         integer NOT NULL,
    status        smallint NOT NULL,
    outcome       smallint NOT NULL,
    failure       smallint NOT NULL,
    tls_cipher    smallint NOT NULL,
    -- Which pattern decided a mismatch: its place among body_match, then body_forbid; -1 for none.
    pattern       smallint NOT NULL,
    -- Redirects followed.
    redirects     smallint NOT NULL,
    -- Which attempt this was, from 1; 0 where retries are off.
    attempt       smallint NOT NULL,
    -- What became of the body patterns.
    body          smallint NOT NULL
) PARTITION BY RANGE (ts);

-- Rows arrive in order of time, so block ranges find them at a thousandth of a B-tree's size and cost. The
-- writer has them summarised once a minute: autosummarize asks autovacuum for each range, whose list holds
-- 256 requests, and fills the server's log with the rest.
CREATE INDEX metrics_ts ON metrics USING brin (ts) WITH (pages_per_range = 32);

-- The hops and attempts of probes that followed redirects or were tried again: the same columns, about one of
-- them, and the number of the step. A probe that did neither has none here, and a slot's sample is never here.
CREATE TABLE steps (
    ts            timestamptz NOT NULL,
    address_hi    bigint NOT NULL,
    address_lo    bigint NOT NULL,
    endpoint_id   integer NOT NULL,
    lag_us        integer NOT NULL,
    resolve_us    integer NOT NULL,
    connect_us    integer NOT NULL,
    tls_us        integer NOT NULL,
    processing_us integer NOT NULL,
    transfer_us   integer NOT NULL,
    total_us      integer NOT NULL,
    agent_us      integer NOT NULL,
    bytes_in      integer NOT NULL,
    bytes_out     integer NOT NULL,
    cpu_ns        integer NOT NULL,
    flags         integer NOT NULL,
    status        smallint NOT NULL,
    outcome       smallint NOT NULL,
    failure       smallint NOT NULL,
    tls_cipher    smallint NOT NULL,
    pattern       smallint NOT NULL,
    redirects     smallint NOT NULL,
    attempt       smallint NOT NULL,
    body          smallint NOT NULL,
    -- From 1, in the order in which they were made.
    step          smallint NOT NULL
) PARTITION BY RANGE (ts);

CREATE INDEX steps_ts ON steps USING brin (ts) WITH (pages_per_range = 32);

-- What the last probe of each endpoint found: written when that changes, and once a minute when it does not.
CREATE TABLE endpoint_state (
    endpoint_id   integer PRIMARY KEY,
    ts            timestamptz NOT NULL,
    -- Since when the outcome is what it is.
    since         timestamptz NOT NULL,
    -- Until when the origin's certificate is valid; null without TLS.
    tls_not_after timestamptz,
    -- Where the probe connected to, last; null if it did not.
    address       inet,
    resolve_us    integer NOT NULL,
    connect_us    integer NOT NULL,
    tls_us        integer NOT NULL,
    processing_us integer NOT NULL,
    transfer_us   integer NOT NULL,
    total_us      integer NOT NULL,
    outcome       smallint NOT NULL,
    failure       smallint NOT NULL,
    status        smallint NOT NULL,
    tls_cipher    smallint NOT NULL
) WITH (fillfactor = 50); -- Room for updates on the same page: no index is touched.

-- Ingest ---------------------------------------------------------------------------------------------------

-- How far each writer has come. Updated in the transaction that stores the rows, so that a batch whose
-- COMMIT was not answered is known to be stored, or not, when the writer asks again.
CREATE TABLE ingest_cursor (
    writer_id  uuid PRIMARY KEY,
    seq        bigint NOT NULL,
    -- Rows stored by this writer: sum(rows) is count(metrics) while nothing is past retention.
    rows       bigint NOT NULL DEFAULT 0,
    -- The same of steps.
    steps      bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Rows that were dropped. No data is not "down".
CREATE TABLE ingest_gaps (
    writer_id   uuid NOT NULL,
    from_ts     timestamptz NOT NULL,
    to_ts       timestamptz NOT NULL,
    rows        bigint NOT NULL CHECK (rows >= 0),
    -- Steps dropped with them.
    steps       bigint NOT NULL DEFAULT 0 CHECK (rows + steps > 0),
    -- queue_full: the database was away for too long; rejected: it refused the rows.
    reason      text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

-- For people -----------------------------------------------------------------------------------------------

-- An address from its two halves; IPv4 as itself, null for none.
CREATE FUNCTION address_of(hi bigint, lo bigint) RETURNS inet LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN hi = 0 AND lo = 0 THEN NULL
        WHEN hi = 0 AND lo >> 32 = 65535 THEN inet '0.0.0.0' + (lo & 4294967295)
        ELSE regexp_replace(
            lpad(to_hex(hi), 16, '0') || lpad(to_hex(lo), 16, '0'), '(....)(?!$)', '\1:', 'g')::inet
    END
$$;

CREATE VIEW samples AS
SELECT
    m.ts,
    m.endpoint_id,
    e.name,
    e.url,
    o.name AS outcome,
    f.name AS failure,
    nullif(m.status, 0) AS status,
    address_of(m.address_hi, m.address_lo) AS address,
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
    coalesce(c.name, nullif(m.tls_cipher, 0)::text) AS tls_cipher,
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
    m.ts,
    m.endpoint_id,
    e.name,
    e.url,
    m.step,
    o.name AS outcome,
    f.name AS failure,
    nullif(m.status, 0) AS status,
    address_of(m.address_hi, m.address_lo) AS address,
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
    coalesce(c.name, nullif(m.tls_cipher, 0)::text) AS tls_cipher,
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
    s.ts,
    s.since,
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
    s.tls_not_after,
    round(extract(epoch FROM s.tls_not_after - now()) / 86400, 1) AS tls_days_left
FROM endpoints AS e
LEFT JOIN endpoint_state AS s ON s.endpoint_id = e.endpoint_id
LEFT JOIN outcomes AS o ON o.code = s.outcome
LEFT JOIN failure_classes AS f ON f.code = s.failure
LEFT JOIN tls_ciphers AS c ON c.code = s.tls_cipher
WHERE e.enabled;
