"""Accepting tasks: their payloads against the job's schema, a key, a limit, and one statement."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any
from uuid import UUID

from django.db import router, transaction

from zndraw_joblib.exceptions import FieldError, InvalidPayload, JobNotFound, TooManyPending
from zndraw_joblib.models import IdempotencyKey, Job, RoomBacklog, Task, following, new_ids
from zndraw_joblib.names import JobName
from zndraw_joblib.querysets import json_text
from zndraw_joblib.settings import get_settings
from zndraw_joblib.validation import payload_faults, validator

#: Jobs whose schemas a process remembers.
MAX_OFFERS = 1024


class Offer:
    """A live job as it was read, with its schema made ready to check payloads."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def validator(self) -> Any:
        """Checks payloads."""
        return validator(self.job.schema)

    def faults(self, payload: dict[str, Any], limit: int) -> list[FieldError]:
        """What is wrong with a payload of at most `limit` bytes of JSON; pointers are into it."""
        if len(json_text(payload).encode()) > limit:
            return [FieldError(f"The payload must have at most {limit} bytes of JSON.")]
        return payload_faults(self.validator, payload)


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
) -> list[Task]:
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
    if key is None and limit is None:
        return _accept(using, room_id, name, payloads, identity, new_ids(len(payloads)))
    try:
        with transaction.atomic(using=using):
            return _accept_once(using, room_id, name, payloads, identity, key)
    except TooManyPending:
        if len(payloads) == 1:
            RoomBacklog.objects.using(using).note_full(room_id, limit or 0)
        raise


def _accept_once(
    using: str,
    room_id: str,
    name: JobName,
    payloads: Sequence[dict[str, Any]],
    identity: str,
    key: tuple[str, str] | None,
) -> list[Task]:
    settings = get_settings()
    ids = new_ids(len(payloads))
    if key is not None:
        first = IdempotencyKey.objects.using(using).reserve(
            IdempotencyKey.digest(identity, room_id, str(name), key[0]),
            IdempotencyKey.digest(key[1]),
            ids[0],
            settings.idempotency_key_ttl,
        )
        if first != ids[0]:
            # The same request made as many.
            made = Task.objects.using(using).read(following(first, len(payloads)))
            return sorted(made.values(), key=lambda task: task.pk)
    if settings.max_pending_per_room is not None:
        RoomBacklog.objects.using(using).admit(
            room_id, settings.max_pending_per_room, len(payloads)
        )
    return _accept(using, room_id, name, payloads, identity, ids)


def _accept(
    using: str,
    room_id: str,
    name: JobName,
    payloads: Sequence[dict[str, Any]],
    identity: str,
    ids: Sequence[UUID],
) -> list[Task]:
    offer = offers.known(using, name)
    faults = _faults(offer, payloads) if offer else []
    if offer is None or faults:
        offer = offers.read(using, name)
        faults = _faults(offer, payloads)
    retries = get_settings().task_max_retries
    while not faults:
        tasks = Task.objects.using(using).submit(
            offer.job, room_id, identity, retries, dict(zip(ids, payloads, strict=True))
        )
        if tasks:
            return tasks
        # Retired, or offered with another schema, since it was read.
        offer = offers.read(using, name)
        faults = _faults(offer, payloads)
    raise InvalidPayload(errors=faults)


def _faults(offer: Offer, payloads: Sequence[dict[str, Any]]) -> list[FieldError]:
    limit = get_settings().max_payload_bytes
    return [
        FieldError(fault.detail, f"/{index}/payload{fault.pointer}")
        for index, payload in enumerate(payloads)
        for fault in offer.faults(payload, limit)
    ]
