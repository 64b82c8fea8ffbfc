-- Statements about the attempts of tasks on PostgreSQL. See postgresql.sql for how this file is read
-- and for the rules that hold for all statements; sqlite_life.sql has the same names.
--
-- An attempt that ends without ending its task, or that is lost, takes three statements in one
-- transaction: one of the locks, `archive_attempts` and `end_attempts`. Between them
-- `storage/attempts.py` decides the next status of each task.

-- name: lock_reported
-- Locks claimed and running tasks whose attempts a report ends without ending the task. The fence is
-- that of `start_tasks`.
-- reports: [{id, attempt, legal_from}]
SELECT held.id, held.attempt, held.status, held.worker_id, held.retries, held.retries_left,
    held.timeout_seconds,
    COALESCE(
        held.started_at + make_interval(secs => held.timeout_seconds) <= STATEMENT_TIMESTAMP(),
        false) AS is_timed_out,
    job.backoff_seconds, job.backoff_factor, job.max_backoff_seconds
FROM zndraw_joblib_task held
JOIN zndraw_joblib_job job ON job.id = held.job_id
JOIN jsonb_to_recordset(%(reports)s::jsonb)
    AS report(id uuid, attempt integer, legal_from text[]) ON report.id = held.id
WHERE held.id = ANY(ARRAY(
        SELECT id FROM jsonb_to_recordset(%(reports)s::jsonb) AS named(id uuid)
    ))
    AND COALESCE(held.status, '') = ANY(report.legal_from)
    AND held.attempt = COALESCE(report.attempt, held.attempt)
    AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
ORDER BY held.id FOR UPDATE OF held;

-- name: lock_expired
-- Sweep: locks claimed and running tasks whose lease is over. SKIP LOCKED, because another sweeper or
-- a report is about to change a locked row.
SELECT held.id, held.attempt, held.status, held.worker_id, held.retries, held.retries_left,
    held.timeout_seconds,
    COALESCE(
        held.started_at + make_interval(secs => held.timeout_seconds) <= STATEMENT_TIMESTAMP(),
        false) AS is_timed_out,
    job.backoff_seconds, job.backoff_factor, job.max_backoff_seconds
FROM zndraw_joblib_task held
JOIN zndraw_joblib_job job ON job.id = held.job_id
WHERE held.status IN ('claimed', 'running') AND held.lease_expires_at < STATEMENT_TIMESTAMP()
LIMIT %(limit)s::integer FOR UPDATE OF held SKIP LOCKED;

-- name: lock_of_worker
-- A worker leaves: locks its claimed and running tasks. No SKIP LOCKED, because a task that is left
-- behind would wait for the end of its lease.
SELECT held.id, held.attempt, held.status, held.worker_id, held.retries, held.retries_left,
    held.timeout_seconds,
    COALESCE(
        held.started_at + make_interval(secs => held.timeout_seconds) <= STATEMENT_TIMESTAMP(),
        false) AS is_timed_out,
    job.backoff_seconds, job.backoff_factor, job.max_backoff_seconds
FROM zndraw_joblib_task held
JOIN zndraw_joblib_job job ON job.id = held.job_id
WHERE held.status IN ('claimed', 'running') AND held.worker_id = %(worker_id)s
ORDER BY held.id LIMIT %(limit)s::integer FOR UPDATE OF held;

-- name: archive_attempts
-- Keeps what the rows of locked tasks say about their attempts, before `end_attempts` changes them.
-- ends: [{id, outcome, attempt_error}]
INSERT INTO zndraw_joblib_taskattempt
    (task_id, attempt, worker_id, claimed_at, started_at, ended_at, outcome, error)
SELECT held.id, held.attempt, held.worker_id, held.claimed_at, held.started_at,
    STATEMENT_TIMESTAMP(), ended.outcome, ended.attempt_error
FROM zndraw_joblib_task held
JOIN jsonb_to_recordset(%(ends)s::jsonb) AS ended(id uuid, outcome text, attempt_error text)
    ON ended.id = held.id
WHERE held.id = ANY(ARRAY(SELECT id FROM jsonb_to_recordset(%(ends)s::jsonb) AS named(id uuid)))
RETURNING task_id;

