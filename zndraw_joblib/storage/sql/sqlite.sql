-- The statements of the hot paths for SQLite. postgresql.sql has the same names; see there for the
-- reason of each and for how this file is read.
--
-- Rules that hold for all of them:
--
-- * SQLite has one writer at a time (transactions begin as IMMEDIATE), so nothing is locked.
-- * Times are text, written as Django writes a `datetime`: six decimals, or none when they are all
--   zero, so that the two compare. The clock of SQLite has milliseconds.
-- * Ids are 32 hexadecimal digits. A parameter of several values is a JSON array.
-- * A condition on the status is repeated as a partial index has it, because SQLite uses such an
--   index only for a query that holds the same condition.

-- name: insert_tasks
-- The rows that the statement inserts are visible to it, so `tasks_ahead` leaves them out.
INSERT INTO zndraw_joblib_task
    (id, job_id, room_id, created_by, payload, status, attempt, retries, retries_left,
     worker_identity, run_at, timeout_seconds, retry_of_id)
SELECT json_extract(given.value, '$.id'), offered.id, %(room_id)s, %(created_by)s,
    json_extract(given.value, '$.payload'), 'pending', 0,
    COALESCE(json_extract(given.value, '$.retries'), offered.max_retries),
    COALESCE(
        json_extract(given.value, '$.retries'), offered.max_retries, %(lost_retries)s),
    '',
    COALESCE(json_extract(given.value, '$.run_at'), REPLACE(
        STRFTIME(
            '%Y-%m-%d %H:%M:%f', 'NOW', json_extract(given.value, '$.delay') || ' seconds')
        || '000', '.000000', '')),
    json_extract(given.value, '$.timeout_seconds'),
    (SELECT ended.id FROM zndraw_joblib_task ended
     WHERE ended.id = json_extract(given.value, '$.retry_of'))
FROM (
    SELECT id, max_retries FROM zndraw_joblib_job
    WHERE id = %(job_id)s AND revision = %(revision)s AND retired_at IS NULL
) offered
CROSS JOIN json_each(%(tasks)s) given
RETURNING id, retries, retries_left, retry_of_id, created_at, run_at, due_at,
    (SELECT COUNT(*) FROM (
        SELECT 1 FROM zndraw_joblib_task ahead
        WHERE ahead.job_id = %(job_id)s AND ahead.status = 'pending'
            AND ahead.due_at <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')
                || '000', '.000000', '')
            AND ahead.id NOT IN (SELECT json_extract(value, '$.id') FROM json_each(%(tasks)s))
        ORDER BY ahead.due_at, ahead.id LIMIT %(most_ahead)s
    )) AS tasks_ahead;

-- name: grant_task, grant_tasks
-- One statement for one task and for several, because no row can be locked.
UPDATE zndraw_joblib_task
SET status = CASE WHEN %(start)s THEN 'running' ELSE 'claimed' END,
    attempt = attempt + 1,
    worker_id = %(worker_id)s,
    worker_identity = %(identity)s,
    lease_expires_at = REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', CASE
            WHEN %(start)s AND timeout_seconds < %(lease_seconds)s THEN timeout_seconds
            ELSE %(lease_seconds)s END || ' seconds') || '000',
        '.000000', ''),
    claimed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    started_at = CASE WHEN %(start)s
        THEN REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '') END,
    progress = NULL, message = NULL, revision = revision + 1,
    changed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
WHERE status = 'pending' AND id IN (
    SELECT head.id
    FROM zndraw_joblib_workerjoblink link
    JOIN zndraw_joblib_worker worker ON worker.id = link.worker_id
    JOIN zndraw_joblib_task head ON head.id IN (
        SELECT id FROM zndraw_joblib_task
        WHERE job_id = link.job_id AND status = 'pending'
            AND due_at <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
        ORDER BY due_at, id LIMIT %(limit)s
    )
    WHERE link.worker_id = %(worker_id)s AND worker.identity = %(identity)s
    ORDER BY head.due_at, head.id LIMIT %(limit)s
)
RETURNING *,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = job_id) AS job_name;

