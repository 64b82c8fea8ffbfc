-- Statements about the attempts of tasks on SQLite. postgresql_life.sql has the same names; see there
-- for the reason of each, and sqlite.sql for the rules that hold for all of them.

-- name: lock_reported
SELECT held.id, held.attempt, held.status, held.worker_id, held.retries, held.retries_left,
    held.timeout_seconds,
    COALESCE(
        REPLACE(
            STRFTIME(
                '%Y-%m-%d %H:%M:%f', held.started_at, held.timeout_seconds || ' seconds')
            || '000', '.000000', '')
        <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
        0) AS is_timed_out,
    job.backoff_seconds, job.backoff_factor, job.max_backoff_seconds
FROM json_each(%(reports)s) report
JOIN zndraw_joblib_task held ON held.id = json_extract(report.value, '$.id')
JOIN zndraw_joblib_job job ON job.id = held.job_id
WHERE held.status IN (SELECT value FROM json_each(report.value, '$.legal_from'))
    AND held.attempt = COALESCE(json_extract(report.value, '$.attempt'), held.attempt)
    AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity);

-- name: lock_expired
SELECT held.id, held.attempt, held.status, held.worker_id, held.retries, held.retries_left,
    held.timeout_seconds,
    COALESCE(
        REPLACE(
            STRFTIME(
                '%Y-%m-%d %H:%M:%f', held.started_at, held.timeout_seconds || ' seconds')
            || '000', '.000000', '')
        <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
        0) AS is_timed_out,
    job.backoff_seconds, job.backoff_factor, job.max_backoff_seconds
FROM zndraw_joblib_task held
JOIN zndraw_joblib_job job ON job.id = held.job_id
WHERE held.status IN ('claimed', 'running')
    AND held.lease_expires_at
        < REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
LIMIT %(limit)s;

-- name: lock_of_worker
SELECT held.id, held.attempt, held.status, held.worker_id, held.retries, held.retries_left,
    held.timeout_seconds,
    COALESCE(
        REPLACE(
            STRFTIME(
                '%Y-%m-%d %H:%M:%f', held.started_at, held.timeout_seconds || ' seconds')
            || '000', '.000000', '')
        <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
        0) AS is_timed_out,
    job.backoff_seconds, job.backoff_factor, job.max_backoff_seconds
FROM zndraw_joblib_task held
JOIN zndraw_joblib_job job ON job.id = held.job_id
WHERE held.status IN ('claimed', 'running') AND held.worker_id = %(worker_id)s
LIMIT %(limit)s;

-- name: archive_attempts
INSERT INTO zndraw_joblib_taskattempt
    (task_id, attempt, worker_id, claimed_at, started_at, ended_at, outcome, error)
SELECT held.id, held.attempt, held.worker_id, held.claimed_at, held.started_at,
    REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    json_extract(ended.value, '$.outcome'), json_extract(ended.value, '$.attempt_error')
FROM json_each(%(ends)s) ended
JOIN zndraw_joblib_task held ON held.id = json_extract(ended.value, '$.id')
WHERE true
RETURNING task_id;

-- name: end_attempts
UPDATE zndraw_joblib_task
SET status = ended.status,
    error = COALESCE(ended.error, zndraw_joblib_task.error),
    retries_left = ended.retries_left,
    run_at = COALESCE(REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', ended.delay || ' seconds') || '000',
        '.000000', ''), run_at),
    worker_id = CASE WHEN ended.status <> 'pending' THEN worker_id END,
    claimed_at = CASE WHEN ended.status <> 'pending' THEN claimed_at END,
    started_at = CASE WHEN ended.status <> 'pending' THEN started_at END,
    completed_at = CASE WHEN ended.status <> 'pending'
        THEN REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '') END,
    lease_expires_at = NULL,
    revision = revision + 1,
    changed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
FROM (
    SELECT json_extract(value, '$.id') AS id, json_extract(value, '$.status') AS status,
        json_extract(value, '$.error') AS error,
        json_extract(value, '$.retries_left') AS retries_left,
        json_extract(value, '$.delay') AS delay
    FROM json_each(%(ends)s)
) ended
WHERE zndraw_joblib_task.id = ended.id
RETURNING *,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = job_id) AS job_name;

-- name: record_progress
UPDATE zndraw_joblib_task
SET progress = COALESCE(report.progress, zndraw_joblib_task.progress),
    message = COALESCE(report.message, zndraw_joblib_task.message),
    revision = revision + 1,
    changed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    watched_until = CASE WHEN watched_until > REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '') THEN watched_until END,
    lease_expires_at = COALESCE(MIN(REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''), REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', started_at, timeout_seconds || ' seconds') || '000', '.000000', '')), REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''))
FROM (
    SELECT held.id, json_extract(given.value, '$.progress') AS progress,
        json_extract(given.value, '$.message') AS message
    FROM json_each(%(reports)s) given
    JOIN zndraw_joblib_task held ON held.id = json_extract(given.value, '$.id')
    WHERE held.status IN (SELECT value FROM json_each(given.value, '$.legal_from'))
        AND held.attempt = COALESCE(json_extract(given.value, '$.attempt'), held.attempt)
        AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
) report
WHERE zndraw_joblib_task.id = report.id
RETURNING *,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = job_id) AS job_name;

-- name: touch_workers
UPDATE zndraw_joblib_worker
SET last_heartbeat = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
WHERE id IN (SELECT value FROM json_each(%(worker_ids)s))
    AND last_heartbeat < REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', '-1 seconds') || '000', '.000000', '')
RETURNING id;

-- name: cap_submits
UPDATE zndraw_joblib_task
SET created_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
WHERE id IN (
    SELECT ahead.id FROM zndraw_joblib_job job
    JOIN zndraw_joblib_task ahead ON ahead.id IN (
        SELECT id FROM zndraw_joblib_task
        WHERE job_id = job.id AND status = 'pending' AND due_at > REPLACE(
            STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(tolerance_seconds)s || ' seconds') || '000',
            '.000000', '')
        ORDER BY due_at, id LIMIT %(limit)s
    )
    WHERE job.retired_at IS NULL AND ahead.created_at = ahead.due_at
)
RETURNING id;
