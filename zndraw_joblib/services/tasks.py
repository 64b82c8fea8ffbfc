"""Tasks as a caller may see them."""

from __future__ import annotations

from uuid import UUID

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.models import Task
from zndraw_joblib.storage.rows import TaskRow


def visible_task(caller: Caller, task_id: UUID) -> TaskRow:
    """A task that the caller runs or whose room they may read.

    Raises
    ------
    TaskNotFound
        There is no such task for the caller.
    """
    task = Task.objects.read([task_id]).get(task_id)
    if task is None or not caller.sees(task):
        raise TaskNotFound
    return task
