"""Accepting tasks: their payloads against the job's schema, a key, a limit, and one statement."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, partial
from threading import Lock
from typing import Any
from uuid import UUID

from django.db import router, transaction
from django.dispatch import Signal

from zndraw_joblib import signals
from zndraw_joblib.exceptions import (
    FieldError,
    InvalidPayload,
    JobNotFound,
    ProblemException,
    TooManyPending,
)
from zndraw_joblib.models import IdempotencyKey, Job, RoomBacklog, Task, following, new_ids
from zndraw_joblib.names import JobName
from zndraw_joblib.schemas import Budget, PayloadChecker
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import json_size

#: Jobs whose schemas a process remembers.
MAX_OFFERS = 1024


class Offer:
    """A live job as it was read, with its schema made ready to check payloads."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def checker(self) -> PayloadChecker:
        """Checks payloads."""
        return PayloadChecker(self.job.schema)

    def errors(self, payload: dict[str, Any], limit: int, budget: Budget) -> list[FieldError]:
        """Tell where a payload breaks the schema, or that it has more than `limit` bytes."""
        if json_size(payload) > limit:
            return [FieldError(f"The payload must have at most {limit} bytes of JSON.")]
        return self.checker.errors(payload, budget, self.job.pk)


class Offers:
    """The jobs that a process submitted to lately.

    One that is out of date does no harm: the statement that accepts a task looks at the job's
    revision and retirement again, and a payload is refused by what the database holds only.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, JobName], Offer] = OrderedDict()
        self._lock = Lock()

    def known(self, using: str, name: JobName) -> Offer | None:
        """The job as this process knows it."""
        with self._lock:
            offer = self._known.get((using, name))
            if offer is not None:
                self._known.move_to_end((using, name))
            return offer

    def read(self, using: str, name: JobName) -> Offer:
        """The job as the database holds it.

        Raises
        ------
        JobNotFound
            There is no such job, or it is retired.
        """
        job = Job.objects.using(using).live().named(name).first()
        with self._lock:
            known = self._known.pop((using, name), None)
            if job is None:
                raise JobNotFound
            if known is None or (known.job.pk, known.job.revision) != (job.pk, job.revision):
                known = Offer(job)
            self._known[using, name] = known
            while len(self._known) > MAX_OFFERS:
                self._known.popitem(last=False)
            return known


offers = Offers()


def submit(
    room_id: str,
    name: JobName,
    payloads: Sequence[dict[str, Any]],
    identity: str,
    key: tuple[str, str] | None = None,
) -> Sequence[Task]:
    """Accept tasks, all or none, or find those that this key made; in the payloads' order.

    `key` is an `Idempotency-Key` and what the request was, as text.

    Raises
    ------
    JobNotFound
        There is no such job, or it is retired.
    InvalidPayload
        `errors` point into ``/<index>/payload``.
    IdempotencyKeyReused
        The key came with another request.
    TooManyPending
        The room has no places for them.
    """
    using = router.db_for_write(Task)
    limit = get_settings().max_pending_per_room
    ids = new_ids(len(payloads))
    while True:
        # Before a transaction holds anything: a check may take its time.
        offer, refusal = _check(using, name, payloads)
        accept = partial(_accept, using, offer, refusal, room_id, identity, ids, payloads)
        if key is None and limit is None:
            made = accept()
        else:
            try:
                with transaction.atomic(using=using):
                    made = _made(using, room_id, name, identity, key, ids) if key else []
                    made = made or accept(limit)
                    # Nothing accepted leaves nothing behind.
                    transaction.set_rollback(not made, using=using)
            except TooManyPending:
                if len(payloads) == 1:
                    RoomBacklog.objects.using(using).note_full(room_id, limit or 0)
                raise
        if made:
            return made
        # Retired, or offered with another schema, since it was read.
        offers.read(using, name)


def _check(
    using: str, name: JobName, payloads: Sequence[dict[str, Any]]
) -> tuple[Offer | None, ProblemException | None]:
    """The job, and why the payloads are refused by what the database holds, if they are."""
    offer = offers.known(using, name)
    errors = _errors(offer, payloads) if offer else []
    if offer is None or errors:
        try:
            fresh = offers.read(using, name)
        except JobNotFound as refusal:
            return None, refusal
        if fresh is not offer:
            offer, errors = fresh, _errors(fresh, payloads)
    return offer, InvalidPayload(errors=errors) if errors else None


def _accept(
    using: str,
    offer: Offer | None,
    refusal: ProblemException | None,
    room_id: str,
    identity: str,
    ids: Sequence[UUID],
    payloads: Sequence[dict[str, Any]],
    limit: int | None = None,
) -> Sequence[Task]:
    """The tasks; none when the job is no longer what the payloads were checked against."""
    if refusal or offer is None:
        raise refusal or JobNotFound()
    if limit is not None:
        RoomBacklog.objects.using(using).admit(room_id, limit, len(payloads))
    given = dict(zip(ids, payloads, strict=True))
    retries = get_settings().task_max_retries
    return Task.objects.using(using).submit(offer.job, room_id, identity, retries, given)


def _made(
    using: str,
    room_id: str,
    name: JobName,
    identity: str,
    key: tuple[str, str],
    ids: Sequence[UUID],
) -> list[Task]:
    """Keep the key for these ids; the tasks that it made before, if it did."""
    first = IdempotencyKey.objects.using(using).reserve(
        IdempotencyKey.digest(identity, room_id, str(name), key[0]),
        IdempotencyKey.digest(key[1]),
        ids[0],
        get_settings().idempotency_key_ttl,
    )
    if first == ids[0]:
        return []
    # The same request made as many.
    made = Task.objects.using(using).read(following(first, len(ids)))
    return sorted(made.values(), key=lambda task: task.pk)


def recount(how: Signal, tasks: Sequence[Task], **_: Any) -> None:
    """Receiver of `tasks_changed`: what came back to its queue takes places in its room again."""
    if how is signals.task_requeued and get_settings().max_pending_per_room is not None:
        backlogs = RoomBacklog.objects.using(router.db_for_write(RoomBacklog))
        backlogs.forget_places({task.room_id for task in tasks})


def connect() -> None:
    """Connect the receiver; the app does so when it is ready."""
    signals.tasks_changed.connect(recount, dispatch_uid="zndraw_joblib.recount")


def _errors(offer: Offer, payloads: Sequence[dict[str, Any]]) -> list[FieldError]:
    limit = get_settings().max_payload_bytes
    budget = Budget(len(payloads))
    return [
        FieldError(error.detail, f"/{index}/payload{error.pointer}")
        for index, payload in enumerate(payloads)
        for error in offer.errors(payload, limit, budget)
    ]
