-- Questions to a store, in the SQL that PostgreSQL and SQLite have in common. Each is a comment and a statement,
-- apart by an empty line; scripts/demo runs them in this order. The views are described in docs/store.md.

-- How did it go: what became of the slots that were due?
SELECT outcome, coalesce(failure, '') AS failure, count(*) AS slots,
       round(min(total_ms), 3) AS min_ms, round(avg(total_ms), 3) AS mean_ms, round(max(total_ms), 3) AS max_ms
FROM samples
GROUP BY outcome, failure
ORDER BY slots DESC;

-- Whose fault is it: where did the slowest ten endpoints spend their time, on average?
SELECT name, count(*) AS probes, round(avg(total_ms), 3) AS total_ms, round(avg(connect_ms), 3) AS connect_ms,
       round(avg(processing_ms), 3) AS processing_ms, round(avg(transfer_ms), 3) AS transfer_ms,
       round(avg(agent_ms), 3) AS agent_ms
FROM samples
WHERE outcome <> 'missed'
GROUP BY name
ORDER BY avg(total_ms) DESC, name
LIMIT 10;

-- Were we on time: how late after their slot did probes start?
SELECT CASE WHEN lag_ms < 0.1 THEN '1: below 0.1 ms' WHEN lag_ms < 0.5 THEN '2: 0.1 to 0.5 ms'
            WHEN lag_ms < 2 THEN '3: 0.5 to 2 ms' WHEN lag_ms < 10 THEN '4: 2 to 10 ms'
            ELSE '5: above 10 ms' END AS late,
       count(*) AS probes, round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent
FROM samples
WHERE outcome <> 'missed'
GROUP BY 1
ORDER BY 1;
