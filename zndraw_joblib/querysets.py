"""The set verbs: every change of a task's status is one conditional UPDATE in this file.

The rows that an UPDATE returns decide who won; nothing is read first and written back. Each verb
ends by announcing what it changed, after the transaction committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connections, models, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.expressions import Combinable, RawSQL
from django.db.models.functions import Coalesce
from django.db.models.sql.subqueries import UpdateQuery
from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.clock import Now
from zndraw_joblib.exceptions import IdempotencyKeyReused, TooManyPending, TooManyWorkers
from zndraw_joblib.lifecycle import (
    LEASED_STATUSES,
    UNFINISHED_STATUSES,
    TaskStatus,
    sources,
)
from zndraw_joblib.names import GLOBAL_ROOM, JobName

if TYPE_CHECKING:
    from zndraw_joblib.models import IdempotencyKey, Job, RoomBacklog, Task, Worker

#: Rows that one statement of a sweep changes at most.
BATCH = 500
#: `queue_position` is counted up to here and no further.
MAX_QUEUE_POSITION = 1000
#: Backlogs up to this limit are counted whenever no place is left.
EXACT_BACKLOG = 1000
#: A longer one that was full is not counted again for so long.
FULL_FOR = timedelta(seconds=1)

M = TypeVar("M", bound=models.Model)


class JobQuerySet(models.QuerySet["Job"]):
    """Verbs over jobs."""

    def live(self) -> Self:
        """Jobs that are offered: registered and not retired."""
        return self.filter(retired_at=None)

    def visible_from(self, room_id: str) -> Self:
        """Live jobs that may be used in a room: its own and the global ones."""
        return self.live().filter(room_id__in={room_id, GLOBAL_ROOM})

    def named(self, name: JobName) -> Self:
        """The job of that name, retired or not."""
        return self.filter(room_id=name.room_id, category=name.category, name=name.name)

    def with_worker_count(self) -> Self:
        """Annotate each job with `worker_count`."""
        links = self.model.workers.through._base_manager.filter(job=OuterRef("pk"))
        count = links.order_by().values("job").annotate(count=Count("pk")).values("count")
        return self.annotate(worker_count=Coalesce(Subquery(count), 0))

    def lock_shared(self, name: JobName) -> Job | None:
        """The live job of that name, kept from being retired until the transaction ends."""
        if connections[self.db].vendor != "postgresql":
            # SQLite has one writer at a time; elsewhere an exclusive lock does as well.
            return self.live().named(name).select_for_update().first()
        # The ORM knows FOR UPDATE and FOR NO KEY UPDATE only; submits must not wait for each other.
        table = self.model._meta.db_table
        rows = self.raw(
            f'SELECT * FROM "{table}" WHERE room_id = %s AND category = %s AND name = %s'
            " AND retired_at IS NULL FOR SHARE",
            [name.room_id, name.category, name.name],
        ).using(self.db)
        return next(iter(rows), None)

    def retire(self) -> int:
        """Retire up to `BATCH` jobs that have no worker and no unfinished task; say how many."""
        idle = self.live().filter(
            ~Exists(self.model.workers.through._base_manager.filter(job=OuterRef("pk"))),
            ~Exists(
                self.model.tasks.rel.related_model._base_manager.filter(
                    job=OuterRef("pk"), status__in=UNFINISHED_STATUSES
                )
            ),
        )
        with transaction.atomic(using=self.db):
            # Lock first and look again: a submit or a registration that held the row may have
            # committed in between.
            locked = list(locked_batch(idle).values_list("pk", flat=True))
            return idle.filter(pk__in=locked).update(retired_at=Now()) if locked else 0


class WorkerQuerySet(models.QuerySet["Worker"]):
    """Verbs over workers."""

    def enlist(self, identity: str, limit: int, worker_id: str | None = None) -> Worker:
        """Make a worker of this identity; with an id that is taken, return that worker.

        Raises
        ------
        TooManyWorkers
            The identity has `limit` workers.
        """
        with transaction.atomic(using=self.db):
            connection = connections[self.db]
            if connection.vendor == "postgresql":
                # One at a time for each identity, or two would both see the last free place.
                # SQLite has one writer at a time.
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))",
                        [self.model._meta.db_table, identity],
                    )
            if worker_id is not None and (known := self.filter(pk=worker_id).first()):
                return known
            if self.filter(identity=identity)[:limit].count() >= limit:
                raise TooManyWorkers(f"You have {limit} workers, as many as you may.")
            named = {} if worker_id is None else {"pk": worker_id}
            return self.create(identity=identity, **named)

    def stale(self, timeout: timedelta) -> Self:
        """Workers whose last heartbeat is older than `timeout`."""
        return self.filter(last_heartbeat__lt=Now() - timeout)

    def beat(self) -> list[Worker]:
        """Note a heartbeat now; returns the workers as written."""
        return update_returning(self, last_heartbeat=Now())

    def with_job_count(self) -> Self:
        """Annotate each worker with `job_count`."""
        through: Any = self.model.jobs.through
        links = through._base_manager.filter(worker=OuterRef("pk"))
        count = links.order_by().values("worker").annotate(count=Count("pk")).values("count")
        return self.annotate(job_count=Coalesce(Subquery(count), 0))

    def remove(self) -> list[str]:
        """Delete up to `BATCH` of these workers with their links; returns their ids."""
        with transaction.atomic(using=self.db):
            ids = list(locked_batch(self).values_list("pk", flat=True))
            # The condition is looked at again: a heartbeat may have come before the lock.
            removed = list(self.filter(pk__in=ids).values_list("pk", flat=True)) if ids else []
            if removed:
                self.model._base_manager.using(self.db).filter(pk__in=removed).delete()
            return removed


class IdempotencyKeyQuerySet(models.QuerySet["IdempotencyKey"]):
    """Verbs over the keys of submits."""

    def expired(self, ttl: timedelta) -> Self:
        """Keys older than `ttl`."""
        return self.filter(created_at__lt=Now() - ttl)

    def reserve(self, pk: str, request: str, task_id: UUID, ttl: timedelta) -> UUID:
        """Keep a key for a task, in the submit's own transaction; the id of the key's task.

        That is `task_id` for a new or expired key. Whoever comes while the first submit is still
        under way waits for its commit by the unique key. `request` is the digest of the body.

        Raises
        ------
        IdempotencyKeyReused
            The key was kept for another request.
        """
        wanted: IdempotencyKey = self.model(pk=pk, request=request, task_id=task_id)
        self.bulk_create([wanted], ignore_conflicts=True)
        kept = self.get(pk=pk)
        if kept.task_id == task_id:
            return task_id
        if (
            self.filter(pk=pk, task_id=kept.task_id)
            .expired(ttl)
            .update(request=request, task_id=task_id, created_at=Now())
        ):
            return task_id
        if kept.request != request:
            raise IdempotencyKeyReused
        known: UUID = kept.task_id
        return known

    def remove(self) -> int:
        """Delete up to `BATCH` of these keys; say how many."""
        with transaction.atomic(using=self.db):
            ids = list(locked_batch(self).values_list("pk", flat=True))
            # The condition is looked at again: a submit may have renewed a key before the lock.
            return self.filter(pk__in=ids).delete()[0] if ids else 0


class RoomBacklogQuerySet(models.QuerySet["RoomBacklog"]):
    """Verbs over the rooms' limits of pending tasks."""

    def admit(self, room_id: str, limit: int) -> None:
        """Let one more pending task into a room, in the submit's own transaction.

        Counting the backlog costs more the longer it is, so a count is drawn upon: it leaves so
        many places, each submit takes one, and only when none is left is the backlog counted
        again. Claims free places that the next count finds, so the limit is never exceeded by
        submits. Up to `EXACT_BACKLOG` that next count comes at once; beyond it a room that was
        full is counted again a second later.

        Raises
        ------
        TooManyPending
            No place is left. Tell `note_full` after the rollback.
        """
        room = self.filter(room_id=room_id)
        if room.filter(limit=limit, places__gt=0).update(places=F("places") - 1):
            return
        self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
        locked: RoomBacklog = room.select_for_update().get()
        # Another submit may have counted while this one waited for the lock.
        places = locked.places if locked.limit == limit else 0
        just_full = room.filter(limit=limit, full_at__gt=Now() - FULL_FOR)
        if not places and not (limit > EXACT_BACKLOG and just_full.exists()):
            tasks: Any = self.model._meta.apps.get_model("zndraw_joblib", "Task")
            pending = tasks.objects.using(self.db).filter(
                room_id=room_id, status=TaskStatus.PENDING
            )
            places = limit - pending.order_by()[:limit].count()
        if not places:
            raise TooManyPending(
                f"{limit} tasks are pending in this room, as many as may be.",
                headers={"Retry-After": "1"},
            )
        room.update(limit=limit, places=places - 1, full_at=None)

    def note_full(self, room_id: str, limit: int) -> None:
        """Remember that a room was just counted and found full."""
        if limit > EXACT_BACKLOG:
            self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
            room = self.filter(room_id=room_id).exclude(full_at__gt=Now() - FULL_FOR)
            room.update(limit=limit, places=0, full_at=Now())


