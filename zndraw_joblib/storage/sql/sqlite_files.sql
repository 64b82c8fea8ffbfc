-- The statement about uploads on SQLite. postgresql_files.sql has the same name; see there for the
-- reason, and sqlite.sql for the rules that hold for all of them.

-- name: renew_attempt
UPDATE zndraw_joblib_task
SET lease_expires_at = COALESCE(MIN(REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''), REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', started_at, timeout_seconds || ' seconds') || '000', '.000000', '')), REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', '')),
    revision = revision + %(changes)s,
    changed_at = CASE WHEN %(changes)s > 0
        THEN REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
        ELSE changed_at END
WHERE id = %(id)s AND attempt = %(attempt)s AND status IN ('claimed', 'running')
    AND worker_identity = COALESCE(%(identity)s, worker_identity)
RETURNING *,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = job_id) AS job_name;
