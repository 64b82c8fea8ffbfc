"""Waits for the ends of tasks in the site's own code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, router
from django.db.transaction import TransactionManagementError

from zndraw_joblib.api.lookup import parse_task_id
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.lifecycle import TERMINAL_STATUSES
from zndraw_joblib.models import Task
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.tenancy import in_tenant

T = TypeVar("T")

#: Seconds between two reads of `wait_for`: at first, at most, and how much longer each is.
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.1
PAUSE_FACTOR = 1.3
#: Longest time in seconds for which one wait of the hub is asked.
LONGEST_WAIT = 3600.0


class State(NamedTuple):
    """The part of a task that a wait looks at."""

    status: str
    room_id: str

    @property
    def has_ended(self) -> bool:
        """Whether the status is terminal."""
        return self.status in TERMINAL_STATUSES


def wait_for(task: Task | UUID | str, timeout: float | None = None) -> Task:
    """Wait until a task has ended, and return it as it is then.

    It reads the database every tenth of a second at the longest. In async code use `await_for`.

    Parameters
    ----------
    task
        The task, or its id.
    timeout
        Seconds; None waits without a limit.

    Raises
    ------
    TimeoutError
        The task has not ended in this time.
    TaskNotFound
        There is no such task, or it was deleted meanwhile.
    TransactionManagementError
        The task has not ended, and a transaction is open in this thread. Its worker would not see
        the task before the commit.
    """
    task_id = _id_of(task)
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE
    while not (state := _read_state(task_id)).has_ended:
        left = LONGEST_PAUSE if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise _timed_out(task_id, state.status, timeout)
        time.sleep(min(pause, left))
        pause = min(pause * PAUSE_FACTOR, LONGEST_PAUSE)
    return _read(task_id)


async def await_for(
    task: Task | UUID | str, timeout: float | None = None, *, tenant: str | None = None
) -> Task:
    """As `wait_for`, for async code. The event of the task's end wakes it.

    `tenant` names the tenant of the task on a site with tenants.
    """
    task_id = _id_of(task)
    loop = asyncio.get_running_loop()
    deadline = float("inf") if timeout is None else loop.time() + timeout

    def read(function: Callable[[UUID], T]) -> T:
        with in_tenant(tenant):
            return function(task_id)

    # In the thread of the sync code, whose transaction may be open.
    state = await sync_to_async(read)(_read_state)
    if state.has_ended:
        return await sync_to_async(read)(_read)
    ends = get_hub(tenant).ends
    while True:
        until = min(deadline, loop.time() + LONGEST_WAIT)
        await ends.wait({task_id: state.room_id}, until)
        found = await ends.read((task_id,), list)
        if not found:
            raise TaskNotFound
        if found[0].is_terminal:
            return _instance(found[0])
        if loop.time() >= deadline:
            raise _timed_out(task_id, found[0].status, timeout)


def _id_of(task: Task | UUID | str) -> UUID:
    if isinstance(task, Task):
        return task.pk
    return task if isinstance(task, UUID) else parse_task_id(task)


def _read_state(task_id: UUID) -> State:
    """The status of a task and its room; raises as `wait_for` if the task has not ended."""
    using = router.db_for_write(Task)
    columns = Task.objects.using(using).filter(pk=task_id).values_list("status", "room_id")
    state = next((State(*row) for row in columns), None)
    if state is not None and state.has_ended:
        return state
    open_on = [c.alias for c in connections.all(initialized_only=True) if c.in_atomic_block]
    # Another database's transaction matters only to a task that is inserted after its commit.
    if using in open_on or (state is None and open_on):
        raise TransactionManagementError(
            f"The task {task_id} cannot end before the transaction on {' and '.join(open_on)} "
            "commits; wait for it after the commit."
        )
    if state is None:
        raise TaskNotFound
    return state


def _read(task_id: UUID) -> Task:
    row: TaskRow | None = Task.objects.read([task_id]).get(task_id)
    if row is None:
        raise TaskNotFound
    return _instance(row)


def _instance(row: TaskRow) -> Task:
    task: Task = Task.objects.instance(row)
    return task


def _timed_out(task_id: UUID, status: str, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"The task {task_id} is still {status} after {timeout:g} s.")
