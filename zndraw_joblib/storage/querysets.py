"""The set verbs: every change of a task's status is one conditional UPDATE in this file.

The rows that an UPDATE returns decide who won; nothing is read first and written back. Each verb
ends by announcing what it changed, after the transaction committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connections, models, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Concat
from django.db.models.sql.subqueries import UpdateQuery
from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.exceptions import TooManyWorkers
from zndraw_joblib.lifecycle import (
    LEASED_STATUSES,
    TaskStatus,
    sources,
)
from zndraw_joblib.names import GLOBAL_ROOM, JobName
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.dialects import MAX_QUEUE_POSITION
from zndraw_joblib.storage.rows import reader
from zndraw_joblib.storage.statements import QUEUE_POSITION, Beat, Report

if TYPE_CHECKING:
    from zndraw_joblib.models import Job, Task, Worker

#: Rows that one statement of a sweep changes at most.
BATCH = 500

M = TypeVar("M", bound=models.Model)
S = TypeVar("S", bound="Sequence[Task]")


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

    def retire(self) -> int:
        """Retire up to `BATCH` jobs that have no worker and no unfinished task; say how many."""
        tasks = self.model.tasks.rel.related_model._base_manager
        idle = self.live().filter(
            ~Exists(self.model.workers.through._base_manager.filter(job=OuterRef("pk"))),
            # Each by its partial index: that of all of a job's tasks may be long.
            ~Exists(tasks.filter(job=OuterRef("pk"), status=TaskStatus.PENDING)),
            ~Exists(tasks.filter(job=OuterRef("pk"), status__in=LEASED_STATUSES)),
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

    def beat(self, worker_id: str, identity: str) -> Beat | None:
        """Note that this identity's worker lives; None when there is no such worker."""
        if statements.supports(self.db):
            return statements.beat(self.db, worker_id, identity)
        beaten = update_returning(
            self.filter(pk=worker_id, identity=identity), last_heartbeat=Now()
        )
        holds = [worker.tasks.leased().exists() for worker in beaten]
        return Beat(worker_id, beaten[0].last_heartbeat, holds[0]) if beaten else None

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
        position = RawSQL(statements.named(QUEUE_POSITION, self.db), [])
        position.output_field = models.IntegerField(null=True)
        return self.annotate(queue_position=position)

    def readable(self) -> Self:
        """With all that their documents show."""
        return self.select_related("job").with_queue_position()

    def newest(
        self, room_id: str, limit: int, before: tuple[datetime, UUID] | None = None
    ) -> list[UUID]:
        """Ids of up to `limit` tasks of a room, the newest first; those `before` a time and id."""
        if statements.supports(self.db):
            return statements.newest(self.db, room_id, limit, before)
        found = self.filter(room_id=room_id)
        if before is not None:
            created, task_id = before
            same = Q(created_at=created, id__lt=task_id)
            found = found.filter(same | Q(created_at__lt=created))
        return list(found.order_by("-created_at", "-id").values_list("pk", flat=True)[:limit])

    def listed(self, ids: Sequence[UUID]) -> list[Task]:
        """These tasks in this order with all that their documents show, as far as they exist.

        Tasks of a list are mostly of few jobs: the head of each queue is read once, where
        `with_queue_position` counts for every task.
        """
        by_statements = statements.supports(self.db)
        look = partial(statements.rows, self.db) if by_statements else self.read
        rows = look(ids) if ids else {}
        tasks = [rows[task_id] for task_id in ids if task_id in rows]
        pending = {task.pk: task for task in tasks if task.status == TaskStatus.PENDING}
        if by_statements and pending:
            jobs = {task.job_id for task in pending.values()}
            places = statements.positions(self.db, jobs, pending)
            for task_id, task in pending.items():
                task.queue_position = places.get(task_id, MAX_QUEUE_POSITION)
        return tasks

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

    def submit(
        self,
        job: Job,
        room_id: str,
        created_by: str,
        retries: int,
        payloads: Mapping[UUID, dict[str, Any]],
    ) -> Sequence[Task]:
        """Accept tasks of a job, by their ids; all of them, or none when the job is gone.

        It is gone when it was retired or has another revision by now. Each comes with its
        `queue_position`.
        """
        if statements.supports(self.db):
            made: Sequence[Task] = statements.submit(
                self.db, (job.pk, job.revision), room_id, created_by, retries, payloads
            )
        else:
            with transaction.atomic(using=self.db):
                jobs = type(job)._base_manager.using(self.db).filter(retired_at=None)
                if not jobs.filter(pk=job.pk, revision=job.revision).select_for_update().exists():
                    return []
                self.bulk_create(
                    self.model(
                        pk=task_id,
                        job=job,
                        room_id=room_id,
                        created_by=created_by,
                        retries_left=retries,
                        payload=payload,
                    )
                    for task_id, payload in payloads.items()
                )
                made = list(self.filter(pk__in=payloads).readable().order_by("id"))
        return self._announce(made, signals.task_submitted)

    def claim(self, worker_id: str, identity: str, lease: timedelta) -> Task | None:
        """Grant the worker the oldest pending task among its jobs; None when there is none."""
        return next(iter(self.claim_many(worker_id, identity, lease, 1)), None)

    def claim_many(
        self, worker_id: str, identity: str, lease: timedelta, limit: int, start: bool = False
    ) -> Sequence[Task]:
        """Grant the worker up to `limit` of the oldest pending tasks among its jobs, oldest first.

        The attempt goes up by one and the lease ends `lease` from now. With `start` the tasks run
        at once. It comes back empty only if nobody could be granted anything.
        """
        if statements.supports(self.db):
            granted: Sequence[Task] = statements.claim(
                self.db, worker_id, identity, lease, limit, start
            )
            if not granted and limit > 1:
                granted = statements.claim(self.db, worker_id, identity, lease, 1, start)
        else:
            granted = self._claim_by_orm(worker_id, identity, lease, limit, start)
        sent = (signals.task_claimed, signals.task_started) if start else (signals.task_claimed,)
        return self._announce(granted, *sent)

    def _claim_by_orm(
        self, worker_id: str, identity: str, lease: timedelta, limit: int, start: bool
    ) -> list[Task]:
        with transaction.atomic(using=self.db):
            job: Any = self.model._meta.get_field("job").related_model
            offered = job.objects.using(self.db)
            jobs = offered.filter(workers=worker_id, workers__identity=identity)
            pending = self.filter(status=TaskStatus.PENDING, job__in=list(jobs))
            ids = list(
                pending.order_by("created_at", "id")
                .select_for_update()
                .values_list("pk", flat=True)[:limit]
            )
            granted = update_returning(
                self.filter(pk__in=ids, status=TaskStatus.PENDING),
                status=TaskStatus.RUNNING if start else TaskStatus.CLAIMED,
                attempt=F("attempt") + 1,
                worker_id=worker_id,
                worker_identity=identity,
                lease_expires_at=Now() + lease,
                **({"started_at": Now()} if start else {}),
            )
            return sorted(granted, key=lambda task: (task.created_at, task.pk))

    def report(
        self, status: TaskStatus, reports: Sequence[Report], identity: str
    ) -> Sequence[Task]:
        """Move tasks that this identity's workers hold, by what they say of each.

        Tasks that moved are returned; one that is in no state to move, was granted to somebody
        else or by another attempt is not among them.
        """
        if statements.supports(self.db):
            return self._announce(
                statements.report(self.db, status, reports, identity), SIGNALS[status]
            )
        moved: list[Task] = []
        for task_id, attempt, error in reports:
            held = self.leased().filter(pk=task_id, worker_identity=identity)
            moved += held.by_attempt(attempt).move(status, error)
        return moved

    def by_attempt(self, attempt: int | None) -> Self:
        """Tasks granted by this attempt, or by any with None."""
        return self if attempt is None else self.filter(attempt=attempt)

    def read(self, ids: Iterable[UUID]) -> dict[UUID, Task]:
        """These tasks with all that their documents show, as far as they exist."""
        if statements.supports(self.db):
            return statements.read(self.db, ids)
        return self.readable().in_bulk(ids)

    def renew(
        self, worker_id: str, lease: timedelta, grants: Sequence[tuple[UUID, int]] | None
    ) -> set[tuple[UUID, int]]:
        """Make leases of a worker's tasks end `lease` from now; ids and attempts of those that do.

        `grants` are pairs of id and attempt; None renews all that the worker holds.
        """
        if statements.supports(self.db):
            return statements.renew(self.db, worker_id, lease, grants)
        held = self.leased().filter(worker_id=worker_id)
        if grants is not None:
            held = held.granted(grants)
        renewed = update_returning(held, lease_expires_at=Now() + lease)
        return {(task.pk, task.attempt) for task in renewed}

    def move(self, status: TaskStatus, error: str | None = None) -> list[Task]:
        """What a report of this status does."""
        match status:
            case TaskStatus.RUNNING:
                return self.start()
            case TaskStatus.COMPLETED:
                return self.complete()
            case TaskStatus.FAILED:
                return self.fail(error)
            case _:
                return self.cancel(error)

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

    def abandon(
        self, why: str, worker_id: str | None = None
    ) -> tuple[list[Task], list[Task], list[Task]]:
        """End up to `BATCH` of each that their worker will not: those requeued, retried, failed.

        Tasks whose lease is over, passing over those that somebody else is about to change; with
        `worker_id` that worker's, waiting for such rows. Never started: pending again. Running:
        pending again while retries are left, after that failed with ``Worker '<id>' <why>``.
        """
        if not statements.supports(self.db):
            return self._abandon_by_orm(why, worker_id)
        requeued, ended = (
            list(statements.abandon(self.db, status, why, BATCH, worker_id))
            for status in (TaskStatus.CLAIMED, TaskStatus.RUNNING)
        )
        retried = [task for task in ended if not task.is_terminal]
        failed = [task for task in ended if task.is_terminal]
        self._announce(requeued + retried, signals.task_requeued)
        self._announce(failed, signals.task_finished)
        return requeued, retried, failed

    def _abandon_by_orm(
        self, why: str, worker_id: str | None
    ) -> tuple[list[Task], list[Task], list[Task]]:
        abandoned = self.due() if worker_id is None else self.leased().filter(worker_id=worker_id)
        error = Concat(Value("Worker '"), F("worker_id"), Value(f"' {why}"))
        with transaction.atomic(using=self.db):
            locked = locked_batch(abandoned, wait=worker_id is not None)
            batch = self.filter(pk__in=list(locked.values_list("pk", flat=True)))
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

    def _announce(self, tasks: S, *sent: Signal) -> S:
        """Send these signals for each task once the transaction committed; pass the tasks on."""

        def send() -> None:
            for signal in sent:
                if signal.has_listeners(self.model):
                    for task in tasks:
                        signal.send_robust(self.model, task=task)
                signals.tasks_changed.send_robust(self.model, how=signal, tasks=tasks)

        if tasks:
            transaction.on_commit(send, using=self.db, robust=True)
        return tasks

    def _move(self, status: TaskStatus, signal: Signal, **values: Any) -> list[Task]:
        movable = self.filter(status__in=sources(status))
        moved = update_returning(movable, status=status, **values)
        return self._announce(moved, signal)


#: What is sent of a report.
SIGNALS = {
    TaskStatus.RUNNING: signals.task_started,
    TaskStatus.COMPLETED: signals.task_finished,
    TaskStatus.FAILED: signals.task_finished,
    TaskStatus.CANCELLED: signals.task_finished,
}


def locked_batch(queryset: models.QuerySet[M], *, wait: bool = False) -> models.QuerySet[M]:
    """Lock up to `BATCH` rows, passing over those that somebody else holds.

    With `wait` those are waited for, in the order of their keys, so that nobody waits in a circle.
    """
    features = connections[queryset.db].features
    return queryset.order_by(*["pk"] * wait).select_for_update(
        skip_locked=features.has_select_for_update_skip_locked and not wait
    )[:BATCH]


def update_returning(queryset: models.QuerySet[M], **values: Any) -> list[M]:
    """``UPDATE ... RETURNING``: change the rows in one statement and return them as they are now.

    Where the database has no RETURNING, rows are locked, changed and read again.
    """
    model: Any = queryset.model
    using = queryset.db
    if not statements.supports(using):
        everything = model._base_manager.using(using)
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
    rows = reader(model, using)
    with connections[using].cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {rows.columns}", params)
        return [rows.instance(row) for row in cursor.fetchall()]
