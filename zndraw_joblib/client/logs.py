"""`TaskLogHandler`: writes log records to the logs of tasks."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Protocol

#: Beginning of the names of the SDK's own threads. Their records, of requests for instance, belong
#: to no task, and sending them would make further ones.
THREAD_PREFIX = "joblib-"


class Logged(Protocol):
    """A task with a log."""

    @property
    def id(self) -> str:
        """Id of the task."""

    @property
    def attempt(self) -> int:
        """Number of the grant."""

    def log(self, text: str) -> None:
        """Append a line."""


#: The task whose code is running. A thread that this code starts has none.
running_task: ContextVar[Logged | None] = ContextVar("running_task", default=None)


class TaskLogHandler(logging.Handler):
    """Writes records to the log of a task.

    Without a task, each record goes to the task whose code logged it, so that one handler of the
    root logger serves all tasks of a worker: ``logging.getLogger().addHandler(TaskLogHandler())``.
    Records of threads that a task started belong to no task then.

    With a task, all records go to it, those of such threads too, except those of other tasks that
    run at the same time.
    """

    def __init__(self, task: Logged | None = None, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._task = task

    def emit(self, record: logging.LogRecord) -> None:
        """Append the formatted record to the log."""
        task = self._task_of(record)
        if task is None:
            return
        try:
            task.log(self.format(record))
        except Exception:
            self.handleError(record)

    def _task_of(self, record: logging.LogRecord) -> Logged | None:
        running = running_task.get()
        if self._task is None:
            return running
        if running is None:
            is_own = (record.threadName or "").startswith(THREAD_PREFIX)
            return None if is_own else self._task
        same = (running.id, running.attempt) == (self._task.id, self._task.attempt)
        return self._task if same else None
