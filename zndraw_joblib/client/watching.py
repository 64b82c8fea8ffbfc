"""Waits for the changes of one task, and for more text of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.exceptions import TaskWaitTimeout
from zndraw_joblib.client.schemas import LogPart, TaskInfo, read_task, reader
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


def changes(api: ApiManager, task_id: str, deadline: Deadline) -> Iterator[TaskInfo]:
    """Yield the task as it is, and again after each change, until it has ended.

    Several changes may be seen as one. Where the server does not wait it is asked at intervals of
    up to a second.

    Raises
    ------
    TaskWaitTimeout
        The task has not ended by the deadline.
    TaskNotFoundError
        The task does not exist, or the caller may not read it.
    """
    requests = PatientRequests(api, deadline, f"watch task {task_id}")
    last: TaskInfo | None = None
    etag: str | None = None
    while True:
        # Only with an ETag, because a wait without one is a wait for the end.
        headers = {"If-None-Match": etag} if etag else {}
        wait = requests.granted_wait() if etag else 0
        url = path("tasks", task_id)
        seen = requests.send("GET", url, read=_read_seen, headers=headers, wait=wait)
        if seen is not None:
            # A place in the queue is no change, because it changes with each task before this one.
            task = seen.task and seen.task.model_copy(update={"queue_position": None})
            is_change = task is not None and (task != last or (seen.etag or etag) != etag)
            if task is not None and seen.task is not None and is_change:
                last, etag = task, seen.etag
                yield seen.task
                if task.is_terminal:
                    return
            requests.pace(has_news=is_change, waited=bool(wait) and seen.waited)
        if deadline.left <= 0:
            raise TaskWaitTimeout(deadline.timeout, [task_id])


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
            has_news = part.next_offset > offset
            if has_news:
                offset = part.next_offset
                yield part.text
            elif part.ended:
                return
            requests.pace(has_news=has_news, waited=bool(wait) and waited)
        if deadline.left <= 0:
            raise TaskWaitTimeout(deadline.timeout, [task_id])


def _log_url(task_id: str, offset: int) -> str:
    return f"{path('tasks', task_id, 'log')}?offset={offset}"


def _with_wait(
    read: Callable[[httpx.Response], T],
) -> Callable[[httpx.Response], tuple[T, bool]]:
    """Read an answer, and whether the server honoured the wait."""
    return lambda answer: (read(answer), "Preference-Applied" in answer.headers)
