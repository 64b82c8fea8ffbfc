"""Looking tasks up: a task that its caller may not read does not exist for the caller."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import router

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.models import Task


def find_task(task_id: UUID, caller: Caller) -> Task:
    """The task with its queue position.

    Raises
    ------
    TaskNotFound
        It does not exist, or the caller may not read it.
    """
    task = Task.objects.using(router.db_for_write(Task)).read([task_id]).get(task_id)
    if task is None or not caller.sees(task):
        raise TaskNotFound
    return task


def find_tasks(ids: Iterable[UUID], caller: Caller) -> list[Task]:
    """The tasks that exist and the caller may read, in the order of `ids`, each once."""
    tasks = Task.objects.using(router.db_for_write(Task))
    # `listed` reads the head of each queue once, where `read` counts for each pending task.
    return caller.visible(tasks.listed(list(dict.fromkeys(ids))))
