"""What PostgreSQL and SQLite say differently in the statements of the hot paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from zndraw_joblib.storage.fields import json_dumps

#: `queue_position` is counted up to here and no further.
MAX_QUEUE_POSITION = 1000

#: Pending tasks of the worker's jobs, so many of each at most: found by the index on
#: ``(job_id, created_at, id) WHERE status = 'pending'``, so a backlog of any length costs the same.
_HEADS = """
    SELECT head.job_id, head.created_at, head.id
    FROM {link} link
    JOIN {worker} worker ON worker.id = link.worker_id
    CROSS JOIN LATERAL (
        SELECT job_id, created_at, id FROM {task}
        WHERE job_id = link.job_id AND status = 'pending'
        ORDER BY created_at, id LIMIT {limit}
    ) head
    WHERE link.worker_id = %(worker)s AND worker.identity = %(identity)s
    ORDER BY head.created_at, head.id"""

#: Heads by age, then one row that nobody else holds is locked: locking in the first probe would
#: lock a row of every job. MATERIALIZED, or a plan may run a LIMIT twice.
_PICK_ONE = f"""
    WITH heads AS MATERIALIZED ({_HEADS.replace("{limit}", "1")}), picked AS MATERIALIZED (
        SELECT locked.id
        FROM (SELECT job_id FROM heads ORDER BY created_at, id) oldest
        CROSS JOIN LATERAL (
            SELECT id FROM {{task}}
            WHERE job_id = oldest.job_id AND status = 'pending'
            ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
        ) locked
        LIMIT 1
    )
    SELECT id FROM picked"""

#: How many of the oldest each job holds is looked at without locks; each job then gives so many
#: that nobody else holds, so that claimers beside each other get different tasks.
_PICK_MANY = f"""
    WITH shares AS MATERIALIZED (
        SELECT job_id, COUNT(*) AS share
        FROM ({_HEADS.replace("{limit}", "%(limit)s")} LIMIT %(limit)s) oldest GROUP BY job_id
    ), picked AS MATERIALIZED (
        SELECT locked.id
        FROM shares
        CROSS JOIN LATERAL (
            SELECT id FROM {{task}}
            WHERE job_id = shares.job_id AND status = 'pending'
            ORDER BY created_at, id LIMIT shares.share FOR UPDATE SKIP LOCKED
        ) locked
    )
    SELECT id FROM picked"""

_PICK_SQLITE = """
    SELECT head.id
    FROM {link} link
    JOIN {worker} worker ON worker.id = link.worker_id
    JOIN {task} head ON head.id IN (
        SELECT id FROM {task}
        WHERE job_id = link.job_id AND status = 'pending'
        ORDER BY created_at, id LIMIT %(limit)s
    )
    WHERE link.worker_id = %(worker)s AND worker.identity = %(identity)s
    ORDER BY head.created_at, head.id LIMIT %(limit)s"""

_NOW_SQLITE = "REPLACE(STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW') || '000', '.000000', '')"


@dataclass(frozen=True)
class Dialect:
    """What the two databases say differently."""

    now: str
    #: `lease` from now.
    later: str
    lease: Callable[[timedelta], Any]
    uuid: Callable[[UUID], Any]
    #: A list of values as one parameter.
    array: Callable[[list[Any]], Any]
    #: Whether parameters need their types said.
    typed: bool
    pick_one: str
    pick_many: str
    among: str
    #: Ids that a query chose, so that their rows are found by the primary key: a join might read
    #: the whole table for what it takes for many.
    chosen: str
    #: The first tasks of the queue of each of some jobs.
    queues: str
    #: Takes the rows in one order, so that nobody waits in a circle.
    lock: str
    #: The same, passing over rows that somebody else holds.
    lock_free: str
    #: A shared lock on a job's row keeps it from being retired, and submits do not wait for each
    #: other. A foreign key's own lock would not do.
    share: str
    #: What a statement inserts itself is not ahead of it.
    ahead: str
    json: str
    #: A payload as JSON. Lookups by value compare the text on SQLite: it is written as Django does.
    text: Callable[[Any], str]
    integer: str


DIALECTS = {
    "postgresql": Dialect(
        now="STATEMENT_TIMESTAMP()",
        later="STATEMENT_TIMESTAMP() + %(lease)s::interval",
        lease=lambda lease: lease,
        uuid=lambda value: value,
        array=lambda values: values,
        pick_one=_PICK_ONE,
        pick_many=_PICK_MANY,
        typed=True,
        among="= ANY(%(ids)s::uuid[])",
        chosen="= ANY(ARRAY({0}))",
        queues=f"""{{job}} job CROSS JOIN LATERAL (
                SELECT job_id, created_at, id FROM {{task}}
                WHERE job_id = job.id AND status = 'pending'
                ORDER BY created_at, id LIMIT {MAX_QUEUE_POSITION - 1}
            ) head
            WHERE job.id = ANY(%(jobs)s::uuid[])""",
        lock="FOR UPDATE OF held",
        lock_free="FOR UPDATE OF held SKIP LOCKED",
        share="FOR SHARE",
        ahead="TRUE",
        json="::jsonb",
        text=json_dumps,
        integer="::integer",
    ),
    "sqlite": Dialect(
        now=_NOW_SQLITE,
        later=f"django_format_dtdelta('+', {_NOW_SQLITE}, %(lease)s)",
        lease=lambda lease: lease // timedelta(microseconds=1),
        uuid=lambda value: value.hex,
        array=json.dumps,
        pick_one=_PICK_SQLITE,
        pick_many=_PICK_SQLITE,
        typed=False,
        among="IN (SELECT value FROM json_each(%(ids)s))",
        chosen="IN ({0})",
        queues=f"""{{job}} job JOIN {{task}} head ON head.id IN (
                SELECT id FROM {{task}} WHERE job_id = job.id AND status = 'pending'
                ORDER BY created_at, id LIMIT {MAX_QUEUE_POSITION - 1}
            )
            WHERE job.id IN (SELECT value FROM json_each(%(jobs)s))""",
        lock="",
        lock_free="",
        share="",
        ahead="id NOT IN (SELECT id FROM {new})",
        json="",
        text=json.dumps,
        integer="",
    ),
}


#: Columns of the parameters of a statement, and their types.
REPORTS = {"id": "uuid", "attempt": "integer", "error": "text"}
GRANTS = {"id": "uuid", "attempt": "integer"}
PAYLOADS = {"id": "uuid", "payload": "text"}


def typed(dialect: Dialect, name: str, columns: Mapping[str, str]) -> str:
    """The parameter of one of these columns."""
    return f"%({name})s::{columns[name]}" if dialect.typed else f"%({name})s"


def given(dialect: Dialect, columns: Mapping[str, str], one: bool) -> str:
    """A table `given` of parameters named like its columns: one row, or arrays of several.

    A statement about one row does without arrays: of those PostgreSQL must not guess how long they
    are, so it plans anew each time, which takes longer than to execute it.
    """
    if one:
        values = ", ".join(f"{typed(dialect, name, columns)} AS {name}" for name in columns)
        return f"(SELECT {values}) given"
    if dialect.typed:
        arrays = ", ".join(f"%({name})s::{kind}[]" for name, kind in columns.items())
        return f"unnest({arrays}) AS given({', '.join(columns)})"
    first, *others = columns
    joined = "".join(f" JOIN json_each(%({o})s) {o} ON {o}.key = {first}.key" for o in others)
    values = ", ".join(f"{name}.value AS {name}" for name in columns)
    return f"(SELECT {values} FROM json_each(%({first})s) {first}{joined}) given"


def rows_of(dialect: Dialect, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> Any:
    """The parameters of `given`."""
    values = {
        name: [dialect.uuid(value) for value in column] if kind == "uuid" else list(column)
        for (name, kind), column in zip(columns.items(), zip(*rows, strict=True), strict=True)
    }
    if len(rows) == 1:
        return {name: column[0] for name, column in values.items()}
    return {name: dialect.array(column) for name, column in values.items()}
