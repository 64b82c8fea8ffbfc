"""Submits tasks: checks payloads, Idempotency-Key and the room's limit, then inserts the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from threading import Lock
from typing import Any
from uuid import UUID

from cachetools import LRUCache
from django.db import connections, router, transaction
from django.dispatch import Signal

from zndraw_joblib import signals, tracing
from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import (
    FieldError,
    InvalidPayload,
    JobNotFound,
    TooManyPending,
)
from zndraw_joblib.models import IdempotencyKey, Job, RoomBacklog, Task
from zndraw_joblib.names import JobName, nfc
from zndraw_joblib.schemas import Budget, PayloadChecker
from zndraw_joblib.services.jobs import name_in_room
from zndraw_joblib.services.spans import record_spans
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import canonical_json, json_bytes, json_dumps, json_loads
from zndraw_joblib.storage.ids import consecutive_ids, new_ids
from zndraw_joblib.storage.rows import NewTask, TaskRow
from zndraw_joblib.text import Message

#: Most jobs that a process caches.
MAX_CACHED_JOBS = 1024
#: Most compiled schemas that a process keeps besides those of cached jobs.
MAX_CHECKERS = 64


@lru_cache(maxsize=MAX_CHECKERS)
def _checker_of(schema: str) -> PayloadChecker:
    """The checker of a schema by its text: in a transaction each submit reads the job again."""
    return PayloadChecker(json_loads(schema))


class CachedJob:
    """A live job as it was read, with its compiled schema."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._checker = _checker_of(json_dumps(job.schema))

    @property
    def version(self) -> tuple[UUID, int]:
        """Equal for two reads of a job between which its schema stayed the same."""
        return self.job.pk, self.job.revision

    def check(self, payloads: Sequence[Any]) -> None:
        """Check payloads against the schema and `max_payload_bytes`.

        Raises
        ------
        InvalidPayload
            `errors` point into ``/<index>/payload``.
        """
        limit = get_settings().max_payload_bytes
        budget = Budget(payloads=len(payloads))
        errors: list[FieldError] = []
        for index, payload in enumerate(payloads):
            text = json_bytes(payload)
            if len(text) > limit:
                found = [
                    FieldError(
                        Message("The payload must have at most {limit} bytes of JSON.", limit=limit)
                    )
                ]
            else:
                found = self._checker.errors(payload, budget, self.job.pk, text=text)
            errors += [
                FieldError(error.detail, f"/{index}/payload{error.pointer}") for error in found
            ]
        if errors:
            raise InvalidPayload(errors=errors)


class JobCache:
    """The jobs that a process submitted to lately.

    An entry may be out of date, because the statement that inserts tasks checks the job's revision
    and retirement, and a payload that the cached schema refuses is checked against the database's.
    It never comes from an open transaction: after a rollback another schema may get its revision.
    """

    def __init__(self) -> None:
        #: By tenant, database alias and name.
        self._jobs: LRUCache[tuple[str | None, str, JobName], CachedJob] = LRUCache(MAX_CACHED_JOBS)
        self._lock = Lock()

    def get(self, tenant: str | None, using: str, name: JobName) -> CachedJob | None:
        """The cached job; None if there is none."""
        with self._lock:
            return self._jobs.get((tenant, using, name))

    def read(self, tenant: str | None, using: str, name: JobName) -> CachedJob:
        """Read the job from the database, and cache it; inside a transaction, when it commits.

        Raises
        ------
        JobNotFound
            There is no such job, or it is retired.
        """
        job = Job.objects.using(using).live().named(name).first()
        found = None if job is None else CachedJob(job)
        with self._lock:
            known = self._jobs.pop((tenant, using, name), None)
            if found is None:
                raise JobNotFound
            if known is not None and known.version == found.version:
                found = known
            elif connections[using].in_atomic_block:
                keep = partial(self._keep, (tenant, using, name), found)
                transaction.on_commit(keep, using=using)
                return found
            self._jobs[tenant, using, name] = found
            return found

    def _keep(self, entry: tuple[str | None, str, JobName], found: CachedJob) -> None:
        with self._lock:
            self._jobs[entry] = found


