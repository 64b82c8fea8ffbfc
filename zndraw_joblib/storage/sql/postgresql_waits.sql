-- Statements of requests that wait, on PostgreSQL. See postgresql.sql for how this file is read and for
-- the rules that hold for all statements; sqlite_waits.sql has the same names.

-- name: read_revisions
-- The revisions of tasks, and whether changes of each are published for %(least_seconds)s more.
SELECT task.id, task.revision, COALESCE(
    task.watched_until
        > STATEMENT_TIMESTAMP() + make_interval(secs => %(least_seconds)s::float8), false
) AS is_watched
FROM zndraw_joblib_task task
WHERE task.id = ANY(ARRAY(SELECT unnest(%(ids)s::uuid[])));

-- name: watch_tasks
-- Has the changes of tasks published for %(watch_seconds)s, and returns their revisions: every later
-- one is published. No revision, because clients see no difference. SKIP LOCKED, because all waits of
-- an event loop share the thread that runs this, and a transaction of the site may hold a row for long.
UPDATE zndraw_joblib_task AS task
SET watched_until = STATEMENT_TIMESTAMP() + make_interval(secs => %(watch_seconds)s::float8)
WHERE task.id = ANY(ARRAY(
    SELECT held.id FROM zndraw_joblib_task held
    WHERE held.id = ANY(ARRAY(SELECT unnest(%(ids)s::uuid[])))
    ORDER BY held.id FOR UPDATE OF held SKIP LOCKED
))
RETURNING task.id, task.revision;

-- name: read_grants
-- What became of granted tasks: `held` by the worker still; `cancelled`; `ended` by a report of the
-- worker, also when a failed one is retried; else `lost`. LATERAL with LIMIT, because the planner might
-- else read the whole tables for a join.
-- grants: [{place, id, attempt, worker_id, identity}]
SELECT given.place, CASE
    WHEN task.attempt = given.attempt AND task.status = 'cancelled'
        AND task.worker_identity = given.identity THEN 'cancelled'
    WHEN past.outcome = 'failed' AND past.worker_id = given.worker_id THEN 'ended'
    WHEN past.outcome IS NOT NULL OR task.attempt IS DISTINCT FROM given.attempt THEN 'lost'
    WHEN task.status IN ('claimed', 'running') AND task.worker_id = given.worker_id THEN 'held'
    WHEN task.completed_at IS NOT NULL AND task.worker_identity = given.identity THEN 'ended'
    ELSE 'lost' END AS state
FROM jsonb_to_recordset(%(grants)s::jsonb)
    AS given(place integer, id uuid, attempt integer, worker_id text, identity text)
LEFT JOIN LATERAL (
    SELECT attempt, status, worker_id, worker_identity, completed_at FROM zndraw_joblib_task
    WHERE id = given.id LIMIT 1
) task ON true
LEFT JOIN LATERAL (
    SELECT outcome, worker_id FROM zndraw_joblib_taskattempt
    WHERE task_id = given.id AND attempt = given.attempt LIMIT 1
) past ON true
ORDER BY given.place;
