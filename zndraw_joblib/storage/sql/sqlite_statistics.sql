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
-- The index is named, because SQLite would read all tasks in the order of another one for the GROUP BY.
SELECT job_id, SUM(status = 'claimed'), SUM(status = 'running')
FROM zndraw_joblib_task INDEXED BY joblib_task_lease WHERE status IN ('claimed', 'running') GROUP BY job_id;
