"""Sends the progress, log text and files of claimed tasks to the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zndraw_joblib.client import files
from zndraw_joblib.client.api import ApiManager
from zndraw_joblib.client.files import Source
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.client.updates import UpdateSender


@dataclass(frozen=True)
class Actions:
    """The `TaskActions` of the tasks that a manager claims."""

    api: ApiManager
    grants: Grants
    updates: UpdateSender

    def is_stopped(self, task: ClaimedTask) -> bool:
        """Whether the task was cancelled or lost, or is not this worker's any more."""
        # A cancel by this process itself ends the grant at once.
        return self.grants.is_stopped(task) or not self.grants.holds(task)

    def progress(self, task: ClaimedTask, fraction: float | None, message: str | None) -> None:
        """Report progress."""
        self.updates.progress(task, fraction, message)

    def log(self, task: ClaimedTask, line: str) -> None:
        """Append a line to the task's log."""
        self.updates.log(task, line)

    def upload(
        self, task: ClaimedTask, source: Source, name: str | None, content_type: str | None
    ) -> dict[str, Any]:
        """Store a file of the task."""
        return files.upload(
            self.api, task.id, task.attempt, source, name, content_type=content_type
        )
