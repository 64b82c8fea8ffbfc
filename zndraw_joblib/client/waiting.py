"""Waiting for the end of one task, or of many as they end."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import httpx

from zndraw_joblib.client.api import ApiManager, away, path, retry_after, send
from zndraw_joblib.client.exceptions import ApiError, TaskWaitTimeout
from zndraw_joblib.client.schemas import TaskInfo

logger = logging.getLogger(__name__)

#: Longest single wait for a task's end, in seconds.
LONGEST_WAIT = 60
#: Tasks that are waited for at once, each by a long poll of its own.
WINDOW = 32
#: Seconds between two looks at tasks for which no long poll is under way.
GLANCE_INTERVAL = 0.05


class Deadline:
    """A time `timeout` seconds from now; None is never."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds left; zero or less when it is over."""
        return float("inf") if self._at is None else self._at - time.monotonic()


def wait_for_end(
    api: ApiManager, task_id: str, deadline: Deadline, given_up: threading.Event | None = None
) -> TaskInfo:
    """Wait until a task ends and return it; it is looked at once at least.

    Raises
    ------
    TaskWaitTimeout
        It has not ended by the deadline, or before `given_up` was set.
    TaskNotFoundError
        There is no such task for the caller.
    """
    given_up = given_up or threading.Event()
    pause = 0.1
    while True:
        wait = max(0, int(min(LONGEST_WAIT, deadline.left)))
        look = _look(api, task_id, wait)
        if look.task is not None and look.task.is_terminal:
            return look.task
        if deadline.left <= 0 or given_up.is_set():
            raise TaskWaitTimeout(deadline.timeout, [task_id])
        if not look.waited:
            given_up.wait(max(0.0, min(max(pause, look.retry_after), deadline.left)))
            pause = _longer(pause)


class _Look(NamedTuple):
    """What a look at a task showed; no task while the server is away."""

    task: TaskInfo | None
    waited: bool = False
    retry_after: float = 0.0


def _look(api: ApiManager, task_id: str, wait: int = 0) -> _Look:
    """Ask for a task once; a server that is away may be asked again.

    Raises
    ------
    ApiError
        The server refuses to show it.
    """
    try:
        answer = send(api, "GET", path("tasks", task_id), wait=wait, retry_on=None)
    except (httpx.TransportError, ApiError) as error:
        if not away(error):
            raise
        logger.info("waiting for task %s: %s; trying again", task_id, error)
        return _Look(None, retry_after=retry_after(error))
    waited = wait > 0 and "Preference-Applied" in answer.headers
    return _Look(TaskInfo.model_validate_json(answer.content), waited)


def _longer(pause: float) -> float:
    """Seconds to wait before the look after the next."""
    return min(1.0, pause * 1.5)


def in_order(api: ApiManager, task_ids: Sequence[str], deadline: Deadline) -> Iterator[TaskInfo]:
    """Each task once it has ended, in this order. While the first runs, others end unasked."""
    for index, task_id in enumerate(task_ids):
        try:
            yield wait_for_end(api, task_id, deadline)
        except TaskWaitTimeout as timeout:
            raise TaskWaitTimeout(deadline.timeout, task_ids[index:]) from timeout


def as_they_end(api: ApiManager, task_ids: Sequence[str], deadline: Deadline) -> Iterator[TaskInfo]:
    """Each task once it has ended, in the order of their ends as far as that is known.

    The `WINDOW` oldest are waited for. As tasks are granted in the order of their submits, those
    are what runs, unless more run at once; for the others a thread looks at one after the other,
    which finds the end of any of n within n times `GLANCE_INTERVAL`.
    """
    ends = _Ends(api, task_ids)
    left = dict.fromkeys(task_ids)
    try:
        ends.begin()
        while left:
            try:
                ended = ends.found.get(timeout=_timeout(deadline))
            except queue.Empty:
                raise TaskWaitTimeout(deadline.timeout, list(left)) from None
            if isinstance(ended, Exception):
                raise ended
            if ended.id in left:  # It may have been seen twice.
                del left[ended.id]
                yield ended
    finally:
        ends.given_up.set()


def _timeout(deadline: Deadline) -> float | None:
    return None if deadline.timeout is None else max(0.0, deadline.left)


class _Ends:
    """Looks for the ends of tasks, in daemon threads that end once `given_up` is set."""

    def __init__(self, api: ApiManager, task_ids: Sequence[str]) -> None:
        self._api = api
        self.found: queue.SimpleQueue[TaskInfo | Exception] = queue.SimpleQueue()
        self.given_up = threading.Event()
        # Tasks that nobody waits for, oldest first.
        self._rest = dict.fromkeys(task_ids)
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start the threads."""
        number = min(WINDOW, len(self._rest))
        work: list[Callable[[], None]] = [self._wait_in_turn] * number
        if len(self._rest) > number:
            work.append(self._look_around)
        for one in work:
            threading.Thread(
                target=self._guard, args=(one,), name="joblib-wait", daemon=True
            ).start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.found.put(error)

    def _wait_in_turn(self) -> None:
        while not self.given_up.is_set():
            with self._lock:
                task_id = next(iter(self._rest), None)
                if task_id is None:
                    return
                del self._rest[task_id]
            try:
                self.found.put(wait_for_end(self._api, task_id, Deadline(None), self.given_up))
            except TaskWaitTimeout:
                return

    def _look_around(self) -> None:
        pause = GLANCE_INTERVAL
        asked = 0.0
        while True:
            with self._lock:
                rest = list(self._rest)
            if not rest:
                return
            for task_id in rest:
                if task_id not in self._rest:  # Somebody waits for it by now.
                    continue
                if self.given_up.wait(max(pause, asked)):
                    return
                look = _look(self._api, task_id)
                pause = _longer(pause) if look.task is None else GLANCE_INTERVAL
                asked = look.retry_after
                if look.task is not None and look.task.is_terminal:
                    with self._lock:
                        self._rest.pop(task_id, None)
                    self.found.put(look.task)
