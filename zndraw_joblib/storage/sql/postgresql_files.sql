-- The statement about uploads on PostgreSQL. See postgresql.sql for how this file is read and for the
-- rules that hold for all statements; sqlite_files.sql has the same name.

-- name: renew_attempt
-- Renews the lease of an attempt that is under way, and locks its row until the commit. The fence is
-- that of `start_tasks`. `changes` is the number of changes that a client can see.
UPDATE zndraw_joblib_task AS task
SET lease_expires_at = LEAST(
        STATEMENT_TIMESTAMP() + make_interval(secs => %(lease_seconds)s::float8),
        task.started_at + make_interval(secs => task.timeout_seconds)),
    revision = task.revision + %(changes)s::integer,
    changed_at = CASE WHEN %(changes)s::integer > 0 THEN STATEMENT_TIMESTAMP()
        ELSE task.changed_at END
WHERE task.id = %(id)s::uuid AND task.attempt = %(attempt)s::integer
    AND COALESCE(task.status, '') IN ('claimed', 'running')
    AND task.worker_identity = COALESCE(%(identity)s, task.worker_identity)
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;
