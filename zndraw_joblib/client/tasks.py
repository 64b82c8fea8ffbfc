"""`ClaimedTask`: a granted task, by which its code reports progress, writes a log and uploads."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sized
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from zndraw_joblib.client.files import Source
from zndraw_joblib.client.logs import TaskLogHandler
from zndraw_joblib.client.outcomes import Cancelled
from zndraw_joblib.lifecycle import MAX_MESSAGE_LENGTH, TaskStatus
from zndraw_joblib.text import clean_text

T = TypeVar("T")

_task_logger = logging.getLogger("zndraw_joblib.task")


class TaskActions(Protocol):
    """The acts of a `ClaimedTask` on its server; `JobManager` gives one to the tasks it claims."""

    def is_stopped(self, task: ClaimedTask, /) -> bool:
        """Whether the task was cancelled or lost."""

    def progress(self, task: ClaimedTask, fraction: float | None, message: str | None) -> None:
        """Report progress, within the limits of the server."""

    def log(self, task: ClaimedTask, line: str) -> None:
        """Append a line, with its line break, to the task's log."""

    def upload(
        self, task: ClaimedTask, source: Source, name: str | None, content_type: str | None
    ) -> dict[str, Any]:
        """Store a file of the task."""


class ClaimedTask(BaseModel):
    """A task granted to this worker. Each report on it carries its `attempt`.

    `status` is claimed, or running if the claim started the task. Progress and log are sent from a
    thread, at most once a second, and never make the task fail: while the server is away, or does
    not take them, they are dropped. A task that no `JobManager` claimed, as in a test, and a copy
    of a task in another process drop them too.
    """

    model_config = ConfigDict(frozen=True)
    # Beside the fields, because a comparison, a pickle and a dump of a task must leave it out.
    __slots__ = ("_actions",)

    id: str
    job_name: str
    room_id: str
    payload: dict[str, Any]
    created_at: datetime
    attempt: int
    status: TaskStatus = TaskStatus.CLAIMED
    #: Left out by a server that does not tell them.
    worker_id: str | None = None
    traceparent: str | None = None

    def log_fields(self) -> dict[str, Any]:
        """The fields of a log record about the task, for the argument `extra` of `logging`."""
        return {
            "task_id": self.id,
            "attempt": self.attempt,
            "job": self.job_name,
            "room": self.room_id,
            "worker_id": self.worker_id,
        }

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records have `log_fields`; its name is ``zndraw_joblib.task``."""
        return logging.LoggerAdapter(_task_logger, self.log_fields())

    def bind(self, actions: TaskActions | None) -> None:
        """Let the task act on its server, or no more."""
        object.__setattr__(self, "_actions", actions)

    def started(self) -> ClaimedTask:
        """The task with the status running."""
        task = self.model_copy(update={"status": TaskStatus.RUNNING})
        if actions := self._bound():
            task.bind(actions)
        return task

    def _bound(self) -> TaskActions | None:
        return getattr(self, "_actions", None)

    @property
    def cancelled(self) -> bool:
        """Whether the task was cancelled, or lost to another worker; its work is then in vain."""
        actions = self._bound()
        return actions is not None and actions.is_stopped(self)

    def checkpoint(self) -> None:
        """Raise `Cancelled` if the task was cancelled or lost.

        Raises
        ------
        Cancelled
            The task then ends, and nothing more is reported on it.
        """
        if self.cancelled:
            raise Cancelled(f"task {self.id} was cancelled or lost")

    def progress(self, fraction: float | None, message: str | None = None) -> None:
        """Report how far the work is.

        Parameters
        ----------
        fraction
            From 0 to 1; a value beyond becomes the nearest of both. None leaves it as it is.
        message
            Up to 1,000 characters; None leaves it as it is.
        """
        if actions := self._bound():
            if fraction is not None:
                number = float(fraction)
                fraction = None if math.isnan(number) else min(max(number, 0.0), 1.0)
            if message is not None:
                message = clean_text(str(message)[:MAX_MESSAGE_LENGTH])
            actions.progress(self, fraction, message)

    def track(self, iterable: Iterable[T], total: float | None = None) -> Iterator[T]:
        """Iterate over `iterable`, and report its position as the progress.

        `total` is the number of items, by default ``len(iterable)``. Without either, the message
        is the number of finished items.
        """
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        position = -1
        for position, item in enumerate(iterable):
            self._report_position(position, total)
            yield item
        self._report_position(position + 1, total)

    def _report_position(self, position: int, total: float | None) -> None:
        if total is None:
            self.progress(None, str(position))
        else:
            self.progress(position / total if total else 1.0)

    def log(self, text: str) -> None:
        """Append a line to the task's log."""
        if actions := self._bound():
            line = clean_text(str(text))
            actions.log(self, line if line.endswith("\n") else f"{line}\n")

    def logging_handler(self, level: int = logging.NOTSET) -> TaskLogHandler:
        """A `logging.Handler` that writes to this task's log; remove it when the task ends."""
        return TaskLogHandler(self, level)

    def upload(
        self, source: Source, name: str | None = None, *, content_type: str | None = None
    ) -> dict[str, Any]:
        """Store a file of the task; one of the same name is replaced.

        Parameters
        ----------
        source
            A path, bytes, or a file that is open for reading in binary mode.
        name
            Name of the file; a path gives it where it is left out.
        content_type
            Media type; guessed from the name where it is left out.

        Returns
        -------
        dict
            The file's `name`, `size` in bytes, `content_type`, `sha256`, `created_at`, `attempt`.

        Raises
        ------
        ApiError
            The server refuses the file, for instance because it is too large, or the task was lost.
        httpx.TransportError
            The server cannot be reached.
        OSError, TypeError, ValueError
            The source cannot be read, or the name is not valid.
        RuntimeError
            The task was not claimed by a `JobManager` of this process.
        """
        actions = self._bound()
        if actions is None:
            raise RuntimeError("only a task that a JobManager of this process claimed can upload")
        return actions.upload(self, source, name, content_type)
