"""The exceptions of tasks that ended without a result."""

from __future__ import annotations

from typing import Any, ClassVar

from zndraw_joblib.client.schemas import TaskInfo

#: First line of a traceback.
TRACEBACK = "Traceback (most recent call last):"


class UnsuccessfulTask(Exception):
    """A task ended without a result.

    Attributes
    ----------
    task : TaskInfo
        The task at its end.
    error : str
        The text that its worker, or the server, reported; empty if there is none.
    """

    _ended: ClassVar[str]

    def __init__(self, task: TaskInfo) -> None:
        self.task = task
        self.error = task.error or ""
        text = f"task {task.id} of {task.job_name} {self._ended}"
        super().__init__(f"{text}: {self.error}" if self.error else text)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling would else call the class with the text.
        return type(self), (self.task,)


class TaskFailed(UnsuccessfulTask):
    """A task failed. Its text contains the traceback of the worker."""

    _ended = "failed"

    @property
    def remote_traceback(self) -> str:
        """The traceback of the worker; empty if the task failed without an exception."""
        start = self.error.find(TRACEBACK)
        return self.error[start:] if start >= 0 else ""


class TaskCancelled(UnsuccessfulTask):
    """A task was cancelled."""

    _ended = "was cancelled"
