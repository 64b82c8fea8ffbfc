"""Writes and reads the logs of tasks."""

from __future__ import annotations

from uuid import UUID

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import InvalidTaskTransition, TaskNotFound
from zndraw_joblib.models import TaskLogChunk
from zndraw_joblib.services.fence import check_writer
from zndraw_joblib.services.lookup import find_task
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.logs import LogPart
from zndraw_joblib.text import Message


def append_log(caller: Caller, task_id: UUID, attempt: int, text: str) -> None:
    """Add a text to the log of a task that a worker of the caller holds, and renew its lease.

    An administrator may write to the log of any claimed or running task.

    Raises
    ------
    TaskNotFound
        The task does not exist, or the caller may not read it.
    Forbidden
        Another caller's worker has the task.
    LeaseLost
        The attempt is not the task's latest one.
    InvalidTaskTransition
        The task is neither claimed nor running.
    """
    # Without a read of the task, because nearly every write is the worker's own.
    if _append(task_id, attempt, caller.identity, text):
        return
    task = find_task(caller, task_id)
    if caller.is_admin and _append(task_id, attempt, None, text):
        return
    check_writer(caller, task, attempt)
    raise InvalidTaskTransition(
        Message("A task that is {status} takes no text for its log.", status=str(task.status))
    )


def _append(task_id: UUID, attempt: int, identity: str | None, text: str) -> bool:
    settings = get_settings()
    written: bool = TaskLogChunk.objects.append(
        task_id, attempt, identity, text, settings.lease, settings.max_log_bytes
    )
    return written


def find_log(caller: Caller, task_id: UUID, offset: int) -> LogPart:
    """The part of a task's log that begins at `offset`, in bytes.

    Raises
    ------
    TaskNotFound
        The task does not exist, or the caller may not read it.
    """
    task = find_task(caller, task_id)
    part: LogPart | None = TaskLogChunk.objects.read(task.id, offset, get_settings().max_log_bytes)
    if part is None:
        raise TaskNotFound
    return part
