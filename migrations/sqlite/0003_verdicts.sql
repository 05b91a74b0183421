-- What the prober says of its own numbers: of each minute of a run, and of each run as a whole.

CREATE TABLE verdicts (
    writer_id      TEXT NOT NULL,
    -- When it begins, µs since the Unix epoch.
    ts             INTEGER NOT NULL,
    span_ms        INTEGER NOT NULL CHECK (span_ms >= 0),
    -- 1: a run as a whole; 0: a minute of it.
    whole_run      INTEGER NOT NULL CHECK (whole_run IN (0, 1)),
    valid          INTEGER NOT NULL CHECK (valid IN (0, 1)),
    -- Why not, as a JSON array; empty if valid.
    reasons        TEXT NOT NULL CHECK (json_valid(reasons)),
    due            INTEGER NOT NULL,
    sampled        INTEGER NOT NULL,
    missed         INTEGER NOT NULL,
    dropped        INTEGER NOT NULL,
    lag_p99_us     INTEGER NOT NULL,
    agent_p99_us   INTEGER NOT NULL,
    -- Null without a canary.
    canary_p99_us  INTEGER,
    -- CPU time that the host gave to others.
    stolen_percent REAL NOT NULL,
    clock_steps    INTEGER NOT NULL,
    PRIMARY KEY (writer_id, ts, whole_run)
) STRICT;
