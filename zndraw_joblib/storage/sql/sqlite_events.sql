-- Statements about the changes in rooms on SQLite. postgresql_events.sql has the same names; see there
-- for the reason of each, and sqlite.sql for the rules that hold for all of them.

-- name: look_at_rooms
-- `writing` is null, because a reader does not see that another connection writes.
SELECT moment.now, moment.writing, changed.room_id, changed.id, changed.revision
FROM (
    SELECT REPLACE(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') || '000', '.000000', '') AS now,
        NULL AS writing
) moment
LEFT JOIN (
    SELECT task.room_id, task.id, task.revision
    FROM json_each(%(rooms)s) watched
    JOIN zndraw_joblib_task task ON task.id IN (
        SELECT latest.id FROM zndraw_joblib_task latest
        WHERE latest.room_id = watched.value AND latest.changed_at >= %(since)s
            AND latest.changed_at < REPLACE(
                STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW', '1 seconds') || '000', '.000000', '')
        ORDER BY latest.changed_at DESC LIMIT %(limit)s
    )
) changed ON true;

-- name: changed_tasks
SELECT id, changed_at FROM zndraw_joblib_task
WHERE room_id = %(room_id)s AND changed_at >= %(since)s
ORDER BY changed_at DESC LIMIT %(limit)s;

-- name: queued_tasks
SELECT task.id
FROM json_each(%(rooms)s) watched
JOIN zndraw_joblib_task task ON task.id IN (
    SELECT oldest.id FROM zndraw_joblib_task oldest
    WHERE oldest.room_id = watched.value AND oldest.status = 'pending'
    ORDER BY oldest.created_at, oldest.id LIMIT %(limit)s
);
