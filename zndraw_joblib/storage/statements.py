"""The statements of the hot paths: one round trip each, for PostgreSQL and SQLite.

They are written by hand because the ORM compiles a query anew for each request, which costs more
than the database does, and because it cannot say "heads, then lock one". Each is conditional: the
rows that it returns decide who won. Other databases are served by the ORM, see `querysets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.apps import apps
from django.db import connections

from zndraw_joblib.lifecycle import LEASED_STATUSES, TaskStatus, sources
from zndraw_joblib.storage import prepared
from zndraw_joblib.storage.dialects import (
    DIALECTS,
    GRANTS,
    MAX_QUEUE_POSITION,
    PAYLOADS,
    REPORTS,
    Dialect,
    given,
    rows_of,
    typed,
)
from zndraw_joblib.storage.rows import Reader, Rows, reader

if TYPE_CHECKING:
    from zndraw_joblib.models import Task


class Report(NamedTuple):
    """What a worker says of a task; with `attempt` None its identity alone is the fence."""

    task_id: UUID
    attempt: int | None
    error: str | None = None


class Beat(NamedTuple):
    """A heartbeat as written, and whether the worker holds tasks."""

    worker_id: str
    last_heartbeat: datetime
    holds: bool


def listed(statuses: frozenset[TaskStatus]) -> str:
    """The statuses as SQL literals, so that the planner sees which partial index they match."""
    return ", ".join(f"'{status}'" for status in sorted(statuses))


#: The status of a row that is found by its id. As it stands the planner would see that it implies a
#: partial index, and might come through that one when it takes those rows for few.
BY_ID = "COALESCE({0}.status, '')"


def supports(using: str) -> bool:
    """Whether statements are written for this database."""
    return connections[using].vendor in DIALECTS


def claim(
    using: str, worker_id: str, identity: str, lease: timedelta, limit: int, start: bool
) -> Rows[Task]:
    """Grant the worker up to `limit` of the oldest pending tasks of its jobs.

    With `start` they run at once. On PostgreSQL a claim of several may come back empty while
    others hold what it chose; a claim of one does not.
    """
    params = {
        "worker": worker_id,
        "identity": identity,
        "lease": _dialect(using).lease(lease),
        "limit": limit,
    }
    text = _claim(connections[using].vendor, limit == 1, start)
    return _tasks(using, text, params, by=("created_at", "id"))


@cache
def _claim(vendor: str, one: bool, start: bool) -> str:
    dialect = DIALECTS[vendor]
    pick = dialect.pick_one if one else dialect.pick_many
    status = TaskStatus.RUNNING if start else TaskStatus.CLAIMED
    started = f", started_at = {dialect.now}" if start else ""
    return f"""
        UPDATE {{task}} SET status = '{status}', attempt = attempt + 1, worker_id = %(worker)s,
            worker_identity = %(identity)s, lease_expires_at = {dialect.later}{started}
        WHERE id {dialect.chosen.format(pick)} AND {BY_ID.format("{task}")} = 'pending'
        RETURNING {{columns}}, {{job_full_name}}"""


def report(using: str, status: TaskStatus, reports: Sequence[Report], identity: str) -> Rows[Task]:
    """Move those tasks that this identity's workers hold by these attempts."""
    dialect = _dialect(using)
    params = {"identity": identity, **rows_of(dialect, REPORTS, reports)}
    return _tasks(using, _report(connections[using].vendor, status, len(reports) == 1), params)


@cache
def _report(vendor: str, status: TaskStatus, one: bool) -> str:
    dialect = DIALECTS[vendor]
    match status:
        case TaskStatus.RUNNING:
            values = f"started_at = {dialect.now}"
        case TaskStatus.COMPLETED:
            values = f"completed_at = {dialect.now}, lease_expires_at = NULL"
        case _:
            error = typed(dialect, "error", REPORTS) if one else "held.error"
            values = f"completed_at = {dialect.now}, lease_expires_at = NULL, error = {error}"
    movable = f"IN ({listed(sources(status) & LEASED_STATUSES)})"
    if one:
        # No other row is locked, so nobody waits in a circle.
        attempt = typed(dialect, "attempt", REPORTS)
        return f"""
        UPDATE {{task}} SET status = '{status}', {values}
        WHERE id = {typed(dialect, "id", REPORTS)} AND {BY_ID.format("{task}")} {movable}
            AND worker_identity = %(identity)s AND attempt = COALESCE({attempt}, attempt)
        RETURNING {{columns}}, {{job_full_name}}"""
    return f"""
        UPDATE {{task}} SET status = '{status}', {values}
        FROM (
            SELECT held.id AS id, given.error AS error
            FROM {given(dialect, REPORTS, one=False)} JOIN {{task}} held ON held.id = given.id
            WHERE {BY_ID.format("held")} {movable}
                AND held.worker_identity = %(identity)s
                AND (given.attempt IS NULL OR held.attempt = given.attempt)
            ORDER BY held.id {dialect.lock}
        ) held
        WHERE {{task}}.id = held.id
        RETURNING {{columns}}, {{job_full_name}}"""


