"""Tries an ended task again, by a new task."""

from __future__ import annotations

from uuid import UUID

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import InvalidTaskTransition
from zndraw_joblib.services.lookup import find_task
from zndraw_joblib.services.submit import Submission, submit_one
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.rows import NewTask, TaskRow
from zndraw_joblib.text import Message


def retry(
    caller: Caller, task_id: UUID, key: str | None = None, traceparent: str | None = None
) -> TaskRow:
    """Submit the payload of an ended task again, with its retries and its timeout.

    Returns the new task, whose submitter is the caller, or the earlier one of the `key`. The job's
    present schema counts. The new task is in the trace of `traceparent`, or without it in that of
    the ended task.

    Raises
    ------
    TaskNotFound
        The task does not exist, or the caller may not read it.
    Forbidden
        The caller may not submit in the task's room.
    InvalidTaskTransition
        The task has not ended.
    JobNotFound, InvalidPayload, TooManyPending
        As in `submit_one`.
    """
    task = find_task(caller, task_id)
    # Before the status, because a refusal for good should not look like one that passes.
    caller.require("submit", task.room_id)
    if not task.is_terminal:
        raise InvalidTaskTransition(
            Message("A task that is {status} has not ended.", status=str(task.status))
        )
    retries = task.retries
    if retries is not None:
        # The setting may be lower than when the task was submitted.
        retries = min(retries, get_settings().max_retries)
    again = NewTask(
        task.payload,
        retries,
        timeout_seconds=task.timeout_seconds,
        retry_of=task.id,
        traceparent=traceparent or task.traceparent,
    )
    route = ("tasks", str(task.id), "retry")
    return submit_one(
        Submission(
            caller,
            task.room_id,
            task.job_name,
            [again],
            key,
            key_route=route,
            linked=task.traceparent if traceparent else None,
        )
    )
