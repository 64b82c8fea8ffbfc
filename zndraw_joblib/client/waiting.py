"""Waits for the ends of tasks, by one request at a time and without threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.exceptions import ApiError, TaskWaitTimeout
from zndraw_joblib.client.retry import LASTING, OutageLog
from zndraw_joblib.client.schemas import TaskInfo, read_ended, read_task

T = TypeVar("T")

#: Longest wait of one request, in seconds.
LONGEST_WAIT = 60
#: Most ids of a request; the server refuses more.
MAX_LOOKUP = 500
#: Ids of the first request. An answer contains the payloads of its tasks, which may be large; so
#: later requests ask for as many tasks as fit into `LOOKUP_BYTES`, by the size of the last answer.
FIRST_LOOKUP = 32
LOOKUP_BYTES = 1_000_000
#: Seconds between two requests for tasks other than the oldest.
ROUND_INTERVAL = 1
#: Seconds before the next request, for each task that is left and fits into one. A server needs
#: some 20 us of processor time for a task of an answer, so that a wait for many tasks takes at most
#: a tenth of a processor.
PAUSE_PER_TASK = 0.0002
#: Ends in one answer from which on the next request asks for twice as many tasks only, but for
#: `LEAST_WHILE_BUSY` at least: where tasks end so fast, most of 500 would not have ended.
BUSY_ENDS, LEAST_WHILE_BUSY = 8, 64
#: First and longest pause between two requests, in seconds, if waits are not honoured.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0


class Deadline:
    """A time `timeout` seconds from now; None is never."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds until the deadline; zero or less after it."""
        return float("inf") if self._at is None else self._at - time.monotonic()


def as_they_end(api: ApiManager, task_ids: Sequence[str], deadline: Deadline) -> Iterator[TaskInfo]:
    """Yield each task when it has ended, in the order of the answers.

    Sends at least one request, even after the deadline.

    Raises
    ------
    TaskWaitTimeout
        Tasks have not ended by the deadline.
    TaskNotFoundError
        A task does not exist, or the caller may not read it.
    RequestInvalidError
        An id is not a UUID.
    """
    left = dict.fromkeys(task_ids)
    lookups = _Lookups(api, left, deadline)
    while left:
        ended, missing = lookups.next()
        for task in ended:
            del left[task.id]
            yield task
        for task_id in missing:
            # Read alone, because a lookup leaves out tasks that a read answers with an error.
            found = lookups.read(task_id)
            if found is not None and found.is_terminal:
                del left[task_id]
                yield found
        if left and deadline.left <= 0:
            raise TaskWaitTimeout(deadline.timeout, list(left))


def in_order(ends: Iterator[TaskInfo], task_ids: Sequence[str]) -> Iterator[TaskInfo]:
    """Yield each task of `ends` in the order of `task_ids`; raises as `as_they_end` does.

    A task that ends before an earlier one is kept until that has ended.
    """
    ended: dict[str, TaskInfo] = {}
    for index, task_id in enumerate(task_ids):
        try:
            while task_id not in ended:
                task = next(ends)
                ended[task.id] = task
        except TaskWaitTimeout as late:
            raise TaskWaitTimeout(late.timeout, task_ids[index:]) from late
        yield ended.pop(task_id)


class PatientRequests:
    """Requests that are repeated during an outage, and pauses, until a deadline.

    `action` is the waiting, for the log: ``wait for tasks``.
    """

    def __init__(self, api: ApiManager, deadline: Deadline, action: str) -> None:
        self._api = api
        self._deadline = deadline
        self._failures = 0
        self._outage = OutageLog(action)
        self._next_pause = FIRST_PAUSE

    def send(
        self, method: str, url: str, *, read: Callable[[httpx.Response], T], **options: Any
    ) -> T | None:
        """Send a request once; None after an outage and the pause for it.

        Raises
        ------
        ApiError
            The server refuses the request.
        """
        try:
            answer = send(self._api, method, url, read=read, retry=None, **options)
        except (httpx.TransportError, ApiError) as error:
            self.failed(error)
            return None
        self.succeeded()
        return answer

    def failed(self, error: Exception) -> None:
        """Pause after a request that failed because of an outage; raises any other error."""
        self._failures += 1
        pause = LASTING.pause(error, self._failures)
        if pause is None:
            raise error
        self._outage.failed(error, pause)
        self.sleep(pause)

    def succeeded(self) -> None:
        """Note that the server has answered."""
        self._failures = 0
        self._outage.ended()

    def granted_wait(self, seconds: float = LONGEST_WAIT) -> int:
        """The whole seconds that a request may wait, until the deadline at most."""
        return max(0, int(min(seconds, self._deadline.left)))

    def pace(self, *, has_changes: bool, waited: bool) -> None:
        """Pause before the next request, longer each time after one without changes or a wait.

        A server under WSGI does not wait, and would else be asked without a pause.
        """
        if has_changes:
            self._next_pause = FIRST_PAUSE
        elif not waited:
            self.sleep(self._next_pause)
            self._next_pause = min(LONGEST_PAUSE, self._next_pause * 1.5)

    def sleep(self, seconds: float) -> None:
        """Sleep, until the deadline at most."""
        time.sleep(max(0.0, min(seconds, self._deadline.left)))