def submit(
    using: str,
    job: tuple[UUID, int],
    room_id: str,
    created_by: str,
    retries: int,
    payloads: Mapping[UUID, Any],
) -> Rows[Task]:
    """Accept tasks of a job, unless it was retired or its revision is another one by now.

    `payloads` are by the ids of the new tasks, in their order.
    """
    dialect = _dialect(using)
    job_id, revision = job
    params = {
        "job": dialect.uuid(job_id),
        "revision": revision,
        "room": room_id,
        "by": created_by,
        "retries": retries,
        **rows_of(dialect, PAYLOADS, [(key, dialect.text(it)) for key, it in payloads.items()]),
    }
    rows = _run(using, _submit(connections[using].vendor, len(payloads) == 1), params)
    task = _reader(using)
    rows.sort(key=itemgetter(task.names.index("id")))
    placed = [
        (*row, min(ahead + number, MAX_QUEUE_POSITION))
        for number, (*row, ahead) in enumerate(rows, 1)
    ]
    return Rows(task, placed, "job_name", "queue_position")


@cache
def _submit(vendor: str, one: bool) -> str:
    dialect = DIALECTS[vendor]
    # Said so that the plan does not depend on which job it is: PostgreSQL would plan anew for each
    # whose queue it takes for shorter than most.
    same_job = f"SELECT {typed(dialect, 'job', {'job': 'uuid'})}"
    return f"""
        INSERT INTO {{task}} (id, job_id, room_id, created_by, payload, status, attempt,
            retries_left, worker_identity)
        SELECT given.id, offered.id, %(room)s, %(by)s, given.payload{dialect.json}, 'pending', 0,
            %(retries)s{dialect.integer}, ''
        FROM (
            SELECT id FROM {{job}}
            WHERE id = %(job)s AND revision = %(revision)s AND retired_at IS NULL {dialect.share}
        ) offered
        CROSS JOIN {given(dialect, PAYLOADS, one)}
        RETURNING {{columns}}, {{job_full_name}}, (
            SELECT COUNT(*) FROM (
                SELECT 1 FROM {{task}} WHERE job_id = ({same_job}) AND status = 'pending'
                    AND {dialect.ahead.format(new=given(dialect, PAYLOADS, one))}
                ORDER BY created_at, id LIMIT {MAX_QUEUE_POSITION - 1}
            ) counted
        )"""


def reserve(using: str, pk: str, request: str, task_id: UUID, ttl: timedelta) -> tuple[str, UUID]:
    """Keep a key for a task unless it is kept; the request and the task that it is kept for."""
    dialect = _dialect(using)
    params = {
        "key": pk,
        "request": request,
        "task": dialect.uuid(task_id),
        "lease": dialect.lease(-ttl),
    }
    ((kept, known),) = _run(using, _reserve(connections[using].vendor), params)
    return kept, UUID(str(known))


@cache
def _reserve(vendor: str) -> str:
    dialect = DIALECTS[vendor]
    anew = {
        "request": "excluded.request",
        "task_id": "excluded.task_id",
        "created_at": dialect.now,
    }
    expired = f"{{key}}.created_at < {dialect.later}"
    # Under the row's lock, as another submit may be about to renew it.
    changed = ", ".join(
        f"{name} = CASE WHEN {expired} THEN {value} ELSE {{key}}.{name} END"
        for name, value in anew.items()
    )
    return f"""
        INSERT INTO {{key}} (id, request, task_id, created_at)
        VALUES (%(key)s, %(request)s, %(task)s, {dialect.now})
        ON CONFLICT (id) DO UPDATE SET {changed}
        RETURNING request, task_id"""


def abandon(
    using: str, status: TaskStatus, why: str, limit: int, worker_id: str | None = None
) -> Rows[Task]:
    """Take up to `limit` claimed or running tasks from workers that will not end them.

    Those whose lease is over, passing over rows that somebody else is about to change; with
    `worker_id` that worker's, waiting for such rows. What runs is pending again while retries are
    left, and after that failed, because the worker ``<why>``.
    """
    params = {"why": why, "limit": limit, "worker": worker_id}
    return _tasks(using, _abandon(connections[using].vendor, status, worker_id is None), params)


