-- Statements of lists of tasks over all rooms on SQLite. postgresql_lists.sql has the same names; see
-- there for the reason of each, and sqlite.sql for the rules that hold for all of them.

-- name: newest_of_creator
SELECT newest.id, newest.created_at,
    newest.job_id = COALESCE(%(job_id)s, newest.job_id)
        AND newest.room_id = COALESCE(%(room_id)s, newest.room_id) AS is_match
FROM json_each(%(statuses)s) of_status
JOIN zndraw_joblib_task newest ON newest.id IN (
    SELECT task.id FROM zndraw_joblib_task task
    WHERE task.created_by = %(created_by)s AND task.status = of_status.value
        AND (task.created_at, task.id) < (
            COALESCE(%(before_time)s, '9999-12-31'),
            COALESCE(%(before_id)s, 'ffffffffffffffffffffffffffffffff')
        )
    ORDER BY task.created_at DESC, task.id DESC LIMIT %(most)s
)
ORDER BY newest.created_at DESC, newest.id DESC LIMIT %(most)s;

-- name: newest_of_all
SELECT newest.id, newest.created_at,
    newest.status = COALESCE(%(status)s, newest.status)
        AND newest.job_id = COALESCE(%(job_id)s, newest.job_id)
        AND newest.room_id = COALESCE(%(room_id)s, newest.room_id) AS is_match
FROM zndraw_joblib_task newest
WHERE newest.id < COALESCE(%(before_id)s, 'ffffffffffffffffffffffffffffffff')
ORDER BY newest.id DESC LIMIT %(most)s;

-- name: result_sizes
SELECT task.id, LENGTH(CAST(task.result AS BLOB))
FROM zndraw_joblib_task task
WHERE task.id IN (SELECT value FROM json_each(%(ids)s)) AND task.result IS NOT NULL;
