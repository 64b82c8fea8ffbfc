"""The documents of the server as pydantic models. Unknown fields are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus


class ClaimedTask(BaseModel):
    """A task granted to this worker. Each report on it carries its `attempt`.

    `status` is claimed, or running if the claim started the task.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    job_name: str
    room_id: str
    payload: dict[str, Any]
    created_at: datetime
    attempt: int
    status: TaskStatus = TaskStatus.CLAIMED


class TaskInfo(BaseModel):
    """A task, as the server answered. `queue_position` is None unless the task is pending."""

    id: str
    job_name: str
    room_id: str
    status: TaskStatus
    payload: dict[str, Any]
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    attempt: int
    queue_position: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the task ended."""
        return self.status in TERMINAL_STATUSES


class HeartbeatReply(BaseModel):
    """The server's answer to a heartbeat, with the ids of tasks that the worker should stop."""

    id: str
    last_heartbeat: datetime
    lost: list[str] = []
    cancelled: list[str] = []
