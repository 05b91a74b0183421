-- Which of a slot's probes a row is about. An endpoint that has every address of its name probed has several for one
-- slot, and nothing told their steps apart: not the address, which is that of the hop.

-- From 0, in the order of the addresses. (endpoint_id, ts, twin) is the key of a row, and with the step that of a
-- step's.
-- A row of metrics is as wide on disk as before: there was padding behind its last column.
ALTER TABLE metrics ADD COLUMN twin smallint NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN twin smallint NOT NULL DEFAULT 0;

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
    m.twin
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
    m.twin
FROM steps AS m
LEFT JOIN endpoints AS e ON e.endpoint_id = m.endpoint_id
LEFT JOIN outcomes AS o ON o.code = m.outcome
LEFT JOIN failure_classes AS f ON f.code = m.failure
LEFT JOIN tls_ciphers AS c ON c.code = m.tls_cipher
LEFT JOIN body_matches AS b ON b.code = m.body;