class TaskQuerySet(models.QuerySet["Task"]):
    """Verbs over tasks: each returns the tasks that it changed, as they are now."""

    def leased(self) -> Self:
        """Tasks that a worker holds."""
        return self.filter(status__in=LEASED_STATUSES)

    def due(self) -> Self:
        """Tasks whose lease is over."""
        return self.leased().filter(lease_expires_at__lt=Now())

    def with_queue_position(self) -> Self:
        """Annotate `queue_position`: a pending task's place in its job's queue, from 1.

        Counted up to `MAX_QUEUE_POSITION`; None for tasks that are not pending.
        """
        position = _QUEUE_POSITION.format(**_tables(self.model), ahead=MAX_QUEUE_POSITION - 1)
        return self.annotate(
            queue_position=RawSQL(position, [], output_field=models.IntegerField(null=True))
        )

    def readable(self) -> Self:
        """With all that their documents show."""
        return self.select_related("job").with_queue_position()

    def granted(self, grants: Iterable[tuple[UUID, int]]) -> Self:
        """Tasks among these pairs of id and attempt."""
        # One term an attempt: SQLite takes no expression of a thousand terms.
        by_attempt = defaultdict(list)
        for task_id, attempt in grants:
            by_attempt[attempt].append(task_id)
        condition = Q(pk__in=[])
        for attempt, ids in by_attempt.items():
            condition |= Q(pk__in=ids, attempt=attempt)
        return self.filter(condition)

    def claim(self, worker_id: str, identity: str, lease: timedelta) -> Task | None:
        """Grant the worker the oldest pending task among its jobs; None when there is none.

        The attempt goes up by one and the lease ends `lease` from now.
        """
        pick = _PICK.get(connections[self.db].vendor)
        if pick:
            head = RawSQL(pick.format(**_tables(self.model)), [worker_id, identity])
            return self._grant(head, worker_id, identity, lease)
        with transaction.atomic(using=self.db):
            oldest = self.filter(
                status=TaskStatus.PENDING,
                job__workers=worker_id,
                job__workers__identity=identity,
            ).order_by("created_at", "id")
            return self._grant(
                oldest.select_for_update().values_list("pk", flat=True).first(),
                worker_id,
                identity,
                lease,
            )

    def _grant(self, task_id: Any, worker_id: str, identity: str, lease: timedelta) -> Task | None:
        claimed = self.filter(id=task_id)._move(
            TaskStatus.CLAIMED,
            signals.task_claimed,
            attempt=F("attempt") + 1,
            worker_id=worker_id,
            worker_identity=identity,
            lease_expires_at=Now() + lease,
        )
        return claimed[0] if claimed else None

    def renew(self, lease: timedelta) -> list[Task]:
        """Make the leases of those that are held end `lease` from now."""
        return update_returning(self.leased(), lease_expires_at=Now() + lease)

    def start(self) -> list[Task]:
        """Claimed -> running."""
        return self._move(TaskStatus.RUNNING, signals.task_started, started_at=Now())

    def complete(self) -> list[Task]:
        """Running -> completed."""
        return self._finish(TaskStatus.COMPLETED)

    def fail(self, error: str | None) -> list[Task]:
        """Running -> failed."""
        return self._finish(TaskStatus.FAILED, error=error)

    def cancel(self, error: str | None = None) -> list[Task]:
        """pending, claimed or running -> cancelled."""
        return self._finish(TaskStatus.CANCELLED, error=error)

    def requeue(self, **values: Any) -> list[Task]:
        """Claimed or running -> pending; the attempt stays until the next claim."""
        return self._move(
            TaskStatus.PENDING,
            signals.task_requeued,
            worker=None,
            lease_expires_at=None,
            started_at=None,
            **values,
        )

    def abandon(self, error: str | Combinable) -> tuple[list[Task], list[Task], list[Task]]:
        """End up to `BATCH` tasks that their worker will not: those requeued, retried, failed.

        Never started: pending again. Running: pending again while retries are left, failed with
        `error` (a text or an expression) after that.
        """
        with transaction.atomic(using=self.db):
            ids = list(locked_batch(self.leased()).values_list("pk", flat=True))
            # The conditions stand in the updates too: a heartbeat or a report may have been first.
            batch = self.filter(pk__in=ids)
            running = batch.filter(status=TaskStatus.RUNNING)
            failed = running.filter(retries_left=0)._finish(TaskStatus.FAILED, error=error)
            retried = running.requeue(retries_left=F("retries_left") - 1)
            return batch.requeue(), retried, failed

    def _finish(self, status: TaskStatus, **values: Any) -> list[Task]:
        return self._move(
            status,
            signals.task_finished,
            completed_at=Now(),
            lease_expires_at=None,
            **values,
        )

    def _move(self, status: TaskStatus, signal: Signal, **values: Any) -> list[Task]:
        movable = self.filter(status__in=sources(status))
        moved = update_returning(movable, self._job_name(), status=status, **values)
        return announce(signal, moved, self.db)

    def _job_name(self) -> str:
        # Comes with the changed row, so that an answer needs no second query.
        tables = _tables(self.model)
        return (
            "(SELECT job.room_id || ':' || job.category || ':' || job.name"
            f" FROM {tables['job']} job WHERE job.id = {tables['task']}.job_id) AS job_full_name"
        )


