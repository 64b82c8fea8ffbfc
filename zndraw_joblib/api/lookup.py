"""What the endpoints look up: rows, ids, paths and pages."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from unicodedata import category
from uuid import UUID

from django.db import router
from django.urls import get_script_prefix, get_urlconf, reverse
from rest_framework.request import Request
from rest_framework.response import Response

from zndraw_joblib.api.documents import task_documents
from zndraw_joblib.api.pagination import Page
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.exceptions import TaskNotFound, WorkerNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import MAX_IDENTITY_LENGTH, Job, Task, Worker
from zndraw_joblib.storage.querysets import TaskQuerySet

#: Stands for a task in a path.
NO_TASK = UUID(int=0)


def jobs() -> Any:
    """Jobs on the database that is written to."""
    return Job.objects.using(router.db_for_write(Job))


def tasks() -> TaskQuerySet:
    """Tasks on the database that is written to."""
    # As `Task.objects.using` does, at an eighth of its cost.
    return TaskQuerySet(Task, using=router.db_for_write(Task))


def workers() -> Any:
    """Workers on the database that is written to."""
    return Worker.objects.using(router.db_for_write(Worker))


def bounded(worker_id: str | None) -> str:
    """A worker's id as the database can look it up."""
    if not worker_id or len(worker_id) > MAX_IDENTITY_LENGTH or _has_controls(worker_id):
        raise WorkerNotFound
    return worker_id


def _has_controls(text: str) -> bool:
    """Whether it holds control characters or surrogates; other unprintable ones may be a name."""
    return not text.isprintable() and any(category(char) in {"Cc", "Cs"} for char in text)


def parse_task_id(text: str) -> UUID:
    """A task's id from a path."""
    try:
        return UUID(text)
    except ValueError as error:
        raise TaskNotFound from error


def task_path(task_id: UUID) -> str:
    """Where a task is found."""
    return _path_of_no_task(get_script_prefix(), get_urlconf()).replace(str(NO_TASK), str(task_id))


@lru_cache(maxsize=64)
def _path_of_no_task(prefix: str, urlconf: Any) -> str:
    # Reversed once for each place that the site lies at, as it takes long.
    return reverse("zndraw_joblib:task", urlconf, args=[NO_TASK])


def task_page(request: Request, room_id: str, job: Job | None = None) -> Response:
    """A page of a room's tasks, or of one job's; ``?status=`` filters."""
    status = request.query_params.get("status")
    if status is not None and status not in set(TaskStatus):
        raise invalid(f"status must be one of {', '.join(TaskStatus)}.", "/status")
    asked = Page(Task, request, "-created_at", "-id")
    if job is None and status is None:
        before = (asked.after[0], asked.after[1]) if asked.after else None
        ids = tasks().newest(room_id, asked.limit + 1, before)
    else:
        found = tasks().filter(room_id=room_id)
        found = found if job is None else found.filter(job=job)
        found = found if status is None else found.filter(status=status)
        ids = asked.of(found.values_list("pk", flat=True))
    listed = tasks().listed(ids[: asked.limit])
    headers = asked.link(listed[-1]) if listed and len(ids) > asked.limit else {}
    # One may have gone on to another status in between.
    documents = task_documents([task for task in listed if status in {None, task.status}])
    return Response(documents, headers=headers)
