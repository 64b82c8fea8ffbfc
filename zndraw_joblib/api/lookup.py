"""Ids, pages and answers about tasks that several views need."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from zndraw_joblib.api.documents import attempt_document, task_document
from zndraw_joblib.api.pagination import Page
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task, TaskAttempt
from zndraw_joblib.services.attempts import attempts_of
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.text import Message


def parse_task_id(text: str) -> UUID:
    """The task id in a path; raises TaskNotFound for a text that is not a UUID."""
    try:
        return UUID(text)
    except ValueError as error:
        raise TaskNotFound from error


def accepted(document: Any, location: str) -> Response:
    """The answer to a submit, with the path of the task or tasks."""
    return Response(document, status=202, headers={"Location": location, "Retry-After": "1"})


def task_page(request: Request, room_id: str, job: Job | None = None) -> Response:
    """A page of the tasks of a room, newest first, or of one of its jobs; ``?status=`` filters."""
    status = request.query_params.get("status")
    if status is not None and status not in set(TaskStatus):
        raise invalid(
            Message("status must be one of {statuses}.", statuses=", ".join(TaskStatus)), "/status"
        )
    requested = Page(Task, request, "-created_at", "-id")
    if job is None and status is None:
        before = (requested.after[0], requested.after[1]) if requested.after else None
        ids = Task.objects.newest(room_id, requested.limit + 1, before)
    else:
        conditions: dict[str, Any] = {"room_id": room_id, "job": job, "status": status}
        tasks = Task.objects.using(Task.objects.write_db).filter(
            **{name: value for name, value in conditions.items() if value is not None}
        )
        ids = requested.of(tasks.values_list("pk", flat=True))
    listed = Task.objects.listed(ids[: requested.limit])
    headers = requested.link(listed[-1]) if listed and len(ids) > requested.limit else {}
    # Checked again, because a task may have changed its status since its id was read.
    documents = [
        task_document(task, include_result=False)
        for task in listed
        if status in {None, task.status}
    ]
    return Response(documents, headers=headers)


def attempt_page(request: Request, task: TaskRow) -> Response:
    """A page of the attempts of a task, oldest first."""
    requested = Page(TaskAttempt, request, "attempt")
    after = requested.after[0] if requested.after else 0
    attempts = attempts_of(task, after, requested.limit + 1)
    listed = attempts[: requested.limit]
    headers = requested.link(listed[-1]) if len(attempts) > len(listed) else {}
    return Response([attempt_document(attempt) for attempt in listed], headers=headers)
