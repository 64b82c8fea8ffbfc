"""The stream of the events about one task, and which servers have streams."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import httpx

from zndraw_joblib.client.api import CONNECTIONS, ApiManager
from zndraw_joblib.client.exceptions import ApiError, UnexpectedAnswerError
from zndraw_joblib.client.feed import SILENCE_SECONDS, open_events
from zndraw_joblib.client.retry import retry_after
from zndraw_joblib.client.room_events import ReadyEvent, ResetEvent, RoomEvent, TaskEvent
from zndraw_joblib.client.schemas import TaskState
from zndraw_joblib.client.waiting import Deadline

logger = logging.getLogger(__name__)

#: Most seconds of silence until a stream of the server has begun once, because a proxy may keep
#: streams back.
UNPROVEN_SECONDS = 5.0
#: Seconds for which a server that has no streams is not asked for one.
FORGET_SECONDS = 600.0
#: Seconds for which a watch whose stream failed goes on without one.
POSTPONE_SECONDS = 60.0
#: A stream that ends so many seconds after it began is none: that of a server under WSGI.
EARLY_SECONDS = 1.0
#: Seconds after which a stream is opened again, and the task asked for in between, because no event
#: says that a task was deleted.
LONGEST_SECONDS = 60.0
#: Least seconds of silence for which a stream is worth a connection, before the deadline.
LEAST_SECONDS = 0.5
#: Statuses of a server without the endpoint, and the problem types of ours among them.
_UNSUPPORTED = {404, 405, 406, 501}
_UNSUPPORTED_TYPES = {"not-found", "method-not-allowed", "not-acceptable"}


class StreamSupport:
    """Whether the server of an HTTP client has streams, and how many are open.

    A watch of a task has a stream of its own, because the streams of a shared one would have to be
    opened again for each further task. At most half of the connections are streams, so that other
    requests find one.
    """

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS // 2)
        self._is_proven = False
        self._unsupported_until = 0.0

    @property
    def silence(self) -> float:
        """Most seconds between two parts of a stream."""
        return SILENCE_SECONDS if self._is_proven else UNPROVEN_SECONDS

    @property
    def is_expected(self) -> bool:
        """Whether a stream is worth an attempt."""
        return time.monotonic() >= self._unsupported_until

    def prove(self) -> float:
        """Note that a stream has begun; returns the time."""
        self._is_proven = True
        return time.monotonic()

    def deny(self) -> None:
        """Note that the server, or a proxy before it, has no streams."""
        self._is_proven = False
        self._unsupported_until = time.monotonic() + FORGET_SECONDS

    def refused(self, error: ApiError) -> None:
        """Note the refusal of a stream, if it holds for every room of the server."""
        slug = str(error.problem.get("type", "")).rpartition("/")[2]
        if isinstance(error, UnexpectedAnswerError) or (
            error.status in _UNSUPPORTED and (not error.problem or slug in _UNSUPPORTED_TYPES)
        ):
            self.deny()

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Whether there is a connection for another stream, which the block then uses."""
        is_free = self._free.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._free.release()


#: By the client, because its connections are what streams share. A forked process has another one.
_support: WeakKeyDictionary[httpx.Client, StreamSupport] = WeakKeyDictionary()


def stream_support(api: ApiManager) -> StreamSupport:
    """The knowledge about the streams of a server."""
    return _support.setdefault(api.http, StreamSupport())


class TaskEvents:
    """The events about one task, by one connection after another.

    Attributes
    ----------
    was_silent : bool
        Whether nothing arrived at the end of the latest connection, not even a comment.
    """

    def __init__(self, api: ApiManager, task: TaskState, deadline: Deadline) -> None:
        self._api = api
        self._room_id = task.room_id
        self._task_id = task.id
        self._deadline = deadline
        self._support = stream_support(api)
        self._cursor: str | None = None
        self._not_before = 0.0
        self.was_silent = False

    @property
    def is_expected(self) -> bool:
        """Whether another connection is worth an attempt now."""
        return (
            self._support.is_expected
            and time.monotonic() >= self._not_before
            and self._silence >= LEAST_SECONDS
        )

    @property
    def _silence(self) -> float:
        # Half of the time that is left, because only silence or an event ends a connection in time.
        return min(self._support.silence, self._deadline.left / 2)

    def deny(self) -> None:
        """Note that the server, or a proxy before it, has no streams."""
        self._support.deny()

    def events(self) -> Generator[RoomEvent, None, None]:
        """Yield the events of one connection, until it ends or the deadline comes near.

        They are `TaskEvent`, `ResetEvent` and, from the first connection, `ReadyEvent`; another
        connection goes on after the last event that the caller took. No failure is raised, because
        the caller asks for the task next.
        """
        silence = self._silence
        self.was_silent = False
        with self._support.slot() as is_free:
            if not is_free:
                self._postpone()
                return
            opened_at, begun_at = time.monotonic(), None
            events = open_events(self._api, self._room_id, [self._task_id], self._cursor, silence)
            try:
                with events as stream:
                    for event in stream.events():
                        if event is not None:
                            begun_at = begun_at or self._support.prove()
                            if self._is_wanted(event):
                                yielded_at = time.monotonic()
                                yield event
                                # The time of the caller is not that of the stream.
                                begun_at += time.monotonic() - yielded_at
                            self._cursor = event.cursor
                            continue
                        self._cursor = stream.cursor or self._cursor
                        open_for = time.monotonic() - opened_at
                        if begun_at is None and open_for > silence:
                            raise httpx.ReadTimeout("the stream does not begin")
                        if self._deadline.left < silence or open_for > LONGEST_SECONDS:
                            return
            except (ApiError, httpx.TransportError) as error:
                logger.debug(
                    "the stream of task %s failed: %r",
                    self._task_id,
                    error,
                    extra={"task_id": self._task_id},
                )
                self._failed(error, begun_at, silence)
            else:
                if self._is_early(begun_at):
                    self._support.deny()

    def _is_wanted(self, event: RoomEvent) -> bool:
        if isinstance(event, TaskEvent):
            return event.task.id == self._task_id
        return isinstance(event, ResetEvent) or (
            isinstance(event, ReadyEvent) and self._cursor is None
        )

    def _failed(self, error: Exception, begun_at: float | None, silence: float) -> None:
        if isinstance(error, ApiError):
            self._support.refused(error)
            self._postpone(retry_after(error))
        elif isinstance(error, httpx.ReadTimeout) and silence >= UNPROVEN_SECONDS:
            if begun_at is None:
                self._support.deny()
            self.was_silent = begun_at is not None
        elif not isinstance(error, httpx.ReadTimeout) and self._is_early(begun_at):
            self._postpone()

    @staticmethod
    def _is_early(begun_at: float | None) -> bool:
        return begun_at is None or time.monotonic() < begun_at + EARLY_SECONDS

    def _postpone(self, seconds: float = 0.0) -> None:
        self._not_before = time.monotonic() + max(seconds, POSTPONE_SECONDS)
