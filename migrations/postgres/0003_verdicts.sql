-- What the prober says of its own numbers: of each minute of a run, and of each run as a whole.

CREATE TABLE verdicts (
    writer_id      uuid NOT NULL,
    -- When it begins.
    ts             timestamptz NOT NULL,
    span_ms        bigint NOT NULL CHECK (span_ms >= 0),
    -- A run as a whole; else a minute of it.
    whole_run      boolean NOT NULL,
    valid          boolean NOT NULL,
    -- Why not; empty if valid.
    reasons        text[] NOT NULL,
    due            bigint NOT NULL,
    sampled        bigint NOT NULL,
    missed         bigint NOT NULL,
    dropped        bigint NOT NULL,
    lag_p99_us     bigint NOT NULL,
    agent_p99_us   bigint NOT NULL,
    -- Null without a canary.
    canary_p99_us  bigint,
    -- CPU time that the host gave to others.
    stolen_percent real NOT NULL,
    clock_steps    bigint NOT NULL,
    PRIMARY KEY (writer_id, ts, whole_run)
);
