"""Ids, paths and pages of tasks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import UUID

from django.urls import get_script_prefix, get_urlconf, reverse
from rest_framework.request import Request
from rest_framework.response import Response

from zndraw_joblib.api.documents import task_document
from zndraw_joblib.api.pagination import Page
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task

#: Stands for the id of a task in a path that is reversed once.
PLACEHOLDER = UUID(int=0)


def parse_task_id(text: str) -> UUID:
    """A task's id from a path."""
    try:
        return UUID(text)
    except ValueError as error:
        raise TaskNotFound from error


def task_path(task_id: UUID) -> str:
    """Where a task is found."""
    return _path_with_placeholder(get_script_prefix(), get_urlconf()).replace(
        str(PLACEHOLDER), str(task_id)
    )


@lru_cache(maxsize=64)
def _path_with_placeholder(prefix: str, urlconf: Any) -> str:
    # Reversed once for each place that the site lies at, as it takes long.
    return reverse("zndraw_joblib:task", urlconf, args=[PLACEHOLDER])


def task_page(request: Request, room_id: str, job: Job | None = None) -> Response:
    """A page of the tasks of a room, newest first, or of one of its jobs; ``?status=`` filters."""
    status = request.query_params.get("status")
    if status is not None and status not in set(TaskStatus):
        raise invalid(f"status must be one of {', '.join(TaskStatus)}.", "/status")
    asked = Page(Task, request, "-created_at", "-id")
    if job is None and status is None:
        before = (asked.after[0], asked.after[1]) if asked.after else None
        ids = Task.objects.newest(room_id, asked.limit + 1, before)
    else:
        conditions: dict[str, Any] = {"room_id": room_id, "job": job, "status": status}
        tasks = Task.objects.using(Task.objects.write_db).filter(
            **{name: value for name, value in conditions.items() if value is not None}
        )
        ids = asked.of(tasks.values_list("pk", flat=True))
    listed = Task.objects.listed(ids[: asked.limit])
    headers = asked.link(listed[-1]) if listed and len(ids) > asked.limit else {}
    # A task may have moved on to another status since its id was read.
    documents = [task_document(task) for task in listed if status in {None, task.status}]
    return Response(documents, headers=headers)