job_cache = JobCache()


@dataclass(frozen=True)
class Submission:
    """Tasks of a job that are submitted together in a room; all are accepted or none."""

    caller: Caller
    room_id: str
    full_name: str
    tasks: Sequence[NewTask]
    #: The `Idempotency-Key` of the request, and the parts of its body that a repeat must equal.
    key: str | None = None
    body: Sequence[Any] = ()
    #: The parts of the path to which the key belongs; empty for that of a submit.
    key_route: tuple[str, ...] = ()
    #: The trace context of the task that this one repeats, for a link to it.
    linked: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "room_id", nfc(self.room_id))

    @cached_property
    def name(self) -> JobName:
        """The name of the job.

        Raises
        ------
        JobNotFound
            The text is not the name of a job, or the job is another room's.
        """
        return name_in_room(self.room_id, self.full_name)

    @cached_property
    def ids(self) -> list[UUID]:
        """The ids of the new tasks, all derivable from the first."""
        return new_ids(len(self.tasks))

    @property
    def payloads(self) -> Sequence[dict[str, Any]]:
        """The payloads of the tasks."""
        return [task.payload for task in self.tasks]


def submit(submission: Submission) -> Sequence[TaskRow]:
    """Accept tasks, or return the earlier tasks of the key; in the order of the payloads.

    Raises
    ------
    InvalidRoomId, Forbidden
        The caller may not submit in this room.
    JobNotFound
        There is no such job, or it is retired.
    InvalidPayload
        `errors` point into ``/<index>/payload``.
    IdempotencyKeyReused
        The key came with another request.
    TooManyPending
        The tasks would exceed the room's limit of pending tasks.
    """
    began = tracing.now()
    submission.caller.require("submit", submission.room_id)
    using = router.db_for_write(Task)
    while True:
        try:
            # Outside a transaction, because a check may take a quarter of a second.
            job = _checked_job(using, submission)
        except (JobNotFound, InvalidPayload):
            # A repeated request gets its tasks, even if the job was retired or changed since.
            if earlier := _earlier_tasks(using, submission):
                return earlier
            raise
        if tasks := _accept(using, submission, job):
            _trace(submission, tasks, began)
            return tasks
        # The job was retired, or its schema replaced, since it was read.
        job_cache.read(submission.caller.tenant, using, submission.name)


def submit_one(submission: Submission) -> TaskRow:
    """Accept the only task of a submission; raises as `submit`, with pointers into ``/payload``."""
    try:
        (task,) = submit(submission)
    except InvalidPayload as refusal:
        raise _of_only_task(refusal) from refusal
    return task


def check_one(submission: Submission) -> None:
    """Check the only task of a submission without accepting it; raises as `submit_one`."""
    submission.caller.require("submit", submission.room_id)
    using = router.db_for_write(Task)
    try:
        _checked_job(using, submission)
    except InvalidPayload as refusal:
        raise _of_only_task(refusal) from refusal
    if (limit := get_settings().max_pending_per_room) is not None:
        with transaction.atomic(using=using):
            RoomBacklog.objects.using(using).admit(submission.room_id, limit)
            transaction.set_rollback(True, using=using)


def accept_checked(submission: Submission) -> Sequence[TaskRow]:
    """Accept tasks that `check_one` has checked, even if the room has become full meanwhile.

    Raises
    ------
    JobNotFound, InvalidPayload
        The job was retired since the check, or has another schema, which the payload breaks.
    """
    began = tracing.now()
    using = router.db_for_write(Task)
    while not (tasks := _enqueue(using, submission, _checked_job(using, submission))):
        job_cache.read(submission.caller.tenant, using, submission.name)
    if get_settings().max_pending_per_room is not None:
        RoomBacklog.objects.using(using).forget_places({submission.room_id})
    _trace(submission, tasks, began)
    return tasks


def _trace(submission: Submission, tasks: Sequence[TaskRow], began: int) -> None:
    """Make a span for each new task; a repeated submit has none, because it made no task."""
    if tasks[0].id == submission.ids[0]:
        record_spans("joblib submit", tasks, began, linked=submission.linked)