-- name: end_attempts
-- Takes locked tasks from their workers: pending again, after `delay` seconds if it is given, or
-- failed. A null error keeps the task's error.
-- ends: [{id, status, error, retries_left, delay}]
UPDATE zndraw_joblib_task AS task
SET status = ended.status,
    error = COALESCE(ended.error, task.error),
    retries_left = ended.retries_left,
    run_at = COALESCE(STATEMENT_TIMESTAMP() + make_interval(secs => ended.delay), task.run_at),
    worker_id = CASE WHEN ended.status <> 'pending' THEN task.worker_id END,
    claimed_at = CASE WHEN ended.status <> 'pending' THEN task.claimed_at END,
    started_at = CASE WHEN ended.status <> 'pending' THEN task.started_at END,
    completed_at = CASE WHEN ended.status <> 'pending' THEN STATEMENT_TIMESTAMP() END,
    lease_expires_at = NULL,
    revision = task.revision + 1, changed_at = STATEMENT_TIMESTAMP()
FROM jsonb_to_recordset(%(ends)s::jsonb)
    AS ended(id uuid, status text, error text, retries_left integer, delay float8)
WHERE task.id = ended.id
    AND task.id = ANY(ARRAY(SELECT id FROM jsonb_to_recordset(%(ends)s::jsonb) AS named(id uuid)))
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;

-- name: record_progress
-- Writes how far running tasks are, and renews their leases; a null keeps the value. The fence is
-- that of `start_tasks`. A watch that is over is removed, because a change is published while there
-- is one, and progress is reported often.
-- reports: [{id, attempt, progress, message, legal_from}]
UPDATE zndraw_joblib_task AS task
SET progress = COALESCE(report.progress, task.progress),
    message = COALESCE(report.message, task.message),
    revision = task.revision + 1, changed_at = STATEMENT_TIMESTAMP(),
    watched_until = CASE WHEN task.watched_until > STATEMENT_TIMESTAMP() THEN task.watched_until END,
    lease_expires_at = LEAST(
        STATEMENT_TIMESTAMP() + make_interval(secs => %(lease_seconds)s::float8),
        task.started_at + make_interval(secs => task.timeout_seconds))
FROM (
    SELECT held.id, given.progress, given.message
    FROM zndraw_joblib_task held
    JOIN jsonb_to_recordset(%(reports)s::jsonb)
        AS given(id uuid, attempt integer, progress float8, message text, legal_from text[])
        ON given.id = held.id
    WHERE held.id = ANY(ARRAY(
            SELECT id FROM jsonb_to_recordset(%(reports)s::jsonb) AS named(id uuid)
        ))
        AND COALESCE(held.status, '') = ANY(given.legal_from)
        AND held.attempt = COALESCE(given.attempt, held.attempt)
        AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
    ORDER BY held.id FOR UPDATE OF held
) report
WHERE task.id = report.id
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;

-- name: touch_workers
-- Counts a report as a heartbeat of its worker. Once a second at most, because a worker may report
-- often. SKIP LOCKED, because the transaction of a log write has locked a task, and a worker that
-- leaves locks its own row before its tasks: each would wait for the other. A locked row is of a
-- worker that sends a heartbeat or leaves.
UPDATE zndraw_joblib_worker AS worker
SET last_heartbeat = STATEMENT_TIMESTAMP()
WHERE worker.id = ANY(ARRAY(
    SELECT seen.id FROM zndraw_joblib_worker seen
    WHERE seen.id = ANY(ARRAY(SELECT unnest(%(worker_ids)s::text[])))
        AND seen.last_heartbeat < STATEMENT_TIMESTAMP() - INTERVAL '1 second'
    FOR UPDATE SKIP LOCKED
))
RETURNING worker.id;

-- name: cap_submits
-- Sweep: a pending task that was created later than now was submitted before the clock went back, and
-- no claim takes it until the clock has caught up. It counts as submitted now. Tasks that `run_at`
-- makes wait stay as they are. Only the first %(limit)s tasks of each job that are due later are read,
-- because there may be many.
UPDATE zndraw_joblib_task AS task
SET created_at = STATEMENT_TIMESTAMP()
WHERE task.id = ANY(ARRAY(
    SELECT held.id FROM zndraw_joblib_task held
    WHERE held.id = ANY(ARRAY(
            SELECT ahead.id FROM zndraw_joblib_job job
            CROSS JOIN LATERAL (
                SELECT id, due_at, created_at FROM zndraw_joblib_task
                WHERE job_id = job.id AND status = 'pending' AND due_at
                    > STATEMENT_TIMESTAMP() + make_interval(secs => %(tolerance_seconds)s::float8)
                ORDER BY due_at, id LIMIT %(limit)s::integer
            ) ahead
            WHERE job.retired_at IS NULL AND ahead.created_at = ahead.due_at
        ))
        AND COALESCE(held.status, '') = 'pending'
    ORDER BY held.id FOR UPDATE OF held SKIP LOCKED
))
RETURNING task.id;
