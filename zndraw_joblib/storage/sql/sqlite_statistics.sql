-- Statements of the sweeper's statistics for SQLite; postgresql_statistics.sql explains them.

-- name: read_horizon
-- SQLite has one writer at a time, which reads the time after it has the lock. So whatever was
-- written before now is committed as soon as the sweeper has the lock itself.
SELECT STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000',
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000';

-- name: count_backlogs
SELECT job_id, SUM(due_at <= now), SUM(due_at > now), MIN(CASE WHEN due_at <= now THEN due_at END)
FROM zndraw_joblib_task
CROSS JOIN (SELECT REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '') AS now)
WHERE status = 'pending' GROUP BY job_id;

-- name: count_leased
SELECT job_id, SUM(status = 'claimed'), SUM(status = 'running')
FROM zndraw_joblib_task WHERE status IN ('claimed', 'running') GROUP BY job_id;

-- name: read_held
SELECT id, worker_id, job_id, status, started_at FROM zndraw_joblib_task
WHERE worker_id IN (SELECT value FROM json_each(%(worker_ids)s)) AND status IN ('claimed', 'running')
LIMIT %(limit)s;