def _of_only_task(refusal: InvalidPayload) -> InvalidPayload:
    """The refusal of a list of payloads, as that of its only one."""
    errors = [FieldError(e.detail, e.pointer.removeprefix("/0")) for e in refusal.errors]
    return InvalidPayload(errors=errors)


def _checked_job(using: str, submission: Submission) -> Job:
    """The job, after a check of the payloads against its schema; raises as `submit` does.

    Payloads that a cached schema refuses are checked again with the schema in the database.
    """
    entry = (submission.caller.tenant, using, submission.name)
    cached = job_cache.get(*entry) or job_cache.read(*entry)
    try:
        cached.check(submission.payloads)
    except InvalidPayload:
        fresh = job_cache.read(*entry)
        if fresh.version == cached.version:
            raise
        fresh.check(submission.payloads)
        return fresh.job
    return cached.job


def _accept(using: str, submission: Submission, job: Job) -> Sequence[TaskRow]:
    """Insert the tasks, or return those of the key; none if the job has changed since the read."""
    limit = get_settings().max_pending_per_room
    if submission.key is None and limit is None:
        return _enqueue(using, submission, job)
    try:
        with transaction.atomic(using=using):
            tasks = _tasks_of_key(using, submission)
            if not tasks:
                if limit is not None:
                    backlogs = RoomBacklog.objects.using(using)
                    backlogs.admit(submission.room_id, limit, len(submission.tasks))
                tasks = _enqueue(using, submission, job)
            # Without tasks, the key and the places must not stay reserved.
            transaction.set_rollback(not tasks, using=using)
            return tasks
    except TooManyPending:
        if len(submission.tasks) == 1:
            RoomBacklog.objects.using(using).note_full(submission.room_id, limit or 0)
        raise


def _enqueue(using: str, submission: Submission, job: Job) -> Sequence[TaskRow]:
    return Task.objects.db_manager(using).enqueue(  # type: ignore[no-any-return]
        job,
        submission.room_id,
        submission.caller.identity,
        get_settings().task_max_retries,
        dict(zip(submission.ids, submission.tasks, strict=True)),
    )


def _earlier_tasks(using: str, submission: Submission) -> Sequence[TaskRow]:
    """The earlier tasks of the key; rolls back, so that a new key is not reserved."""
    with transaction.atomic(using=using):
        tasks = _tasks_of_key(using, submission)
        transaction.set_rollback(True, using=using)
        return tasks


def _tasks_of_key(using: str, submission: Submission) -> Sequence[TaskRow]:
    """Reserve the key for the new ids, or return the earlier tasks of the key.

    Raises
    ------
    IdempotencyKeyReused
        The key came with another request.
    """
    if submission.key is None:
        return []
    route = submission.key_route or (submission.room_id, str(submission.name))
    first = IdempotencyKey.objects.db_manager(using).reserve(
        IdempotencyKey.digest(submission.caller.identity, *route, submission.key),
        IdempotencyKey.digest(*map(canonical_json, submission.body)),
        submission.ids[0],
        get_settings().idempotency_key_ttl,
    )
    if first == submission.ids[0]:
        return []
    # The same number of ids, because the earlier request had the same body.
    ids = consecutive_ids(first, len(submission.ids))
    return sorted(Task.objects.db_manager(using).read(ids).values())


def recount_rooms(change: Signal, tasks: Sequence[TaskRow], **_: Any) -> None:
    """Receiver of `tasks_changed`: discards the counts of rooms in which tasks were requeued."""
    if change is signals.task_requeued and get_settings().max_pending_per_room is not None:
        backlogs = RoomBacklog.objects.using(router.db_for_write(RoomBacklog))
        backlogs.forget_places({task.room_id for task in tasks})


def connect() -> None:
    """Connect the receiver; the app does so when it is ready."""
    signals.tasks_changed.connect(recount_rooms, dispatch_uid="zndraw_joblib.recount_rooms")
