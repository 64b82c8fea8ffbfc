"""Fills tables with up to a million tasks in SQL, by copying one existing task.

Columns that are not named here are copied from that task, so that a new column needs no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString, cast

import psycopg


@dataclass(frozen=True)
class Table:
    """Names and SQL expressions of one project's tables."""

    tasks: str
    jobs: str
    #: SQL expression of a new id.
    new_id: str
    #: Format of a status: the SQL expression of its name in lower case is inserted.
    status: str

    def status_sql(self, status: str) -> str:
        """The SQL expression of a status, from the expression of its name in lower case."""
        return self.status.format(status)


OURS = Table("zndraw_joblib_task", "zndraw_joblib_job", "uuidv7()", "{}")
ORIGINAL = Table("task", "job", "gen_random_uuid()", "upper({})::taskstatus")

#: The first job has 90 % of the tasks. The rest is spread over 47 others, unevenly: earlier jobs
#: have more, and every fifth has none, so that workers with ten jobs meet empty ones too.
UNEVEN = """
    (known.jobs)[1 + CASE WHEN random() < 0.9 THEN 0
                     WHEN die.r % 5 = 4 THEN die.r - 1 ELSE die.r END]"""


def multiply(
    connection: psycopg.Connection[Any], table: Table, count: int, values: dict[str, str]
) -> None:
    """Insert `count` copies of a task with these values, SQL that may use the copy's number `g`."""
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = %s AND table_schema = 'public' AND is_generated = 'NEVER'"
        " ORDER BY ordinal_position",
        [table.tasks],
    ).fetchall()
    columns = [row[0] for row in rows]
    values = {"id": table.new_id, "job_id": UNEVEN, **values}
    chosen = [values.get(name, f'model."{name}"') for name in columns]
    execute(
        connection,
        f"""
        INSERT INTO {table.tasks} ({", ".join(f'"{name}"' for name in columns)})
        SELECT {", ".join(chosen)}
        FROM (SELECT * FROM {table.tasks} LIMIT 1) model
        CROSS JOIN (SELECT array_agg(id ORDER BY name) AS jobs FROM {table.jobs}) known
        CROSS JOIN generate_series(1, {count}) g
        CROSS JOIN LATERAL (SELECT 1 + g * 0 + floor(59 * power(random(), 2))::int AS r) die
        """,
    )


def history(connection: psycopg.Connection[Any], table: Table, count: int) -> None:
    """Replace the only task by `count` completed tasks of two days ago."""
    seed = connection.execute(f"SELECT id FROM {table.tasks} LIMIT 1".encode()).fetchone()
    made = "now() - interval '2 days' + g * interval '50 ms'"
    multiply(
        connection,
        table,
        count,
        {
            "status": table.status_sql("'completed'"),
            "created_at": made,
            "started_at": f"{made} + interval '10 ms'",
            "completed_at": f"{made} + interval '20 ms'",
        },
    )
    connection.execute(f"DELETE FROM {table.tasks} WHERE id = %s".encode(), seed)


def week(connection: psycopg.Connection[Any], count: int) -> None:
    """Add `count` tasks that ended over the last week; one in twenty failed, with ten errors."""
    made = f"now() - interval '7 days' + g * interval '604790 s' / {count}"
    multiply(
        connection,
        OURS,
        count,
        {
            # The ids begin with the time of the submit, because submits are counted by them.
            "id": f"uuidv7({made} - now())",
            "status": "CASE WHEN g % 20 = 0 THEN 'failed' ELSE 'completed' END",
            "error": "CASE WHEN g % 20 = 0 THEN 'no ' || chr(65 + g / 20 % 10) || ' at ' || g END",
            "attempt": "1",
            "created_at": made,
            "claimed_at": f"{made} + random() * interval '5 s'",
            "started_at": f"{made} + interval '5 s'",
            "completed_at": f"{made} + interval '5 s' + random() * interval '4 s'",
        },
    )


