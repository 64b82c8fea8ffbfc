"""Lists of tasks and of their attempts, in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from zndraw_joblib.access import Caller, check_room_id
from zndraw_joblib.api.documents import attempt_document, task_document
from zndraw_joblib.api.pagination import Page
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.exceptions import json_pointer
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task, TaskAttempt
from zndraw_joblib.names import GLOBAL_ROOM, JobName
from zndraw_joblib.services.attempts import attempts_of
from zndraw_joblib.services.jobs import jobs
from zndraw_joblib.services.lists import creator_to_list
from zndraw_joblib.storage.lists import Filter, newest, with_small_results
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.text import Message


class TaskPage(Page):
    """A page of tasks, newest first; ``?status=`` filters, and ``?include=result`` adds results.

    A page with large results has fewer tasks than its limit.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(Task, request, "-created_at", "-id")
        #: Only tasks of this status; None for all.
        self.status: str | None = _choice(request, "status", list(TaskStatus))
        self._include_result = _choice(request, "include", ["result"]) is not None

    @property
    def before(self) -> tuple[Any, Any] | None:
        """Time and id of the task before the page; None for the first page."""
        return (self.after[0], self.after[1]) if self.after else None

    def fitting(self, ids: list[UUID]) -> list[UUID]:
        """The first of these tasks, up to the limit and as many as their results allow."""
        ids = ids[: self.limit]
        return with_small_results(ids) if self._include_result else ids

    def read(self, ids: Sequence[UUID]) -> list[TaskRow]:
        """The tasks with these ids."""
        tasks: list[TaskRow] = Task.objects.listed(ids, include_result=self._include_result)
        return tasks

    def response(self, tasks: Sequence[TaskRow], headers: dict[str, str]) -> Response:
        """The answer with these tasks."""
        # Checked again, because a task may have changed its status since its id was read.
        documents = [
            task_document(task, include_result=self._include_result)
            for task in tasks
            if self.status in {None, task.status}
        ]
        return Response(documents, headers=headers)


def task_page(request: Request, room_id: str, job: Job | None = None) -> Response:
    """A page of the tasks of a room, or of one of its jobs."""
    page = TaskPage(request)
    if job is None and page.status is None:
        ids = Task.objects.newest(room_id, page.limit + 1, page.before)
    else:
        conditions: dict[str, Any] = {"room_id": room_id, "job": job, "status": page.status}
        tasks = Task.objects.using(Task.objects.write_db).filter(
            **{name: value for name, value in conditions.items() if value is not None}
        )
        ids = page.of(tasks.values_list("pk", flat=True))
    fitting = page.fitting(ids)
    listed = page.read(fitting)
    headers = page.link(listed[-1]) if listed and len(ids) > len(fitting) else {}
    return page.response(listed, headers)


def submitted_page(request: Request, caller: Caller) -> Response:
    """A page of the tasks that an identity submitted; for administrators of all, on request.

    A page has fewer tasks than its limit where the caller may not read some, where few of the tasks
    that were read for it satisfy the filters, or where results are large; the `Link` header goes on
    all the same.
    """
    created_by = creator_to_list(caller, _text(request, "created_by"))
    room_id = _text(request, "room")
    if room_id is not None:
        check_room_id(room_id)
    name = _job_name(request)
    page = TaskPage(request)
    job: Job | None = None
    if name is not None:
        job = jobs().named(name).first()
        if job is None:
            return Response([])
        if room_id is None and job.room_id != GLOBAL_ROOM:
            room_id = job.room_id
    if created_by is None and room_id is not None:
        # An administrator may read every room, and the list of a room has an index of its own.
        return task_page(request, room_id, job)
    filters = Filter(page.status, None if job is None else job.pk, room_id)
    found = newest(created_by, filters, page.limit, page.before)
    fitting = page.fitting(found.ids)
    listed = page.read(fitting)
    last = listed[-1] if listed and len(found.ids) > len(fitting) else found.last
    headers = page.link(last) if last is not None else {}
    return page.response(caller.visible(listed), headers)


def attempt_page(request: Request, task: TaskRow) -> Response:
    """A page of the attempts of a task, oldest first."""
    requested = Page(TaskAttempt, request, "attempt")
    after = requested.after[0] if requested.after else 0
    attempts = attempts_of(task, after, requested.limit + 1)
    listed = attempts[: requested.limit]
    headers = requested.link(listed[-1]) if len(attempts) > len(listed) else {}
    return Response([attempt_document(attempt) for attempt in listed], headers=headers)


def _choice(request: Request, name: str, choices: Sequence[str]) -> str | None:
    """A query parameter with one of these values; None if it is left out."""
    value = request.query_params.get(name)
    if value is not None and value not in choices:
        raise invalid(
            Message("{name} must be one of {choices}.", name=name, choices=", ".join(choices)),
            json_pointer([name]),
        )
    return value


def _text(request: Request, name: str) -> str | None:
    """A query parameter that a database can look up; None if it is left out."""
    value = request.query_params.get(name)
    if value is not None and (not value or "\x00" in value):
        raise invalid(
            Message("{name} must not be empty or have the character U+0000.", name=name),
            json_pointer([name]),
        )
    return value


def _job_name(request: Request) -> JobName | None:
    text = _text(request, "job")
    try:
        return None if text is None else JobName.parse(text)
    except ValueError as error:
        raise invalid(Message("{error}.", error=error.args[0]), "/job") from error