@cache
def _abandon(vendor: str, status: TaskStatus, due: bool) -> str:
    dialect = DIALECTS[vendor]
    if due:
        which, order, lock = f"held.lease_expires_at < {dialect.now}", "", dialect.lock_free
    else:
        which, order, lock = "held.worker_id = %(worker)s", "ORDER BY held.id", dialect.lock
    if status == TaskStatus.CLAIMED:
        values = "status = 'pending', worker_id = NULL, started_at = NULL"
    else:
        again = "CASE WHEN retries_left > 0 THEN"
        values = f"""status = {again} 'pending' ELSE 'failed' END,
            worker_id = {again} NULL ELSE worker_id END,
            started_at = {again} NULL ELSE started_at END,
            completed_at = {again} NULL ELSE {dialect.now} END,
            error = {again} error ELSE 'Worker ''' || worker_id || ''' ' || %(why)s END,
            retries_left = {again} retries_left - 1 ELSE 0 END"""
    chosen = f"""
            SELECT held.id FROM {{task}} held
            WHERE held.status IN ({listed(LEASED_STATUSES)}) AND held.status = '{status}'
                AND {which}
            {order} LIMIT %(limit)s {lock}"""
    return f"""
        UPDATE {{task}} SET lease_expires_at = NULL, {values}
        WHERE id {dialect.chosen.format(chosen)}
        RETURNING {{columns}}, {{job_full_name}}"""


def read(using: str, ids: Iterable[UUID]) -> dict[UUID, Task]:
    """These tasks with all that their documents show."""
    return _found(using, ids, "queue_position")


def rows(using: str, ids: Iterable[UUID]) -> dict[UUID, Task]:
    """These tasks, without their places in queues."""
    return _found(using, ids)


def _found(using: str, ids: Iterable[UUID], *extra: str) -> dict[UUID, Task]:
    dialect = _dialect(using)
    wanted = [dialect.uuid(task_id) for task_id in ids]
    one = len(wanted) == 1
    params = {"ids": wanted[0] if one else dialect.array(wanted)}
    text = _read(connections[using].vendor, one, bool(extra))
    return {task.pk: task for task in _tasks(using, text, params, *extra)}


@cache
def _read(vendor: str, one: bool, placed: bool) -> str:
    return f"""
        SELECT {{columns}}, {{job_full_name}}{f", {QUEUE_POSITION}" if placed else ""}
        FROM {{task}} WHERE id {"= %(ids)s" if one else DIALECTS[vendor].among}"""


def newest(
    using: str, room_id: str, limit: int, before: tuple[datetime, UUID] | None
) -> list[UUID]:
    """Ids of a room's tasks, the newest first."""
    params: dict[str, Any] = {"room": room_id, "limit": limit}
    if before is not None:
        created, task_id = before
        adapt = connections[using].ops.adapt_datetimefield_value
        params |= {"created": adapt(created), "id": _dialect(using).uuid(task_id)}
    found = _run(using, _newest(before is None), params)
    return [UUID(str(task_id)) for (task_id,) in found]


@cache
def _newest(first: bool) -> str:
    # The newest of each status, which is found in the index by status, and of those the newest.
    before = "" if first else "AND (created_at, id) < (%(created)s, %(id)s)"
    order = "ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
    keys = " UNION ALL ".join(
        f"""SELECT * FROM (
            SELECT created_at, id FROM {{task}}
            WHERE room_id = %(room)s AND status = '{status}' {before} {order}
        ) {status}"""
        for status in TaskStatus
    )
    return f"SELECT id FROM ({keys}) keys {order}"


def positions(using: str, jobs: Iterable[UUID], ids: Iterable[UUID]) -> dict[UUID, int]:
    """Places in the queues of these jobs of those of these tasks that are among the first."""
    dialect = _dialect(using)
    params = {
        "jobs": dialect.array([dialect.uuid(job_id) for job_id in jobs]),
        "ids": dialect.array([dialect.uuid(task_id) for task_id in ids]),
    }
    found = _run(using, _positions(connections[using].vendor), params)
    return {UUID(str(task_id)): position for task_id, position in found}


@cache
def _positions(vendor: str) -> str:
    dialect = DIALECTS[vendor]
    return f"""
        SELECT ranked.id, ranked.position FROM (
            SELECT head.id AS id, ROW_NUMBER() OVER (
                PARTITION BY head.job_id ORDER BY head.created_at, head.id
            ) AS position
            FROM {dialect.queues}
        ) ranked
        WHERE ranked.id {dialect.among}"""


