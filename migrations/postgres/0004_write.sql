-- How long the request took to leave, until the kernel had its last byte: the first part of processing_us, and no
-- phase of its own. -1 where nothing was asked, and in rows that are older than this column.

INSERT INTO failure_classes (code, name) VALUES (205, 'no_source');

-- Behind the last column there was no padding left: a row is 8 bytes wider on disk, 128 instead of 120.
ALTER TABLE metrics ADD COLUMN write_us integer NOT NULL DEFAULT -1;
ALTER TABLE steps ADD COLUMN write_us integer NOT NULL DEFAULT -1;
ALTER TABLE endpoint_state ADD COLUMN write_us integer NOT NULL DEFAULT -1;

CREATE OR REPLACE VIEW samples AS
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
    m.flags & 512 <> 0 AS tainted,
    m.twin,
    nullif(m.write_us, -1) / 1000.0 AS write_ms
FROM metrics AS m
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure
LEFT JOIN tls_ciphers AS c ON c.code = m.tls_cipher
LEFT JOIN body_matches AS b ON b.code = m.body;

CREATE OR REPLACE VIEW sample_steps AS
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
    m.flags & 512 <> 0 AS tainted,
    m.twin,
    nullif(m.write_us, -1) / 1000.0 AS write_ms
FROM steps AS m
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure
LEFT JOIN tls_ciphers AS c ON c.code = m.tls_cipher
LEFT JOIN body_matches AS b ON b.code = m.body;

CREATE OR REPLACE VIEW failures AS
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
    attempt,
    write_ms
FROM samples
WHERE outcome = 'down';

CREATE OR REPLACE VIEW latest AS
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
    round(extract(epoch FROM s.tls_not_after - now()) / 86400, 1) AS tls_days_left,
    nullif(s.write_us, -1) / 1000.0 AS write_ms
FROM endpoints AS e
LEFT JOIN endpoint_state AS s ON s.endpoint_id = e.endpoint_id
LEFT JOIN outcomes AS o ON o.code = s.outcome
LEFT JOIN failure_classes AS f ON f.code = s.failure
LEFT JOIN tls_ciphers AS c ON c.code = s.tls_cipher
WHERE e.enabled;
