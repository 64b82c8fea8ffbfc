-- Statements of the hot paths for PostgreSQL, one round trip each. sqlite.sql has the same names.
--
-- `statements.py` reads this file: a statement begins at its `-- name:` line. `%(name)s` is a
-- parameter; replace it by a literal to run a statement in psql. A parameter of records is a JSON
-- array of objects, because PostgreSQL keeps the plan of a statement with one parameter, whatever
-- its length, and would plan anew each time for an array.
--
-- Rules that hold for all of them:
--
-- * Every change is conditional. The rows that come back decide who won; nothing is read first.
-- * `COALESCE(status, '')` keeps PostgreSQL from matching a partial index (`WHERE status = ...`),
--   which it would scan instead of the primary key when it expects few rows.
-- * `id = ANY(ARRAY(SELECT ...))` finds the rows by the primary key. A join might read a table of
--   some thousand rows from its beginning to its end, because the planner expects 100 records in
--   any JSON.
-- * `ORDER BY id ... FOR UPDATE` locks rows in one order, so that two batches never wait for each
--   other in a circle.
-- * `(SELECT %(name)s)` in place of `%(name)s` keeps the plan from depending on the value, because
--   PostgreSQL would plan anew at each execution if plans for some values were cheaper.
-- * `task.*` brings every column, so that a new field of `Task` needs no change here. Only
--   `insert_tasks`, whose caller knows most columns, and `read_tasks` name theirs.

-- name: insert_tasks
-- Accepts tasks of a job, unless the job was retired or its schema changed since it was read.
-- FOR SHARE keeps the job from being retired, which a foreign key's own lock would not, and lets
-- submits go on beside each other. `tasks_ahead` counts the due tasks of the job up to
-- %(most_ahead)s; the snapshot of the statement does not contain the rows that it inserts.
-- tasks: [{id, payload, retries, run_at, delay, timeout_seconds, retry_of, traceparent}], the payload as the
-- text of its JSON; all but the first two may be missing. %(lost_retries)s are those of tasks for
-- which neither the submit nor the job has retries. The task of `retry_of` may have been deleted.
-- Only the columns come back that the statement decides, because the caller knows the others.
INSERT INTO zndraw_joblib_task AS task
    (id, job_id, room_id, created_by, payload, status, attempt, retries, retries_left,
     worker_identity, run_at, timeout_seconds, retry_of_id, traceparent)
SELECT given.id, offered.id, %(room_id)s, %(created_by)s, given.payload, 'pending', 0,
    COALESCE(given.retries, offered.max_retries),
    COALESCE(given.retries, offered.max_retries, %(lost_retries)s::integer), '',
    COALESCE(given.run_at, STATEMENT_TIMESTAMP() + make_interval(secs => given.delay)),
    given.timeout_seconds,
    (SELECT ended.id FROM zndraw_joblib_task ended WHERE ended.id = given.retry_of FOR KEY SHARE),
    given.traceparent
FROM (
    SELECT id, max_retries FROM zndraw_joblib_job
    WHERE id = %(job_id)s::uuid AND revision = %(revision)s::integer AND retired_at IS NULL
    FOR SHARE
) offered
CROSS JOIN jsonb_to_recordset(%(tasks)s::jsonb) AS given(
    id uuid, payload text, retries integer, run_at timestamptz, delay float8,
    timeout_seconds float8, retry_of uuid, traceparent text)
RETURNING task.id, task.retries, task.retries_left, task.retry_of_id, task.created_at, task.run_at,
    task.due_at,
    (SELECT COUNT(*) FROM (
        SELECT 1 FROM zndraw_joblib_task ahead
        WHERE ahead.job_id = (SELECT %(job_id)s::uuid) AND ahead.status = 'pending'
            AND ahead.due_at <= STATEMENT_TIMESTAMP()
        ORDER BY ahead.due_at, ahead.id LIMIT (SELECT %(most_ahead)s::integer)
    ) counted) AS tasks_ahead;