def lives(connection: psycopg.Connection[Any]) -> None:
    """Give each of our tasks a line of a log, and every tenth an earlier attempt."""
    execute(
        connection,
        """
        INSERT INTO zndraw_joblib_tasklogchunk (task_id, start, text)
        SELECT id, 0, 'a line of a log' FROM zndraw_joblib_task
        """,
    )
    execute(
        connection,
        """
        INSERT INTO zndraw_joblib_taskattempt (task_id, attempt, outcome, ended_at)
        SELECT id, 1, 'lost', completed_at FROM zndraw_joblib_task WHERE random() < 0.1
        """,
    )


def backlog(connection: psycopg.Connection[Any], table: Table, count: int) -> None:
    """Add `count` pending tasks, submitted over the last day."""
    if count:
        multiply(
            connection,
            table,
            count,
            {
                "status": table.status_sql("'pending'"),
                "created_at": f"now() - interval '1 day' + g * interval '86000 s' / {count}",
                "started_at": "NULL",
                "completed_at": "NULL",
            },
        )


def scheduled(connection: psycopg.Connection[Any], count: int) -> None:
    """Add `count` pending tasks that are due from tomorrow on."""
    multiply(
        connection,
        OURS,
        count,
        {
            "status": "'pending'",
            "created_at": "now() - interval '1 hour'",
            "run_at": f"now() + interval '1 day' + g * interval '86000 s' / {count}",
            "started_at": "NULL",
            "completed_at": "NULL",
        },
    )


def big(connection: psycopg.Connection[Any], count: int, dead: int) -> None:
    """Fill a room with `count` tasks of all statuses; `dead` dead workers hold a tenth of them."""
    execute(
        connection,
        f"""
        INSERT INTO zndraw_joblib_worker (id, identity, created_at, last_heartbeat)
        SELECT 'dead-' || n, 'bench', now() - interval '2 hours', now() - interval '1 hour'
        FROM generate_series(1, {dead}) n
        """,
    )
    execute(
        connection,
        """
        INSERT INTO zndraw_joblib_workerjoblink (worker_id, job_id)
        SELECT worker.id, job.id FROM zndraw_joblib_worker worker
        CROSS JOIN LATERAL (
            SELECT id FROM zndraw_joblib_job
            WHERE name = 'Job' || lpad((length(worker.id) * 7 % 100)::text, 3, '0')
        ) job
        """,
    )
    status = """CASE WHEN g % 10 = 0 THEN CASE WHEN g % 20 = 0 THEN 'running' ELSE 'claimed' END
        WHEN g % 100 < 18 THEN 'pending' WHEN g % 100 < 88 THEN 'completed'
        WHEN g % 100 < 95 THEN 'failed' ELSE 'cancelled' END"""
    made = f"now() - interval '1 day' + g * interval '80000 s' / {count}"
    held, ended = "g % 10 = 0", "g % 10 <> 0 AND g % 100 >= 18"
    multiply(
        connection,
        OURS,
        count,
        {
            "status": status,
            "created_at": made,
            "started_at": f"CASE WHEN g % 20 = 0 OR ({ended}) THEN {made} END",
            "completed_at": f"CASE WHEN {ended} THEN {made} END",
            "worker_id": f"CASE WHEN {held} THEN 'dead-' || (1 + (g / 10) % {dead}) END",
            "worker_identity": f"CASE WHEN {held} THEN 'bench' ELSE '' END",
            "lease_expires_at": f"CASE WHEN {held} THEN now() - interval '30 min' END",
            "attempt": f"CASE WHEN {held} OR ({ended}) THEN 1 ELSE 0 END",
            "retries_left": "CASE WHEN g % 80 = 0 THEN 1 ELSE 0 END",
        },
    )


def execute(connection: psycopg.Connection[Any], sql: str) -> None:
    """Execute SQL that is composed of this module's own text only."""
    connection.execute(cast("LiteralString", sql))