def beat(using: str, worker_id: str, identity: str) -> Beat | None:
    """Note that a worker of this identity lives; None when there is no such worker."""
    rows = _run(using, _beat(connections[using].vendor), {"id": worker_id, "identity": identity})
    if not rows:
        return None
    worker = reader(apps.get_model("zndraw_joblib", "Worker"), using).instance(rows[0], "holds")
    return Beat(worker.pk, worker.last_heartbeat, bool(worker.holds))


@cache
def _beat(vendor: str) -> str:
    return f"""
        UPDATE {{worker}} SET last_heartbeat = {DIALECTS[vendor].now}
        WHERE id = %(id)s AND identity = %(identity)s
        RETURNING {{worker_columns}}, EXISTS(
            SELECT 1 FROM {{task}}
            WHERE worker_id = {{worker}}.id AND status IN ({listed(LEASED_STATUSES)})
        )"""


def renew(
    using: str, worker_id: str, lease: timedelta, grants: Sequence[tuple[UUID, int]] | None
) -> set[tuple[UUID, int]]:
    """Make leases of a worker's tasks end `lease` from now: those granted, or all with None."""
    dialect = _dialect(using)
    params = {"worker": worker_id, "lease": dialect.lease(lease)}
    if grants is not None:
        params |= rows_of(dialect, GRANTS, grants)
    statement = _renew(connections[using].vendor, grants is None, len(grants or ()) == 1)
    return {(UUID(str(task_id)), attempt) for task_id, attempt in _run(using, statement, params)}


@cache
def _renew(vendor: str, everything: bool, one: bool) -> str:
    dialect = DIALECTS[vendor]
    only = "" if everything else f"JOIN {given(dialect, GRANTS, one)} ON held.id = given.id"
    same = "" if everything else "AND held.attempt = given.attempt"
    status = "held.status" if everything else BY_ID.format("held")
    chosen = f"""
            SELECT held.id FROM {{task}} held {only}
            WHERE held.worker_id = %(worker)s AND {status} IN ({listed(LEASED_STATUSES)}) {same}
            ORDER BY held.id {dialect.lock}"""
    return f"""
        UPDATE {{task}} SET lease_expires_at = {dialect.later}
        WHERE id {dialect.chosen.format(chosen)}
        RETURNING id, attempt"""


#: The full name of a task's job as a column, so that an answer needs no second query.
JOB_FULL_NAME = (
    "(SELECT job.room_id || ':' || job.category || ':' || job.name"
    " FROM {job} job WHERE job.id = {task}.job_id)"
)

#: A pending task's place in its job's queue as a column, counted from 1; else NULL.
QUEUE_POSITION = f"""
    CASE WHEN {{task}}.status = 'pending' THEN 1 + (
        SELECT COUNT(*) FROM (
            SELECT 1 FROM {{task}} ahead
            WHERE ahead.job_id = {{task}}.job_id AND ahead.status = 'pending'
              AND (ahead.created_at, ahead.id) < ({{task}}.created_at, {{task}}.id)
            ORDER BY ahead.created_at, ahead.id LIMIT {MAX_QUEUE_POSITION - 1}
        ) counted
    ) END"""


@cache
def named(text: str, using: str) -> str:
    """A statement with the names of tables and columns filled in."""
    models: dict[str, Any] = {
        name: apps.get_model("zndraw_joblib", name) for name in ("Task", "Job", "Worker")
    }
    quote = connections[using].ops.quote_name
    names = {name.lower(): quote(model._meta.db_table) for name, model in models.items()}
    names["link"] = quote(models["Worker"].jobs.through._meta.db_table)
    names["key"] = quote(apps.get_model("zndraw_joblib", "IdempotencyKey")._meta.db_table)
    return text.format(
        **names,
        columns=reader(models["Task"], using).columns,
        worker_columns=reader(models["Worker"], using).columns,
        job_full_name=JOB_FULL_NAME.format(**names),
    )


def _dialect(using: str) -> Dialect:
    return DIALECTS[connections[using].vendor]


def _run(using: str, text: str, params: Mapping[str, Any]) -> list[Any]:
    connection = connections[using]
    if prepared.applies(connection):
        return prepared.run(connection, named(text, using), params)
    with connection.cursor() as cursor:
        cursor.execute(named(text, using), params)
        rows: list[Any] = cursor.fetchall()
        return rows


def _tasks(
    using: str, text: str, params: Mapping[str, Any], *extra: str, by: Sequence[str] = ()
) -> Rows[Task]:
    rows, task = _run(using, text, params), _reader(using)
    if by:
        rows.sort(key=itemgetter(*map(task.names.index, by)))
    return Rows(task, rows, "job_name", *extra)


def _reader(using: str) -> Reader:
    return reader(apps.get_model("zndraw_joblib", "Task"), using)