-- name: grant_task
-- The claim: grants a worker the longest due task of its jobs by "heads, then lock one". `heads`
-- probes the index joblib_task_claim once for each job, so a backlog of any length costs the same;
-- tasks that are due later are at the end of each job's part of it.
-- `picked` goes through the jobs by the age of their heads and locks the first row that is not
-- locked yet; locking in the first probe would lock a row of every job. MATERIALIZED, because a
-- plan may otherwise run a LIMIT twice. With %(start)s the task is running at once.
WITH heads AS MATERIALIZED (
    SELECT head.job_id, head.due_at, head.id
    FROM zndraw_joblib_workerjoblink link
    JOIN zndraw_joblib_worker worker ON worker.id = link.worker_id
    CROSS JOIN LATERAL (
        SELECT job_id, due_at, id FROM zndraw_joblib_task
        WHERE job_id = link.job_id AND status = 'pending' AND due_at <= STATEMENT_TIMESTAMP()
        ORDER BY due_at, id LIMIT 1
    ) head
    WHERE link.worker_id = %(worker_id)s AND worker.identity = %(identity)s
), picked AS MATERIALIZED (
    SELECT locked.id
    FROM (SELECT job_id FROM heads ORDER BY due_at, id) oldest
    CROSS JOIN LATERAL (
        SELECT id FROM zndraw_joblib_task
        WHERE job_id = oldest.job_id AND status = 'pending' AND due_at <= STATEMENT_TIMESTAMP()
        ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) locked
    LIMIT 1
)
UPDATE zndraw_joblib_task AS task
SET status = CASE WHEN %(start)s::boolean THEN 'running' ELSE 'claimed' END,
    attempt = task.attempt + 1,
    worker_id = %(worker_id)s,
    worker_identity = %(identity)s,
    -- LEAST ignores NULL.
    lease_expires_at = STATEMENT_TIMESTAMP() + make_interval(secs => LEAST(
        %(lease_seconds)s::float8, CASE WHEN %(start)s::boolean THEN task.timeout_seconds END)),
    claimed_at = STATEMENT_TIMESTAMP(),
    started_at = CASE WHEN %(start)s::boolean THEN STATEMENT_TIMESTAMP() END,
    progress = NULL, message = NULL, revision = task.revision + 1,
    changed_at = STATEMENT_TIMESTAMP()
WHERE task.id = ANY(ARRAY(SELECT id FROM picked)) AND COALESCE(task.status, '') = 'pending'
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;

-- name: grant_tasks
-- Grants a worker up to %(limit)s of the longest due tasks of its jobs. `shares` looks at the
-- oldest of each job without locks and counts how many of them each job has; `picked` then takes
-- that many unlocked rows of each job, so that concurrent claims get different tasks. It may come
-- back empty while other claims have locked the rows; then `grant_task` finds a task that is left.
WITH shares AS MATERIALIZED (
    SELECT job_id, COUNT(*) AS share
    FROM (
        SELECT head.job_id
        FROM zndraw_joblib_workerjoblink link
        JOIN zndraw_joblib_worker worker ON worker.id = link.worker_id
        CROSS JOIN LATERAL (
            SELECT job_id, due_at, id FROM zndraw_joblib_task
            WHERE job_id = link.job_id AND status = 'pending' AND due_at <= STATEMENT_TIMESTAMP()
            ORDER BY due_at, id LIMIT %(limit)s::integer
        ) head
        WHERE link.worker_id = %(worker_id)s AND worker.identity = %(identity)s
        ORDER BY head.due_at, head.id LIMIT %(limit)s::integer
    ) oldest
    GROUP BY job_id
), picked AS MATERIALIZED (
    SELECT locked.id
    FROM shares
    CROSS JOIN LATERAL (
        SELECT id FROM zndraw_joblib_task
        WHERE job_id = shares.job_id AND status = 'pending' AND due_at <= STATEMENT_TIMESTAMP()
        ORDER BY due_at, id LIMIT shares.share FOR UPDATE SKIP LOCKED
    ) locked
)
UPDATE zndraw_joblib_task AS task
SET status = CASE WHEN %(start)s::boolean THEN 'running' ELSE 'claimed' END,
    attempt = task.attempt + 1,
    worker_id = %(worker_id)s,
    worker_identity = %(identity)s,
    -- LEAST ignores NULL.
    lease_expires_at = STATEMENT_TIMESTAMP() + make_interval(secs => LEAST(
        %(lease_seconds)s::float8, CASE WHEN %(start)s::boolean THEN task.timeout_seconds END)),
    claimed_at = STATEMENT_TIMESTAMP(),
    started_at = CASE WHEN %(start)s::boolean THEN STATEMENT_TIMESTAMP() END,
    progress = NULL, message = NULL, revision = task.revision + 1,
    changed_at = STATEMENT_TIMESTAMP()
