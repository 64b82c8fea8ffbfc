"""Creates workers, records their heartbeats and removes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from unicodedata import category
from uuid import UUID

from django.db import connections, router, transaction

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import TooManyWorkers, WorkerNotFound
from zndraw_joblib.models import MAX_IDENTITY_LENGTH, Job, Task, Worker, WorkerJobLink
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage import waits
from zndraw_joblib.storage.waits import GrantState, grant_states
from zndraw_joblib.storage.workers import WorkerQuerySet
from zndraw_joblib.text import Message

#: A task and the attempt that its worker was granted.
Grant = tuple[UUID, int]


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """A heartbeat as it was written. `gone` are the listed tasks that were not renewed."""

    worker_id: str
    last_heartbeat: datetime
    gone: Sequence[tuple[UUID, GrantState]] = ()

    def in_state(self, *states: GrantState) -> list[UUID]:
        """The listed tasks in one of these states."""
        return [task_id for task_id, state in self.gone if state in states]


def workers() -> WorkerQuerySet:
    """Workers on the database that is written to, because a replica may lag behind heartbeats."""
    queryset: WorkerQuerySet = Worker.objects.using(router.db_for_write(Worker))
    return queryset


def checked_worker_id(worker_id: str | None) -> str:
    """Return a worker's id that the database can look up.

    Raises
    ------
    WorkerNotFound
        The id is empty, too long or has control characters, so no worker has it.
    """
    if not worker_id or len(worker_id) > MAX_IDENTITY_LENGTH or has_controls(worker_id):
        raise WorkerNotFound
    return worker_id


def has_controls(text: str) -> bool:
    """Whether a text has control characters or surrogates; an identity may have any others."""
    # `isprintable` first, because it is fast and true for nearly every id.
    return not text.isprintable() and any(category(char) in {"Cc", "Cs"} for char in text)


def visible_workers(caller: Caller) -> WorkerQuerySet:
    """The caller's workers, or all for an administrator."""
    return workers() if caller.is_admin else _own(caller)


def workers_of_room(caller: Caller, room_id: str) -> WorkerQuerySet:
    """The workers that offer a job in a room, or a global one.

    Raises
    ------
    InvalidRoomId, WorkerNotFound
        The room id is not valid, or the caller may not read the room.
    """
    caller.require("read", room_id, hidden=WorkerNotFound)
    using = router.db_for_write(Job)
    jobs = Job.objects.using(using).visible_from(room_id)
    links = WorkerJobLink.objects.using(using).filter(job__in=jobs)
    return workers().filter(pk__in=links.values("worker"))


def own_worker(caller: Caller, worker_id: str | None) -> Worker:
    """One of the caller's workers; None is the default worker, which is made at its first use.

    Raises
    ------
    WorkerNotFound
        The caller has no such worker.
    TooManyWorkers
        The caller has no default worker, and `max_workers_per_identity` others.
    """
    worker_id = checked_worker_id(worker_id or caller.identity)
    worker: Worker | None = workers().filter(pk=worker_id).first()
    if worker is None and worker_id == caller.identity:
        limit = get_settings().max_workers_per_identity
        worker = create_worker(caller.identity, limit, worker_id)
    if worker is None or worker.identity != caller.identity:
        raise WorkerNotFound
    return worker


def create_own_worker(caller: Caller) -> Worker:
    """Make a worker of the caller for one process; returns it with `job_count`.

    Raises
    ------
    TooManyWorkers
        The caller has `max_workers_per_identity` workers.
    """
    with transaction.atomic(using=router.db_for_write(Worker)):
        made = create_worker(caller.identity, get_settings().max_workers_per_identity)
        # Read in the transaction, because a failed read must undo the insert.
        counted: Worker = workers().with_job_count().get(pk=made.pk)
        return counted


def create_worker(identity: str, limit: int, worker_id: str | None = None) -> Worker:
    """Make a worker of this identity; returns the existing worker if `worker_id` is taken.

    Raises
    ------
    TooManyWorkers
        The identity has `limit` workers.
    """
    using = router.db_for_write(Worker)
    with transaction.atomic(using=using):
        _lock_identity(using, identity)
        if worker_id is not None and (known := workers().filter(pk=worker_id).first()):
            found: Worker = known
            return found
        if workers().filter(identity=identity)[:limit].count() >= limit:
            raise TooManyWorkers(
                Message("You have {limit} workers, as many as you may.", limit=limit)
            )
        named = {} if worker_id is None else {"pk": worker_id}
        made: Worker = workers().create(identity=identity, **named)
        return made


def _lock_identity(using: str, identity: str) -> None:
    """Lock an identity until the commit, because two requests could both count `limit - 1` workers.

    SQLite needs no lock, because it has one writer at a time.
    """
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))",
                [Worker._meta.db_table, identity],
            )


def heartbeat(caller: Caller, worker_id: str, grants: Sequence[Grant] | None) -> HeartbeatReply:
    """Record a heartbeat of a worker and renew the leases of its tasks.

    `grants` are the tasks to renew; None renews all that the worker holds.

    Raises
    ------
    WorkerNotFound
        The caller has no such worker.
    """
    beat = Worker.objects.record_heartbeat(checked_worker_id(worker_id), caller.identity)
    if beat is None:
        raise WorkerNotFound
    renewed: set[Grant] = set()
    if beat.has_tasks and grants != []:
        renewed = Task.objects.renew(beat.worker_id, get_settings().lease, grants)
    gone = [grant for grant in grants or () if grant not in renewed]
    states = (
        grant_states(Task.objects.write_db, granted(caller, beat.worker_id, gone)) if gone else []
    )
    return HeartbeatReply(
        beat.worker_id,
        beat.last_heartbeat,
        [(task_id, state) for (task_id, _), state in zip(gone, states, strict=True)],
    )


def granted(caller: Caller, worker_id: str, grants: Sequence[Grant]) -> tuple[waits.Grant, ...]:
    """The grants of a worker of the caller, as `storage.waits` reads them."""
    return tuple(waits.Grant(*grant, worker_id, caller.identity) for grant in grants)


def remove_worker(caller: Caller, worker_id: str) -> None:
    """Remove a worker that the caller owns or administers.

    Raises
    ------
    WorkerNotFound
        The worker does not exist, or the caller neither owns it nor is an administrator.
    """
    worker: Worker | None = visible_workers(caller).filter(pk=checked_worker_id(worker_id)).first()
    if worker is None:
        raise WorkerNotFound
    deregister(worker)


def deregister(worker: Worker) -> None:
    """Remove a worker. Its claimed tasks are pending again, its running ones end as in a sweep."""
    using = router.db_for_write(Worker, instance=worker)
    tasks = Task.objects.db_manager(using)
    with transaction.atomic(using=using):
        rows = Worker.objects.using(using).filter(pk=worker.pk)
        # Locked before its links are deleted, because a registration locks the worker and then
        # waits for a link that is being deleted: each would wait for the other.
        rows.select_for_update().first()
        rows.delete()
        # Repeated, because a task that is left behind would wait for the end of its lease.
        while tasks.recover_from(worker.pk, "deregistered"):
            pass


def _own(caller: Caller) -> WorkerQuerySet:
    return workers().filter(identity=caller.identity)