def announce(signal: Signal, tasks: list[Task], using: str) -> list[Task]:
    """Send `signal` for each task once the transaction committed; pass the tasks on."""
    for task in tasks:
        transaction.on_commit(
            partial(signal.send_robust, type(task), task=task), using=using, robust=True
        )
    return tasks


def locked_batch(queryset: models.QuerySet[M]) -> models.QuerySet[M]:
    """Lock up to `BATCH` rows, passing over those that somebody else holds."""
    features = connections[queryset.db].features
    return queryset.order_by().select_for_update(
        skip_locked=features.has_select_for_update_skip_locked
    )[:BATCH]


def update_returning(queryset: models.QuerySet[M], *extra: str, **values: Any) -> list[M]:
    """``UPDATE ... RETURNING``: change the rows in one statement and return them as they are now.

    `extra` are more columns as SQL, set as attributes. Where the database has no RETURNING, rows
    are locked, changed and read again, without those.
    """
    model: Any = queryset.model
    using = queryset.db
    connection = connections[using]
    everything = model._base_manager.using(using)
    if connection.vendor not in _PICK:
        with transaction.atomic(using=using, savepoint=False):
            ids = list(queryset.order_by().select_for_update().values_list("pk", flat=True))
            rows = everything.filter(pk__in=ids)
            rows.update(**values)
            return list(rows)
    query: Any = queryset.order_by().query.chain(UpdateQuery)
    query.add_update_values(values)
    try:
        sql, params = query.get_compiler(using).as_sql()
    except EmptyResultSet:  # Django sees that no row can match.
        return []
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    columns = [f"{table}.{quote(field.column)}" for field in model._meta.concrete_fields]
    return list(everything.raw(f"{sql} RETURNING {', '.join([*columns, *extra])}", params))