WHERE task.id = ANY(ARRAY(SELECT id FROM picked)) AND COALESCE(task.status, '') = 'pending'
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;

-- name: start_tasks
-- Moves tasks to running. A report moves a task only from the states in its `legal_from`, only of
-- its attempt (any attempt when null), and only of this identity's workers (anybody's when null).
-- reports: [{id, attempt, legal_from}]
UPDATE zndraw_joblib_task AS task
SET status = 'running', started_at = STATEMENT_TIMESTAMP(), revision = task.revision + 1,
    changed_at = STATEMENT_TIMESTAMP(),
    lease_expires_at = LEAST(
        task.lease_expires_at, STATEMENT_TIMESTAMP() + make_interval(secs => task.timeout_seconds))
WHERE task.id = ANY(ARRAY(
    SELECT held.id FROM zndraw_joblib_task held
    JOIN jsonb_to_recordset(%(reports)s::jsonb)
        AS report(id uuid, attempt integer, legal_from text[]) ON report.id = held.id
    WHERE held.id = ANY(ARRAY(
            SELECT id FROM jsonb_to_recordset(%(reports)s::jsonb) AS named(id uuid)
        ))
        AND COALESCE(held.status, '') = ANY(report.legal_from)
        AND held.attempt = COALESCE(report.attempt, held.attempt)
        AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
    ORDER BY held.id FOR UPDATE OF held
))
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;

-- name: finish_tasks
-- Moves tasks to the terminal status of their reports. The fence is that of `start_tasks`. The error
-- of an earlier attempt stays only if a pending task is cancelled, because the task's row tells how its
-- latest attempt ended. A task that failed and has retries left is not moved, unless `final`;
-- `end_attempts` then tries it again.
-- reports: [{id, attempt, status, error, result, final, legal_from}], the result as the text of its
-- JSON
UPDATE zndraw_joblib_task AS task
SET status = report.status,
    error = COALESCE(report.error, CASE WHEN task.status = 'pending' THEN task.error END),
    result = report.result,
    revision = task.revision + 1, changed_at = STATEMENT_TIMESTAMP(),
    completed_at = STATEMENT_TIMESTAMP(),
    lease_expires_at = NULL
FROM (
    SELECT held.id, given.status, given.error, given.result
    FROM zndraw_joblib_task held
    JOIN jsonb_to_recordset(%(reports)s::jsonb)
        AS given(
            id uuid, attempt integer, status text, error text, result text, final boolean,
            legal_from text[]) ON given.id = held.id
    WHERE held.id = ANY(ARRAY(
            SELECT id FROM jsonb_to_recordset(%(reports)s::jsonb) AS named(id uuid)
        ))
        AND COALESCE(held.status, '') = ANY(given.legal_from)
        AND held.attempt = COALESCE(given.attempt, held.attempt)
        AND held.worker_identity = COALESCE(%(identity)s, held.worker_identity)
        AND (given.status <> 'failed' OR given.final OR held.retries IS NULL
            OR held.retries_left = 0)
    ORDER BY held.id FOR UPDATE OF held
) report
WHERE task.id = report.id
RETURNING task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name;

-- name: read_clock
-- The present time of the database.
SELECT STATEMENT_TIMESTAMP();

