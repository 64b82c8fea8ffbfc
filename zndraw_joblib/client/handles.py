"""`TaskHandle`: a submitted task, in the hands of the program that waits for it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, overload
from uuid import UUID

from zndraw_joblib.client import files, waiting, watching
from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.bars import load_bar, show_progress
from zndraw_joblib.client.result_values import Job, result_of
from zndraw_joblib.client.schemas import (
    AttemptInfo,
    TaskInfo,
    read_attempts,
    read_submitted,
    read_task,
)
from zndraw_joblib.client.submissions import key_header
from zndraw_joblib.client.waiting import Deadline
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.tracing import current_header


class TaskHandle:
    """A submitted task: its result, its progress, its log and its files.

    It holds no state of the task: each call asks the server. Any thread may use it, also in a
    forked process, and it can be copied and pickled; a pickle contains the credentials of its
    `Api`. Handles of one task are equal.

    Each call raises `TaskNotFoundError` if the task does not exist (any more), or if the caller may
    not read it.

    Parameters
    ----------
    api
        Access to the server.
    task_id
        Id of the task.
    job
        The class or decorated function of its job, whose annotation is the type of the result;
        None leaves results as plain JSON.
    job_name
        Full name of the job, for messages.
    """

    def __init__(
        self,
        api: ApiManager,
        task_id: str | UUID,
        job: Job | None = None,
        *,
        job_name: str | None = None,
    ) -> None:
        self.id = str(task_id)
        self._api = api
        self._job = job
        self._job_name = job_name

    def __repr__(self) -> str:
        job = f" of {self._job_name}" if self._job_name else ""
        return f"<{type(self).__name__} {self.id}{job}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskHandle):
            return NotImplemented
        return (self.id, self._api.base_url) == (other.id, other._api.base_url)

    def __hash__(self) -> int:
        return hash(self.id)

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskHandle:
        # With the same `Api`, because connections and their locks cannot be copied.
        return TaskHandle(self._api, self.id, self._job, job_name=self._job_name)

    def result(self, timeout: float | None = None, progress: bool = False) -> Any:
        """Wait for the end, at most `timeout` seconds, and return the result.

        The result is of the type that the job's `run` is annotated to return, or plain JSON. With
        `progress` a bar shows the progress of the task meanwhile; it needs the extra ``progress``.

        Raises
        ------
        TaskFailed
            The task failed; the text contains the traceback of its worker.
        TaskCancelled
            The task was cancelled.
        TaskWaitTimeout
            The task has not ended in time; it goes on.
        pydantic.ValidationError
            The result is not of the annotated type.
        ImportError
            `progress` without tqdm.
        """
        deadline = Deadline(timeout)
        if progress:
            show_progress(watching.changes(self._api, self.id, deadline), load_bar())
        (task,) = waiting.as_they_end(self._api, [self.id], deadline)
        return result_of(task, self._job)

    def status(self) -> TaskStatus:
        """The status of the task as it is now."""
        return self._task().status

    def progress(self) -> tuple[float | None, str | None]:
        """The fraction from 0 to 1 and the message that the present attempt reported last."""
        task = self._task()
        return task.progress, task.message

    def watch(self, timeout: float | None = None) -> Generator[TaskInfo, None, None]:
        """Iterate over the task as it is now and after each change, up to its end.

        Changes that follow each other closely may come as one. The iterator holds a connection
        until it ends or is closed.

        Raises
        ------
        TaskWaitTimeout
            From the iterator, if the task has not ended `timeout` seconds from now.
        """
        return watching.changes(self._api, self.id, Deadline(timeout))

    def log(self, offset: int = 0) -> str:
        """The text of the log, as far as it is kept, from an offset in bytes of UTF-8 on."""
        return "".join(watching.read_log(self._api, self.id, offset))

    def follow_log(self, offset: int = 0, timeout: float | None = None) -> Iterator[str]:
        """Iterate over the text of the log as it is written, up to the end of the task.

        Raises
        ------
        TaskWaitTimeout
            From the iterator, if the task has not ended `timeout` seconds from now.
        """
        return watching.follow_log(self._api, self.id, offset, Deadline(timeout))

    def files(self) -> list[dict[str, Any]]:
        """The files of all attempts, by name and attempt.

        Each has `name`, `attempt`, `size` (in bytes), `content_type`, `sha256` and `created_at`.
        """
        return files.files(self._api, self.id)

    @overload
    def download(self, name: str, to: None = None) -> bytes: ...
    @overload
    def download(self, name: str, to: str | PathLike[str]) -> Path: ...
    def download(self, name: str, to: str | PathLike[str] | None = None) -> bytes | Path:
        """Download the latest attempt's file of this name; one that is cut off goes on.

        Parameters
        ----------
        to
            Path of the new file, or a folder for it. The file appears there when all of it has
            arrived. Left out, the content is returned.
        """
        if to is None:
            return files.download(self._api, self.id, name)
        return files.download(self._api, self.id, name, to)

    def attempts(self) -> list[AttemptInfo]:
        """The attempts of the task, oldest first."""
        return send(self._api, "GET", path("tasks", self.id, "attempts"), read=read_attempts)

    def cancel(self) -> TaskInfo:
        """Cancel the task, also while it runs.

        Raises
        ------
        InvalidTaskTransitionError
            The task has completed or failed.
        """
        body = {"status": TaskStatus.CANCELLED}
        return send(self._api, "PATCH", path("tasks", self.id), read=read_task, body=body)

    def retry(self) -> TaskHandle:
        """Submit the same payload again, and return the handle of the new task.

        Raises
        ------
        InvalidTaskTransitionError
            The task has not ended.
        ApiError
            As in `Submitter.submit`.
        """
        url = path("tasks", self.id, "retry")
        headers = key_header(None) | current_header()
        task = send(self._api, "POST", url, read=read_submitted, headers=headers)
        return TaskHandle(self._api, task.id, self._job, job_name=self._job_name)

    def _task(self) -> TaskInfo:
        task = send(self._api, "GET", path("tasks", self.id), read=read_task)
        self._job_name = task.job_name
        return task