-- name: start_tasks
UPDATE zndraw_joblib_task
SET status = 'running',
    started_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    revision = revision + 1,
    changed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    -- MIN is NULL if one of its arguments is.
    lease_expires_at = COALESCE(MIN(lease_expires_at, REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', timeout_seconds || ' seconds') || '000',
        '.000000', '')), lease_expires_at)
WHERE id IN (
    SELECT held.id
    FROM json_each(%(reports)s) report
    JOIN zndraw_joblib_task held ON held.id = json_extract(report.value, '$.id')
    WHERE held.status IN (SELECT value FROM json_each(report.value, '$.legal_from'))
        AND held.attempt = COALESCE(json_extract(report.value, '$.attempt'), held.attempt)
        AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
)
RETURNING *,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = job_id) AS job_name;

-- name: finish_tasks
UPDATE zndraw_joblib_task
SET status = report.status,
    error = COALESCE(report.error,
        CASE WHEN zndraw_joblib_task.status = 'pending' THEN zndraw_joblib_task.error END),
    result = report.result,
    revision = revision + 1,
    changed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    completed_at = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''),
    lease_expires_at = NULL
FROM (
    SELECT held.id, json_extract(given.value, '$.status') AS status,
        json_extract(given.value, '$.error') AS error,
        json_extract(given.value, '$.result') AS result
    FROM json_each(%(reports)s) given
    JOIN zndraw_joblib_task held ON held.id = json_extract(given.value, '$.id')
    WHERE held.status IN (SELECT value FROM json_each(given.value, '$.legal_from'))
        AND held.attempt = COALESCE(json_extract(given.value, '$.attempt'), held.attempt)
        AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
        AND (json_extract(given.value, '$.status') <> 'failed'
            OR json_extract(given.value, '$.final')
            OR held.retries IS NULL OR held.retries_left = 0)
) report
WHERE zndraw_joblib_task.id = report.id
RETURNING *,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = job_id) AS job_name;

-- name: read_clock
SELECT REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '');

-- name: cap_leases
UPDATE zndraw_joblib_task
SET lease_expires_at = REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', '')
WHERE id IN (
    SELECT held.id FROM zndraw_joblib_task held
    WHERE held.status IN ('claimed', 'running')
        AND held.lease_expires_at > REPLACE(
            STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(longest_seconds)s || ' seconds') || '000',
            '.000000', '')
    LIMIT %(limit)s
)
RETURNING id;

-- name: record_heartbeat
UPDATE zndraw_joblib_worker
SET last_heartbeat = REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
WHERE id = %(worker_id)s AND identity = %(identity)s
RETURNING id, last_heartbeat, EXISTS (
    SELECT 1 FROM zndraw_joblib_task held
    WHERE held.worker_id = %(worker_id)s AND held.status IN ('claimed', 'running')
) AS has_tasks;

