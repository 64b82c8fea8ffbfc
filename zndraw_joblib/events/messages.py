"""Messages over the channel layer: names of groups, types, and the entries of a message.

A message is ``{"type": ..., "entries": [...]}``. An entry names a task that changed, beside its
room (tasks that ended, or were taken from their workers), its job (tasks that are pending) or its
revision (tasks that changed), because a channel receives the messages of all its groups and a
message does not name its group.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from uuid import UUID

#: Tasks reached a terminal state. Channels calls the method `tasks_ended` of a consumer for it.
TASKS_ENDED = "tasks.ended"
#: Tasks became pending.
TASKS_PENDING = "tasks.pending"
#: Tasks changed in any way, while somebody watched them.
TASKS_CHANGED = "tasks.changed"
#: Tasks were cancelled or taken away while workers held them.
TASKS_STOPPED = "tasks.stopped"

#: Precedes the revision of a task that made progress and changed in no other way.
PROGRESS_MARK = "~"
#: The group for the tasks that workers should stop. One for all, because these are few.
STOP_GROUP = "joblib.stop"

#: Number of groups that all rooms share for the ends of their tasks, and for the changes.
END_GROUPS = 256


@lru_cache(maxsize=4096)
def room_digest(room_id: str) -> str:
    """The name of a room in messages and groups.

    A digest, because a room id may be too long for the name of a group and have characters that
    are not allowed there.
    """
    return hashlib.sha256(room_id.encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def end_group(room_id: str) -> str:
    """The group for the ends of tasks in a room, shared by about 1 in `END_GROUPS` of all rooms.

    Not a group for each task, because each waiter would then send two requests to the layer, and a
    sweep one message for each task that it ends.
    """
    return f"joblib.end.{int(room_digest(room_id), 16) % END_GROUPS}"


@lru_cache(maxsize=4096)
def change_group(room_id: str) -> str:
    """The group for the changes of watched tasks in a room, shared as `end_group` is.

    Not the group of ends, because processes that wait for ends only would receive the changes too.
    """
    return f"joblib.change.{int(room_digest(room_id), 16) % END_GROUPS}"


def job_group(job_id: UUID) -> str:
    """The group for the pending tasks of a job."""
    return f"joblib.job.{job_id.hex}"


def ended_entry(room_id: str, task_id: UUID) -> str:
    """An entry of a `TASKS_ENDED` or `TASKS_STOPPED` message."""
    return f"{room_digest(room_id)}/{task_id.hex}"


def pending_entry(job_id: UUID, task_id: UUID) -> str:
    """An entry of a `TASKS_PENDING` message."""
    return f"{job_id.hex}/{task_id.hex}"


def changed_entry(revision: int, task_id: UUID, is_progress: bool) -> str:
    """An entry of a `TASKS_CHANGED` message."""
    return f"{PROGRESS_MARK if is_progress else ''}{revision}/{task_id.hex}"


def split_entry(entry: str) -> tuple[str, str]:
    """The room's digest, the job's hex id, or the revision with its mark; and the task's hex id."""
    owner, _, task_id = entry.partition("/")
    return owner, task_id
