-- Statements for metrics and health checks on SQLite; see postgresql_observation.sql.

-- name: count_queues
WITH RECURSIVE queued(job_id) AS (
    SELECT * FROM (SELECT job_id FROM zndraw_joblib_task WHERE status = 'pending'
     ORDER BY job_id, due_at, id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT following.job_id FROM zndraw_joblib_task following
        WHERE following.status = 'pending' AND following.job_id > queued.job_id
        ORDER BY following.job_id, following.due_at, following.id LIMIT 1
    )
    FROM queued WHERE queued.job_id IS NOT NULL
), found AS MATERIALIZED (
    SELECT job_id FROM queued WHERE job_id IS NOT NULL LIMIT %(max_jobs)s
), counted AS MATERIALIZED (
    SELECT found.job_id,
        (SELECT COUNT(*) FROM (
            SELECT 1 FROM zndraw_joblib_task
            WHERE job_id = found.job_id AND status = 'pending'
                AND due_at <= REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')
                    || '000', '.000000', '')
            ORDER BY due_at, id LIMIT %(limit)s
        )) AS number,
        (SELECT due_at FROM zndraw_joblib_task
         WHERE job_id = found.job_id AND status = 'pending'
         ORDER BY due_at, id LIMIT 1) AS oldest
    FROM found
)
SELECT job.room_id, job.category, job.name, counted.number,
    (JULIANDAY('NOW') - JULIANDAY(counted.oldest)) * 86400
FROM counted JOIN zndraw_joblib_job job ON job.id = counted.job_id
WHERE counted.number > 0;

-- name: count_held
SELECT status, COUNT(*), (JULIANDAY('NOW') - JULIANDAY(MIN(lease_expires_at))) * 86400
FROM (
    SELECT status, lease_expires_at FROM zndraw_joblib_task
    WHERE status IN ('claimed', 'running')
    ORDER BY lease_expires_at LIMIT %(limit)s
)
GROUP BY status;
