"""Waits for the changes of one task, and for more text of its log."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import NamedTuple, TypeVar

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.exceptions import TaskWaitTimeout
from zndraw_joblib.client.room_events import TaskEvent
from zndraw_joblib.client.schemas import LogPart, TaskInfo, read_task, reader
from zndraw_joblib.client.task_events import TaskEvents
from zndraw_joblib.client.waiting import Deadline, PatientRequests

T = TypeVar("T")

_read_log_part = reader(LogPart)


class _Seen(NamedTuple):
    """A task and its ETag; the task is None if it has not changed."""

    task: TaskInfo | None
    etag: str | None
    waited: bool


def _read_seen(answer: httpx.Response) -> _Seen:
    unchanged = answer.status_code == httpx.codes.NOT_MODIFIED
    return _Seen(
        None if unchanged else read_task(answer),
        answer.headers.get("ETag"),
        "Preference-Applied" in answer.headers,
    )


def changes(api: ApiManager, task_id: str, deadline: Deadline) -> Generator[TaskInfo, None, None]:
    """Yield the task as it is, and again after each change, until it has ended.

    Several changes may be seen as one. The changes come by a stream of events. Where the server has
    none, it is asked by requests that wait, or at intervals of up to a second.

    Raises
    ------
    TaskWaitTimeout
        The task has not ended by the deadline.
    TaskNotFoundError
        The task does not exist, or the caller may not read it.
    """
    known = _KnownTask(api, task_id, deadline)
    stream: TaskEvents | None = None
    may_wait = was_silent = False
    while True:
        known.ask(may_wait=may_wait)
        if (task := known.take()) is not None:
            if stream is not None and was_silent:
                # The server, or a proxy before it, kept the event of this change back.
                stream.deny()
            yield task
            if task.is_terminal:
                return
        if deadline.left <= 0:
            raise TaskWaitTimeout(deadline.timeout, [task_id])
        if stream is None and known.task is not None:
            stream = TaskEvents(api, known.task, deadline)
        was_silent = False
        if stream is not None and stream.is_expected:
            # Closed at once when this generator is, because a stream holds a connection.
            with closing(stream.events()) as events:
                for event in events:
                    # At its first event the task is read again, because it may have changed before
                    # the stream began.
                    if not (known.accept(event) if isinstance(event, TaskEvent) else known.ask()):
                        break
                    if (task := known.take()) is not None:
                        yield task
                        if task.is_terminal:
                            return
            was_silent = stream.was_silent
        may_wait = stream is None or not stream.is_expected


class _KnownTask:
    """The latest known state of a task, from answers and events; None before the first answer."""

    def __init__(self, api: ApiManager, task_id: str, deadline: Deadline) -> None:
        self._url = path("tasks", task_id)
        self._requests = PatientRequests(api, deadline, f"watch task {task_id}")
        self.task: TaskInfo | None = None
        self._etag: str | None = None
        #: The task as it changed since the last `take`.
        self._changed: TaskInfo | None = None

    def take(self) -> TaskInfo | None:
        """The task if it has changed since the last call."""
        changed, self._changed = self._changed, None
        return changed

    def ask(self, *, may_wait: bool = False) -> bool:
        """Ask the server for the task; returns whether it answered.

        With `may_wait` the request waits for a change, or pauses afterwards.
        """
        # Only with an ETag, because a wait without one is a wait for the end.
        headers = {"If-None-Match": self._etag} if self._etag else {}
        wait = self._requests.granted_wait() if may_wait and self._etag else 0
        seen = self._requests.send("GET", self._url, read=_read_seen, headers=headers, wait=wait)
        if seen is None:
            return False
        if seen.task is not None:
            self._note(seen.task, seen.etag)
        if may_wait:
            self._requests.pace(
                has_changes=self._changed is not None, waited=bool(wait) and seen.waited
            )
        return True

    def accept(self, event: TaskEvent) -> bool:
        """Note the state of an event; returns whether the task goes on, so that more will come.

        The end is not noted, because the result comes by a request alone.
        """
        assert self.task is not None
        if event.task.is_terminal:
            return False
        known = _revision(self._etag)
        # An event may be older than the latest answer, because both are on their way at once.
        if known is None or event.revision >= known:
            task = self.task.model_copy(update=dict(event.task))
            self._note(task, self._etag if known is None else f'W/"{event.revision}"')
        return True

    def _note(self, task: TaskInfo, etag: str | None) -> None:
        # A place in the queue is no change, because it changes with each task before this one.
        compared = task.model_copy(update={"queue_position": None})
        if compared != self.task or (etag or self._etag) != self._etag:
            self.task, self._etag, self._changed = compared, etag, task


def _revision(etag: str | None) -> int | None:
    """The revision in the ETag of a task; None in that of another server."""
    found = re.fullmatch(r'W/"(\d+)"', etag or "")
    return int(found[1]) if found else None


def read_log(api: ApiManager, task_id: str, offset: int) -> Iterator[str]:
    """Yield the text of a task's log from an offset on, up to its present end."""
    while True:
        part = send(api, "GET", _log_url(task_id, offset), read=_read_log_part)
        if part.next_offset <= offset:
            return
        offset = part.next_offset
        yield part.text


def follow_log(api: ApiManager, task_id: str, offset: int, deadline: Deadline) -> Iterator[str]:
    """Yield the text of a task's log as it is written, until the task has ended.

    Raises
    ------
    TaskWaitTimeout
        The task has not ended by the deadline.
    """
    requests = PatientRequests(api, deadline, f"read the log of task {task_id}")
    while True:
        wait = requests.granted_wait()
        url = _log_url(task_id, offset)
        answer = requests.send("GET", url, read=_with_wait(_read_log_part), wait=wait)
        if answer is not None:
            part, waited = answer
            has_changes = part.next_offset > offset
            if has_changes:
                offset = part.next_offset
                yield part.text
            elif part.ended:
                return
            requests.pace(has_changes=has_changes, waited=bool(wait) and waited)
        if deadline.left <= 0:
            raise TaskWaitTimeout(deadline.timeout, [task_id])


def _log_url(task_id: str, offset: int) -> str:
    return f"{path('tasks', task_id, 'log')}?offset={offset}"


def _with_wait(
    read: Callable[[httpx.Response], T],
) -> Callable[[httpx.Response], tuple[T, bool]]:
    """Read an answer, and whether the server honoured the wait."""
    return lambda answer: (read(answer), "Preference-Applied" in answer.headers)
