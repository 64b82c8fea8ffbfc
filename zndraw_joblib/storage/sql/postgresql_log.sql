-- Statements about the logs of tasks on PostgreSQL. See postgresql.sql for how this file is read and
-- for the rules that hold for all statements; sqlite_log.sql has the same names.

-- name: extend_log
-- Makes room for %(size)s more bytes in the log of a claimed or running task, and renews its lease.
-- The fence is that of `start_tasks`. The lock on the row lasts until the commit, so that concurrent
-- writes of one task are stored one after the other. `revision` stays, because a log write is not a
-- change that clients wait for.
UPDATE zndraw_joblib_task AS task
SET log_size = task.log_size + %(size)s::bigint,
    lease_expires_at = LEAST(
        STATEMENT_TIMESTAMP() + make_interval(secs => %(lease_seconds)s::float8),
        task.started_at + make_interval(secs => task.timeout_seconds))
WHERE task.id = %(id)s::uuid AND COALESCE(task.status, '') IN ('claimed', 'running')
    AND task.attempt = %(attempt)s::integer
    AND task.worker_identity = COALESCE(%(identity)s, task.worker_identity)
RETURNING task.log_size, task.worker_id;

-- name: read_log
-- The chunks of a task's log from %(first)s on, for %(limit)s bytes. `first` in the answer is moved to
-- the first byte that is kept, or to the end of the log. One statement, because a write between two
-- of them could cut the chunks that the first has found.
WITH wanted AS MATERIALIZED (
    SELECT task.id, task.status, task.log_size, GREATEST(
        LEAST(%(first)s::bigint, task.log_size),
        task.log_size - %(max_bytes)s::bigint,
        (SELECT MIN(kept.start) FROM zndraw_joblib_tasklogchunk kept WHERE kept.task_id = task.id)
    ) AS first
    FROM zndraw_joblib_task task
    WHERE task.id = %(id)s::uuid
)
SELECT wanted.status, wanted.log_size, wanted.first, chunk.start, chunk.text
FROM wanted
LEFT JOIN zndraw_joblib_tasklogchunk chunk ON chunk.task_id = wanted.id
    AND wanted.first < wanted.log_size
    AND chunk.start < wanted.first + %(limit)s::bigint
    AND chunk.start >= (
        SELECT MAX(covering.start) FROM zndraw_joblib_tasklogchunk covering
        WHERE covering.task_id = wanted.id AND covering.start <= wanted.first
    )
ORDER BY chunk.start;
