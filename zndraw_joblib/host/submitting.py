"""Submits tasks in the transactions of the site's own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypedDict, Unpack

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connections, router, transaction
from pydantic import BaseModel

from zndraw_joblib.access import HostCaller
from zndraw_joblib.api.job_bodies import SubmissionBody, parts_to_repeat
from zndraw_joblib.api.parsing import MAX_KEY_LENGTH, invalid
from zndraw_joblib.host.values import identity_of, payload_of
from zndraw_joblib.models import Job, Task
from zndraw_joblib.names import GLOBAL_ROOM
from zndraw_joblib.services.jobs import parsed_name
from zndraw_joblib.services.submit import Submission, accept_checked, check_one, submit_one
from zndraw_joblib.text import Message
from zndraw_joblib.tracing import current_traceparent


def submit(
    full_name: str | Job,
    payload: Mapping[str, Any] | BaseModel | None = None,
    *,
    room_id: str | None = None,
    created_by: Any = None,
    retries: int | None = None,
    run_at: datetime | None = None,
    delay: float | None = None,
    timeout_seconds: float | None = None,
    idempotency_key: str | None = None,
) -> Task:
    """Submit a task as part of the transaction that is open.

    The task is checked at once, and announced to workers and receivers of signals after the commit.
    A rollback leaves nothing of it. If the tables of the job server are in another database than
    the site's, and a transaction is open on the site's, the task is inserted after its commit, and
    the returned task is not saved before. The hook `room_access` is not asked. The task is in the
    trace of OpenTelemetry's current span, if there is one.

    Parameters
    ----------
    full_name
        Full name of the job, or the job.
    payload
        A JSON object, or an instance of the job's pydantic class; None is an empty object.
    room_id
        Room of the task; None is the job's own. A job of `@global` has none of its own.
    created_by
        Identity of the submitter, or a user, who may then read and cancel the task over HTTP; None
        is the site itself.
    retries
        How often the task is tried again when it fails or its worker is lost; None, as the job
        says.
    run_at, delay
        Time with an offset, or seconds from now, at which the task is due; None, at once.
    timeout_seconds
        Seconds that one attempt may run.
    idempotency_key
        A second submit with this key and identity, and the same payload, returns the first task.

    Raises
    ------
    JobNotFound
        There is no such job in the room, or it is retired.
    InvalidPayload
        The payload does not match the job's schema; `errors` point into ``/payload``.
    ValidationError
        Another value is not valid, or the payload has no form in JSON.
    InvalidRoomId, TooManyPending, IdempotencyKeyReused
        As over HTTP.
    RoundTripError
        The instance would not arrive at its worker as it is.
    TypeError, ValueError
        `full_name` is no text and no job, `created_by` is neither a text nor a saved user, or
        `idempotency_key` is given in a transaction on another database than the job server's.
    """
    name = full_name.full_name if isinstance(full_name, Job) else full_name
    if not isinstance(name, str):
        raise TypeError(f"full_name is the full name of a job, or a job, and not {name!r}")
    body = SubmissionBody.read(
        {
            "payload": payload_of(payload),
            "retries": retries,
            # As text, because only that of a time without an offset is refused.
            "run_at": run_at.isoformat() if isinstance(run_at, datetime) else run_at,
            "delay": delay,
            "timeout_seconds": timeout_seconds,
        }
    )
    submission = Submission(
        HostCaller(acts_for=identity_of(created_by)),
        _room_of(name) if room_id is None else room_id,
        name,
        [body.task(current_traceparent())],
        None if idempotency_key is None else _checked_key(idempotency_key),
        [] if idempotency_key is None else parts_to_repeat([body]),
    )
    using = router.db_for_write(Task)
    if aliases := _transactions_to_await(using):
        return _submit_after(aliases, submission)
    task: Task = Task.objects.db_manager(using).instance(submit_one(submission))
    return task


class SubmitOptions(TypedDict, total=False):
    """The keyword arguments of `submit`."""

    room_id: str | None
    created_by: Any
    retries: int | None
    run_at: datetime | None
    delay: float | None
    timeout_seconds: float | None
    idempotency_key: str | None


async def asubmit(
    full_name: str | Job,
    payload: Mapping[str, Any] | BaseModel | None = None,
    **options: Unpack[SubmitOptions],
) -> Task:
    """As `submit`, for async code; it runs in the thread, and in the transaction, of sync code."""
    return await sync_to_async(submit)(full_name, payload, **options)


def _room_of(full_name: str) -> str:
    room_id = parsed_name(full_name).room_id
    if room_id == GLOBAL_ROOM:
        raise invalid(Message("A task of a global job needs the id of its room."), "/room_id")
    return room_id


def _checked_key(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise invalid(
            Message(
                "An idempotency key has 1 to {limit} printable ASCII characters.",
                limit=MAX_KEY_LENGTH,
            ),
            "/idempotency_key",
        )
    return key


def _transactions_to_await(using: str) -> Sequence[str]:
    """The aliases whose transactions must commit before a task may be inserted on `using`.

    There are none if the task can be part of the site's transaction, or no transaction is open.
    Where the site's rows are in another database, the transaction on `using` is awaited too,
    because either may still be rolled back.
    """
    is_open = {
        connection.alias
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    }
    if is_open <= {using}:
        return []
    if using in is_open and using == router.db_for_write(get_user_model()):
        return []
    return sorted(is_open)


def _submit_after(aliases: Sequence[str], submission: Submission) -> Task:
    """Check a task now, and accept it after the commits of these transactions."""
    if submission.key is not None:
        raise ValueError(
            "idempotency_key needs the answer of the job server's database, but the transaction on "
            f"{' and '.join(aliases)} must commit first; submit without the key, or in "
            "transaction.on_commit"
        )
    check_one(submission)

    # A hook on each, because a transaction that is rolled back forgets its hook.
    uncommitted = set(aliases)

    def note_commit(alias: str) -> None:
        uncommitted.discard(alias)
        if not uncommitted:
            accept_checked(submission)

    for alias in aliases:
        transaction.on_commit(partial(note_commit, alias), using=alias)
    (new,) = submission.tasks
    task = Task(
        id=submission.ids[0],
        room_id=submission.room_id,
        created_by=submission.caller.identity,
        payload=new.payload,
        retries=new.retries,
        run_at=new.run_at,
        timeout_seconds=new.timeout_seconds,
        traceparent=new.traceparent,
    )
    task.job_name = str(submission.name)
    return task