-- name: cap_leases
-- Sweep: a lease that ends later than a grant of this moment could is of a clock that has gone back
-- since. It ends %(lease_seconds)s from now.
UPDATE zndraw_joblib_task AS task
SET lease_expires_at = STATEMENT_TIMESTAMP() + make_interval(secs => %(lease_seconds)s::float8)
WHERE task.id = ANY(ARRAY(
    SELECT held.id FROM zndraw_joblib_task held
    WHERE held.status IN ('claimed', 'running')
        AND held.lease_expires_at
            > STATEMENT_TIMESTAMP() + make_interval(secs => %(longest_seconds)s::float8)
    LIMIT %(limit)s::integer FOR UPDATE OF held SKIP LOCKED
))
RETURNING task.id;

-- name: record_heartbeat
-- Writes the time of a heartbeat, and returns whether the worker has claimed or running tasks.
UPDATE zndraw_joblib_worker AS worker
SET last_heartbeat = STATEMENT_TIMESTAMP()
WHERE worker.id = %(worker_id)s AND worker.identity = %(identity)s
RETURNING worker.id, worker.last_heartbeat, EXISTS (
    SELECT 1 FROM zndraw_joblib_task held
    WHERE held.worker_id = worker.id AND held.status IN ('claimed', 'running')
) AS has_tasks;

-- name: renew_leases
-- Makes the leases of these tasks of a worker end %(lease_seconds)s from now.
-- grants: [{id, attempt}]
UPDATE zndraw_joblib_task AS task
SET lease_expires_at = LEAST(
    STATEMENT_TIMESTAMP() + make_interval(secs => %(lease_seconds)s::float8),
    task.started_at + make_interval(secs => task.timeout_seconds))
WHERE task.id = ANY(ARRAY(
    SELECT held.id FROM zndraw_joblib_task held
    JOIN jsonb_to_recordset(%(grants)s::jsonb) AS granted(id uuid, attempt integer)
        ON granted.id = held.id AND granted.attempt = held.attempt
    WHERE held.id = ANY(ARRAY(SELECT id FROM jsonb_to_recordset(%(grants)s::jsonb) AS named(id uuid)))
        AND held.worker_id = %(worker_id)s AND COALESCE(held.status, '') IN ('claimed', 'running')
    ORDER BY held.id FOR UPDATE OF held
))
RETURNING task.id, task.attempt;

-- name: renew_all_leases
-- Makes the leases of all tasks of a worker end %(lease_seconds)s from now.
UPDATE zndraw_joblib_task AS task
SET lease_expires_at = LEAST(
    STATEMENT_TIMESTAMP() + make_interval(secs => %(lease_seconds)s::float8),
    task.started_at + make_interval(secs => task.timeout_seconds))
WHERE task.id = ANY(ARRAY(
    SELECT held.id FROM zndraw_joblib_task held
    WHERE held.worker_id = %(worker_id)s AND held.status IN ('claimed', 'running')
    ORDER BY held.id FOR UPDATE OF held
))
RETURNING task.id, task.attempt;

-- name: read_task
-- A task by its id. `queue_position` is the place of a pending task in the queue of its job, from 1
-- up to %(most_ahead)s + 1.
SELECT task.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = task.job_id) AS job_name,
    CASE WHEN task.status = 'pending' AND task.due_at <= STATEMENT_TIMESTAMP() THEN 1 + (
        SELECT COUNT(*) FROM (
            SELECT 1 FROM zndraw_joblib_task ahead
            WHERE ahead.job_id = task.job_id AND ahead.status = 'pending'
                AND (ahead.due_at, ahead.id) < (task.due_at, task.id)
            ORDER BY ahead.due_at, ahead.id LIMIT (SELECT %(most_ahead)s::integer)
        ) counted
    ) END AS queue_position
FROM zndraw_joblib_task task
WHERE task.id = %(id)s::uuid;