-- name: renew_leases
UPDATE zndraw_joblib_task
SET lease_expires_at = COALESCE(MIN(REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''), REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', started_at, timeout_seconds || ' seconds') || '000', '.000000', '')), REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''))
WHERE id IN (
    SELECT held.id
    FROM json_each(%(grants)s) granted
    JOIN zndraw_joblib_task held ON held.id = json_extract(granted.value, '$.id')
        AND held.attempt = json_extract(granted.value, '$.attempt')
    WHERE held.worker_id = %(worker_id)s AND held.status IN ('claimed', 'running')
)
RETURNING id, attempt;

-- name: renew_all_leases
UPDATE zndraw_joblib_task
SET lease_expires_at = COALESCE(MIN(REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''), REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', started_at, timeout_seconds || ' seconds') || '000', '.000000', '')), REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(lease_seconds)s || ' seconds') || '000', '.000000', ''))
WHERE worker_id = %(worker_id)s AND status IN ('claimed', 'running')
RETURNING id, attempt;

-- name: read_task
SELECT task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name,
    CASE WHEN task.status = 'pending'
        AND task.due_at <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
    THEN 1 + (
        SELECT COUNT(*) FROM (
            SELECT 1 FROM zndraw_joblib_task ahead
            WHERE ahead.job_id = task.job_id AND ahead.status = 'pending'
                AND (ahead.due_at, ahead.id) < (task.due_at, task.id)
            ORDER BY ahead.due_at, ahead.id LIMIT %(most_ahead)s
        )
    ) END AS queue_position
FROM zndraw_joblib_task task
WHERE task.id = %(id)s;

-- name: read_tasks
WITH listed AS MATERIALIZED (
    SELECT task.id, task.job_id, task.room_id, task.created_by, task.status, task.error,
        CASE WHEN %(include_payload)s THEN task.payload END AS payload,
        task.attempt, task.retries, task.retries_left, task.timeout_seconds,
        task.retry_of_id, task.worker_id, task.worker_identity, task.lease_expires_at,
        task.created_at, task.run_at, task.due_at, task.claimed_at, task.started_at,
        task.completed_at, task.progress, task.message, task.revision, task.changed_at,
        task.log_size, task.watched_until,
        CASE WHEN %(include_result)s THEN task.result END AS result
    FROM zndraw_joblib_task task
    WHERE task.id IN (SELECT value FROM json_each(%(ids)s))
), queued AS MATERIALIZED (
    SELECT head.id, ROW_NUMBER() OVER (
        PARTITION BY head.job_id ORDER BY head.due_at, head.id
    ) AS place
    FROM (SELECT DISTINCT job_id FROM listed WHERE status = 'pending') job
    JOIN zndraw_joblib_task head ON head.id IN (
        SELECT id FROM zndraw_joblib_task
        WHERE job_id = job.job_id AND status = 'pending'
            AND due_at <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
        ORDER BY due_at, id LIMIT %(most_ahead)s
    )
)
SELECT listed.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = listed.job_id) AS job_name,
    CASE WHEN listed.status = 'pending'
            AND listed.due_at <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '')
        THEN COALESCE(queued.place, %(most_ahead)s + 1) END AS queue_position
FROM listed LEFT JOIN queued ON queued.id = listed.id;

-- name: newest_tasks
SELECT newest.id
FROM json_each(%(statuses)s) of_status
JOIN zndraw_joblib_task newest ON newest.id IN (
    SELECT task.id FROM zndraw_joblib_task task
    WHERE task.room_id = %(room_id)s AND task.status = of_status.value
        AND (task.created_at, task.id) < (
            COALESCE(%(before_time)s, '9999-12-31'),
            COALESCE(%(before_id)s, 'ffffffffffffffffffffffffffffffff')
        )
    ORDER BY task.created_at DESC, task.id DESC LIMIT %(limit)s
)
ORDER BY newest.created_at DESC, newest.id DESC LIMIT %(limit)s;

-- name: reserve_key
INSERT INTO zndraw_joblib_idempotencykey AS kept (id, request, task_id, created_at)
VALUES (%(key)s, %(request)s, %(task_id)s,
    REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', ''))
ON CONFLICT (id) DO UPDATE SET
    request = CASE WHEN kept.created_at < REPLACE(
            STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', -%(ttl_seconds)s || ' seconds') || '000',
            '.000000', '')
        THEN excluded.request ELSE kept.request END,
    task_id = CASE WHEN kept.created_at < REPLACE(
            STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', -%(ttl_seconds)s || ' seconds') || '000',
            '.000000', '')
        THEN excluded.task_id ELSE kept.task_id END,
    created_at = CASE WHEN kept.created_at < REPLACE(
            STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', -%(ttl_seconds)s || ' seconds') || '000',
            '.000000', '')
        THEN excluded.created_at ELSE kept.created_at END
RETURNING request, task_id;
