-- Statements about the logs of tasks on SQLite. postgresql_log.sql has the same names; see there for
-- the reason of each, and sqlite.sql for the rules that hold for all of them.

-- name: extend_log
UPDATE zndraw_joblib_task
SET log_size = log_size + %(size)s,
    lease_expires_at = COALESCE(MIN(REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''), REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', started_at, timeout_seconds || ' seconds') || '000', '.000000', '')), REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''))
WHERE id = %(id)s AND status IN ('claimed', 'running')
    AND attempt = %(attempt)s
    AND worker_identity = COALESCE(%(identity)s, worker_identity)
RETURNING log_size, worker_id;

-- name: read_log
WITH wanted AS MATERIALIZED (
    SELECT task.id, task.status, task.log_size, MAX(
        MIN(%(first)s, task.log_size),
        task.log_size - %(max_bytes)s,
        COALESCE((
            SELECT MIN(kept.start) FROM zndraw_joblib_tasklogchunk kept WHERE kept.task_id = task.id
        ), 0)
    ) AS first
    FROM zndraw_joblib_task task
    WHERE task.id = %(id)s
)
SELECT wanted.status, wanted.log_size, wanted.first, chunk.start, chunk.text
FROM wanted
LEFT JOIN zndraw_joblib_tasklogchunk chunk ON chunk.task_id = wanted.id
    AND wanted.first < wanted.log_size
    AND chunk.start < wanted.first + %(limit)s
    AND chunk.start >= (
        SELECT MAX(covering.start) FROM zndraw_joblib_tasklogchunk covering
        WHERE covering.task_id = wanted.id AND covering.start <= wanted.first
    )
ORDER BY chunk.start;