-- name: read_tasks
-- Tasks by their ids, with their results and payloads as the parameters say: all other columns are
-- named, because results and payloads may be large. The head of each queue is numbered once, because
-- the tasks of a list are mostly of few jobs; `read_task` counts for its one task.
WITH listed AS MATERIALIZED (
    SELECT task.id, task.job_id, task.room_id, task.created_by, task.status, task.error,
        CASE WHEN %(include_payload)s::boolean THEN task.payload END AS payload,
        task.attempt, task.retries, task.retries_left, task.timeout_seconds,
        task.retry_of_id, task.worker_id, task.worker_identity, task.lease_expires_at,
        task.created_at, task.run_at, task.due_at, task.claimed_at, task.started_at,
        task.completed_at, task.progress, task.message, task.revision, task.changed_at,
        task.log_size, task.traceparent, task.watched_until,
        CASE WHEN %(include_result)s::boolean THEN task.result END AS result
    FROM zndraw_joblib_task task
    WHERE task.id = ANY(ARRAY(SELECT unnest(%(ids)s::uuid[])))
), queued AS MATERIALIZED (
    SELECT head.id, ROW_NUMBER() OVER (
        PARTITION BY head.job_id ORDER BY head.due_at, head.id
    ) AS place
    FROM (SELECT DISTINCT job_id FROM listed WHERE status = 'pending') job
    CROSS JOIN LATERAL (
        SELECT job_id, due_at, id FROM zndraw_joblib_task
        WHERE job_id = job.job_id AND status = 'pending' AND due_at <= STATEMENT_TIMESTAMP()
        ORDER BY due_at, id LIMIT (SELECT %(most_ahead)s::integer)
    ) head
)
SELECT listed.*,
    (SELECT job.room_id || ':' || job.category || ':' || job.name
     FROM zndraw_joblib_job job WHERE job.id = listed.job_id) AS job_name,
    CASE WHEN listed.status = 'pending' AND listed.due_at <= STATEMENT_TIMESTAMP()
        THEN COALESCE(queued.place, %(most_ahead)s::integer + 1) END AS queue_position
FROM listed LEFT JOIN queued ON queued.id = listed.id;

-- name: newest_tasks
-- Ids of the newest tasks of a room, or of those older than a time and id. It reads the newest of
-- each status from the index joblib_task_room_status and takes the newest of these, because no
-- index lists all tasks of a room by time.
SELECT newest.id
FROM unnest(%(statuses)s::text[]) AS of_status(status)
CROSS JOIN LATERAL (
    SELECT task.created_at, task.id FROM zndraw_joblib_task task
    WHERE task.room_id = %(room_id)s AND task.status = of_status.status
        AND (task.created_at, task.id) < (
            COALESCE(%(before_time)s::timestamptz, 'infinity'),
            COALESCE(%(before_id)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        )
    ORDER BY task.created_at DESC, task.id DESC LIMIT %(limit)s::integer
) newest
ORDER BY newest.created_at DESC, newest.id DESC LIMIT %(limit)s::integer;

-- name: reserve_key
-- Reserves an Idempotency-Key for a task unless it is reserved; returns the request and the task
-- that it is reserved for. An expired key is renewed under the lock of its row, because another
-- submit may be about to renew it too. A submit with the same key waits for the first's commit.
INSERT INTO zndraw_joblib_idempotencykey AS kept (id, request, task_id, created_at)
VALUES (%(key)s, %(request)s, %(task_id)s::uuid, STATEMENT_TIMESTAMP())
ON CONFLICT (id) DO UPDATE SET
    request = CASE
        WHEN kept.created_at < STATEMENT_TIMESTAMP() - make_interval(secs => %(ttl_seconds)s::float8)
        THEN excluded.request ELSE kept.request END,
    task_id = CASE
        WHEN kept.created_at < STATEMENT_TIMESTAMP() - make_interval(secs => %(ttl_seconds)s::float8)
        THEN excluded.task_id ELSE kept.task_id END,
    created_at = CASE
        WHEN kept.created_at < STATEMENT_TIMESTAMP() - make_interval(secs => %(ttl_seconds)s::float8)
        THEN excluded.created_at ELSE kept.created_at END
RETURNING request, task_id;