#: How a claim finds its task, per database that we write SQL for. Each probes the head of every
#: job by the index ``(job_id, created_at, id) WHERE status = 'pending'``, so the cost does not
#: grow with the backlog; the literal status lets the planner use that partial index.
#: PostgreSQL orders the heads by age and locks one row that nobody else holds: locking in the
#: first probe would lock a row of every job. MATERIALIZED, or a plan may run a LIMIT twice.
_PICK = {
    "postgresql": """
        WITH heads AS MATERIALIZED (
            SELECT head.job_id, head.created_at, head.id
            FROM {link} link
            JOIN {worker} worker ON worker.id = link.worker_id
            CROSS JOIN LATERAL (
                SELECT job_id, created_at, id FROM {task}
                WHERE job_id = link.job_id AND status = 'pending'
                ORDER BY created_at, id LIMIT 1
            ) head
            WHERE link.worker_id = %s AND worker.identity = %s
        ), picked AS MATERIALIZED (
            SELECT locked.id
            FROM (SELECT job_id FROM heads ORDER BY created_at, id) oldest
            CROSS JOIN LATERAL (
                SELECT id FROM {task}
                WHERE job_id = oldest.job_id AND status = 'pending'
                ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
            ) locked
            LIMIT 1
        )
        SELECT id FROM picked""",
    "sqlite": """
        SELECT head.id
        FROM {link} link
        JOIN {worker} worker ON worker.id = link.worker_id
        JOIN {task} head ON head.id = (
            SELECT id FROM {task}
            WHERE job_id = link.job_id AND status = 'pending'
            ORDER BY created_at, id LIMIT 1
        )
        WHERE link.worker_id = %s AND worker.identity = %s
        ORDER BY head.created_at, head.id LIMIT 1""",
}


_QUEUE_POSITION = """
    CASE WHEN {task}.status = 'pending' THEN 1 + (
        SELECT COUNT(*) FROM (
            SELECT 1 FROM {task} ahead
            WHERE ahead.job_id = {task}.job_id AND ahead.status = 'pending'
              AND (ahead.created_at, ahead.id) < ({task}.created_at, {task}.id)
            LIMIT {ahead}
        ) counted
    ) END"""


def _tables(task: type[Task]) -> dict[str, str]:
    job: Any = task._meta.get_field("job").related_model
    worker: Any = task._meta.get_field("worker").related_model
    tables = {"task": task, "job": job, "worker": worker, "link": worker.jobs.through}
    return {name: f'"{model._meta.db_table}"' for name, model in tables.items()}
