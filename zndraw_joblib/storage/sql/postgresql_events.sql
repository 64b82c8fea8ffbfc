-- Statements about the changes in rooms on PostgreSQL. See postgresql.sql for how this file is read and
-- for the rules that hold for all statements; sqlite_events.sql has the same names.

-- name: look_at_rooms
-- The tasks of rooms that changed since %(since)s, up to %(limit)s a room, the latest first; and the
-- transactions of this database that have written something and not ended, with the time at which
-- each began. One row at least, because the clock and the transactions are needed without any
-- change. `xact_start` is null for sessions of other roles, which an ordinary role may not see.
-- No change lies ahead of the clock, unless the clock went back; those would be read at each look.
SELECT moment.now, moment.writing, changed.room_id, changed.id, changed.revision
FROM (
    SELECT STATEMENT_TIMESTAMP() AS now, (
        SELECT json_agg(json_build_array(
            activity.pid || '/' || activity.backend_xid, activity.xact_start))
        FROM pg_stat_activity activity
        WHERE activity.backend_xid IS NOT NULL AND activity.datname = current_database()
    )::text AS writing
) moment
LEFT JOIN (
    SELECT watched.room_id, latest.id, latest.revision
    FROM unnest(%(rooms)s::text[]) AS watched(room_id)
    CROSS JOIN LATERAL (
        SELECT task.id, task.revision FROM zndraw_joblib_task task
        WHERE task.room_id = watched.room_id AND task.changed_at >= %(since)s::timestamptz
            AND task.changed_at < STATEMENT_TIMESTAMP() + INTERVAL '1 second'
        ORDER BY task.changed_at DESC LIMIT %(limit)s::integer
    ) latest
) changed ON true;

-- name: changed_tasks
-- The tasks of a room that changed since %(since)s, the latest first, up to %(limit)s, also those
-- that lie ahead of the clock.
SELECT task.id, task.changed_at FROM zndraw_joblib_task task
WHERE task.room_id = %(room_id)s AND task.changed_at >= %(since)s::timestamptz
ORDER BY task.changed_at DESC LIMIT %(limit)s::integer;

-- name: queued_tasks
-- The oldest pending tasks of rooms, up to %(limit)s a room.
SELECT oldest.id
FROM unnest(%(rooms)s::text[]) AS watched(room_id)
CROSS JOIN LATERAL (
    SELECT task.id FROM zndraw_joblib_task task
    WHERE task.room_id = watched.room_id AND task.status = 'pending'
    ORDER BY task.created_at, task.id LIMIT %(limit)s::integer
) oldest;
