-- Statements for metrics and health checks on PostgreSQL. sqlite_observation.sql has the same names.
-- Each reads a bounded number of rows by an index, because they run every few seconds.

-- name: count_queues
-- The jobs with due tasks, up to %(max_jobs)s, each with the number of these tasks up to %(limit)s and
-- the age of the oldest in seconds. `queued` goes from job to job in the index joblib_task_claim, so
-- that jobs without pending tasks cost nothing.
WITH RECURSIVE queued AS (
    (SELECT job_id FROM zndraw_joblib_task WHERE status = 'pending'
     ORDER BY job_id, due_at, id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT following.job_id FROM zndraw_joblib_task following
        WHERE following.status = 'pending' AND following.job_id > queued.job_id
        ORDER BY following.job_id, following.due_at, following.id LIMIT 1
    )
    FROM queued WHERE queued.job_id IS NOT NULL
), found AS MATERIALIZED (
    SELECT job_id FROM queued WHERE job_id IS NOT NULL LIMIT (SELECT %(max_jobs)s::integer)
)
SELECT job.room_id, job.category, job.name, queue.number,
    EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP() - queue.oldest)::float8
FROM found
JOIN zndraw_joblib_job job ON job.id = found.job_id
CROSS JOIN LATERAL (
    SELECT COUNT(*) AS number, MIN(head.due_at) AS oldest
    FROM (
        SELECT due_at FROM zndraw_joblib_task
        WHERE job_id = found.job_id AND status = 'pending' AND due_at <= STATEMENT_TIMESTAMP()
        ORDER BY due_at, id LIMIT (SELECT %(limit)s::integer)
    ) head
) queue
WHERE queue.number > 0;

-- name: count_held
-- The claimed and running tasks whose leases end first, up to %(limit)s, by status, and the seconds
-- since the first of these leases ended; less than 0 while it lasts.
SELECT held.status, COUNT(*),
    EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP() - MIN(held.lease_expires_at))::float8
FROM (
    SELECT status, lease_expires_at FROM zndraw_joblib_task
    WHERE status IN ('claimed', 'running')
    ORDER BY lease_expires_at LIMIT (SELECT %(limit)s::integer)
) held
GROUP BY held.status;
