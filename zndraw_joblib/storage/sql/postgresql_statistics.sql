-- Statements of the sweeper's statistics for PostgreSQL; sqlite_statistics.sql has the same names.

-- name: read_horizon
-- The present time, and the time before which all ends and submits are committed. An end has the
-- time of its statement, which may be long before its commit. A transaction that has changed tasks,
-- or is about to, holds a lock of this mode from the beginning of its first such statement to its
-- end, and its statements are later than its own beginning. PostgreSQL hides the beginning from a role
-- that is neither the transaction's own nor in pg_read_all_stats; it counts as half a minute ago.
-- %(margin)s are the seconds between the time of a statement and its lock.
SELECT STATEMENT_TIMESTAMP(), LEAST(
    STATEMENT_TIMESTAMP() - make_interval(secs => %(margin)s::float8),
    (SELECT MIN(COALESCE(activity.xact_start, STATEMENT_TIMESTAMP() - INTERVAL '30 s'))
     FROM pg_locks held JOIN pg_stat_activity activity ON activity.pid = held.pid
     WHERE held.locktype = 'relation' AND held.relation = 'zndraw_joblib_task'::regclass
        AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND held.mode = 'RowExclusiveLock' AND held.pid <> pg_backend_pid()));

-- name: count_backlogs
-- The due and the scheduled tasks of each job, and when its oldest due one became due, from the
-- index joblib_task_claim.
SELECT job_id, COUNT(*) FILTER (WHERE due_at <= STATEMENT_TIMESTAMP()),
    COUNT(*) FILTER (WHERE due_at > STATEMENT_TIMESTAMP()),
    MIN(due_at) FILTER (WHERE due_at <= STATEMENT_TIMESTAMP())
FROM zndraw_joblib_task WHERE status = 'pending' GROUP BY job_id;

-- name: count_leased
-- The claimed and the running tasks of each job, from the index joblib_task_lease.
SELECT job_id, COUNT(*) FILTER (WHERE status = 'claimed'), COUNT(*) FILTER (WHERE status = 'running')
FROM zndraw_joblib_task WHERE status IN ('claimed', 'running') GROUP BY job_id;
