"""Looks tasks up. A task that the caller may not read is treated as one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.models import Task
from zndraw_joblib.storage.lists import with_results
from zndraw_joblib.storage.rows import TaskRow


def find_task(caller: Caller, task_id: UUID) -> TaskRow:
    """The task with its queue position.

    Raises
    ------
    TaskNotFound
        The task does not exist, or the caller may not read it.
    """
    task = Task.objects.read([task_id]).get(task_id)
    if task is None or not caller.may_read(task):
        raise TaskNotFound
    return task


def find_tasks(
    caller: Caller, ids: Iterable[UUID], *, include_result: bool = False
) -> list[TaskRow]:
    """The tasks that exist and the caller may read, in the order of `ids`, each once.

    Results are bounded as in `storage.lists.with_results`.
    """
    tasks = caller.visible(Task.objects.listed(list(dict.fromkeys(ids))))
    # Results are read after the check, because those of hidden tasks would count against the bound.
    return with_results([tasks])[0] if include_result else tasks
