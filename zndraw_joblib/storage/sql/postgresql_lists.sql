-- Statements of lists of tasks over all rooms on PostgreSQL. See postgresql.sql for how this file is
-- read and for the rules that hold for all statements; sqlite_lists.sql has the same names.

-- name: newest_of_creator
-- The newest %(most)s tasks that an identity submitted, or those older than a time and id, each with
-- the answer whether it satisfies the filters. As in `newest_tasks` the newest of each status are
-- merged, here from the index joblib_task_creator. The filters stand in no WHERE, because a page that
-- few tasks satisfy would read all tasks of the identity.
SELECT newest.id, newest.created_at,
    newest.job_id = COALESCE(%(job_id)s::uuid, newest.job_id)
        AND newest.room_id = COALESCE(%(room_id)s, newest.room_id) AS is_match
FROM unnest(%(statuses)s::text[]) AS of_status(status)
CROSS JOIN LATERAL (
    SELECT task.created_at, task.id, task.job_id, task.room_id FROM zndraw_joblib_task task
    WHERE task.created_by = %(created_by)s AND task.status = of_status.status
        AND (task.created_at, task.id) < (
            COALESCE(%(before_time)s::timestamptz, 'infinity'),
            COALESCE(%(before_id)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        )
    ORDER BY task.created_at DESC, task.id DESC LIMIT %(most)s::integer
) newest
ORDER BY newest.created_at DESC, newest.id DESC LIMIT %(most)s::integer;

-- name: newest_of_all
-- As `newest_of_creator`, for all identities. By the ids, which begin with the time, because no index
-- lists all tasks by `created_at`.
SELECT newest.id, newest.created_at,
    newest.status = COALESCE(%(status)s, newest.status)
        AND newest.job_id = COALESCE(%(job_id)s::uuid, newest.job_id)
        AND newest.room_id = COALESCE(%(room_id)s, newest.room_id) AS is_match
FROM zndraw_joblib_task newest
WHERE newest.id < COALESCE(%(before_id)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
ORDER BY newest.id DESC LIMIT %(most)s::integer;

-- name: result_sizes
-- Bytes of the results of tasks. PostgreSQL knows them without a read of the results.
SELECT task.id, OCTET_LENGTH(task.result)
FROM zndraw_joblib_task task
WHERE task.id = ANY(ARRAY(SELECT unnest(%(ids)s::uuid[]))) AND task.result IS NOT NULL;