class _Found(NamedTuple):
    """The ended tasks of an answer, and the ids that the answer leaves out."""

    ended: Sequence[TaskInfo]
    missing: Sequence[str]


class _Answer(NamedTuple):
    """The answer to a lookup.

    Its ended tasks, the ids of all its tasks, its bytes, and whether the server honoured the wait.
    """

    ended: Sequence[TaskInfo]
    found: set[str]
    size: int
    waited: bool


def _read_answer(answer: httpx.Response) -> _Answer:
    ended, found = read_ended(answer)
    waited = "Preference-Applied" in answer.headers
    return _Answer(ended, found, len(answer.content), waited)


class _Lookups:
    """Requests for the tasks that have not ended, whose ids are in `left`, oldest first.

    Most requests wait for the oldest tasks, because tasks are granted in the order of their submits
    and the oldest usually end first. With more tasks than fit into one request, these waits are
    short, and each `ROUND_INTERVAL` a request without a wait asks for the next of the other tasks.
    So the end of any task is noticed within about a second for each 500 tasks, even if the oldest
    tasks never end.
    """

    def __init__(self, api: ApiManager, left: dict[str, None], deadline: Deadline) -> None:
        self._left = left
        self._size = min(MAX_LOOKUP, FIRST_LOOKUP)
        self._busy_size = MAX_LOOKUP
        # The other tasks that the present round has not asked for.
        self._round: list[str] = []
        self._next_round_at = time.monotonic() + ROUND_INTERVAL
        self._next_request_at = 0.0
        self._covered_all = False
        self._requests = PatientRequests(api, deadline, "wait for tasks")

    def next(self) -> _Found:
        """Send one request, and pause if no task has ended and the server did not wait.

        Raises
        ------
        ApiError
            The server refuses the request.
        """
        self._requests.sleep(self._next_request_at - time.monotonic())
        others = self._others_in_turn()
        ids, wait = (others, 0) if others else self._oldest()
        url = path("tasks", "lookup")
        body = {"ids": ids, "include": ["result"]}
        answer = self._requests.send("POST", url, read=_read_answer, body=body, wait=wait)
        if answer is None:
            return _Found([], [])
        self._adapt(answer.size, len(answer.found))
        if not others:
            ends = len(answer.ended)
            self._busy_size = max(LEAST_WHILE_BUSY, 2 * ends) if ends >= BUSY_ENDS else MAX_LOOKUP
        missing = [task_id for task_id in ids if task_id not in answer.found]
        self._requests.pace(has_changes=bool(answer.ended), waited=bool(wait) and answer.waited)
        return _Found(answer.ended, missing)

    def read(self, task_id: str) -> TaskInfo | None:
        """Read a task alone; None during an outage.

        Raises
        ------
        TaskNotFoundError
            The task does not exist, or the caller may not read it.
        """
        return self._requests.send("GET", path("tasks", task_id), read=read_task)

    def _oldest(self) -> tuple[list[str], int]:
        """The oldest tasks, for the next request, and the seconds that it waits."""
        oldest = list(islice(self._left, self._places))
        covers_all = len(oldest) == len(self._left)
        # The first wait for all tasks is short, because only its answer shows that a task is
        # missing. For a single missing task the server answers at once.
        is_long = covers_all and (self._covered_all or len(oldest) == 1)
        self._covered_all = covers_all
        return oldest, self._requests.granted_wait(LONGEST_WAIT if is_long else ROUND_INTERVAL)

    @property
    def _places(self) -> int:
        """Most tasks of a request for the oldest."""
        return min(self._size, self._busy_size)

    def _others_in_turn(self) -> list[str]:
        """The next of the other tasks, each `ROUND_INTERVAL`; begins again after the last of them.

        Empty if it is not their turn, or if the oldest are all.
        """
        if len(self._left) <= self._places or time.monotonic() < self._next_round_at:
            return []
        self._next_round_at = time.monotonic() + ROUND_INTERVAL
        if not self._round:
            self._round = list(islice(self._left, self._places, None))
        others, self._round = self._round[: self._size], self._round[self._size :]
        return [task_id for task_id in others if task_id in self._left]

    def _adapt(self, size: int, documents: int) -> None:
        """Set the size and the time of the next request, from the bytes and tasks of an answer."""
        if documents:
            self._size = max(1, min(MAX_LOOKUP, LOOKUP_BYTES * documents // size))
        gathered = min(len(self._left), self._size)
        self._next_request_at = time.monotonic() + PAUSE_PER_TASK * gathered
