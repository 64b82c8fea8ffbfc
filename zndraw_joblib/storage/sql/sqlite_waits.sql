-- Statements of requests that wait, on SQLite. postgresql_waits.sql has the same names; see there for
-- the reason of each, and sqlite.sql for the rules that hold for all of them.

-- name: read_revisions
SELECT task.id, task.revision, COALESCE(
    task.watched_until > REPLACE(
        STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(least_seconds)s || ' seconds') || '000',
        '.000000', ''), 0) AS is_watched
FROM zndraw_joblib_task task
WHERE task.id IN (SELECT value FROM json_each(%(ids)s));

-- name: watch_tasks
UPDATE zndraw_joblib_task
SET watched_until = REPLACE(
    STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', %(watch_seconds)s || ' seconds') || '000', '.000000', '')
WHERE id IN (SELECT value FROM json_each(%(ids)s))
RETURNING id, revision;

-- name: read_grants
SELECT json_extract(given.value, '$.place') AS place, CASE
    WHEN task.attempt = json_extract(given.value, '$.attempt') AND task.status = 'cancelled'
        AND task.worker_identity = json_extract(given.value, '$.identity') THEN 'cancelled'
    WHEN past.outcome = 'failed'
        AND past.worker_id = json_extract(given.value, '$.worker_id') THEN 'ended'
    WHEN past.outcome IS NOT NULL
        OR task.attempt IS NOT json_extract(given.value, '$.attempt') THEN 'lost'
    WHEN task.status IN ('claimed', 'running')
        AND task.worker_id = json_extract(given.value, '$.worker_id') THEN 'held'
    WHEN task.completed_at IS NOT NULL
        AND task.worker_identity = json_extract(given.value, '$.identity') THEN 'ended'
    ELSE 'lost' END AS state
FROM json_each(%(grants)s) given
LEFT JOIN zndraw_joblib_task task ON task.id = json_extract(given.value, '$.id')
LEFT JOIN zndraw_joblib_taskattempt past ON past.task_id = json_extract(given.value, '$.id')
    AND past.attempt = json_extract(given.value, '$.attempt')
ORDER BY place;
