"""Who the caller is and what they may do, by the host's hooks.

A request here is anything with a ``user``: a DRF request, or what stands for one on a WebSocket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured

from zndraw_joblib.models import MAX_IDENTITY_LENGTH, Task
from zndraw_joblib.names import GLOBAL_ROOM
from zndraw_joblib.settings import get_settings

#: What `room_access` is asked about.
Action = Literal["read", "submit", "register"]


def default_identity(request: Any) -> str:
    """The user's primary key as text."""
    return str(request.user.pk)


def default_is_admin(request: Any) -> bool:
    """Whether the user has the permission ``zndraw_joblib.administer``."""
    return bool(request.user.has_perm("zndraw_joblib.administer"))


def default_room_access(request: Any, room_id: str, action: Action) -> bool:
    """Any authenticated user may do anything in any room."""
    return bool(request.user.is_authenticated)


@dataclass(frozen=True)
class Caller:
    """An authenticated caller, seen through the host's hooks."""

    request: Any

    @cached_property
    def identity(self) -> str:
        """Who the caller is, as opaque text of 1 to 255 characters."""
        identity = get_settings().hook("identity")(self.request)
        if not isinstance(identity, str) or not 1 <= len(identity) <= MAX_IDENTITY_LENGTH:
            raise ImproperlyConfigured(
                f"The hook `identity` must return 1 to {MAX_IDENTITY_LENGTH} characters."
            )
        return identity

    @cached_property
    def is_admin(self) -> bool:
        """Whether the caller administers the job server."""
        return bool(get_settings().hook("is_admin")(self.request))

    def may(self, action: Action, room_id: str) -> bool:
        """Whether the caller may do this in a room. Only admins register global jobs."""
        if action == "register" and room_id == GLOBAL_ROOM:
            return self.is_admin
        return bool(get_settings().hook("room_access")(self.request, room_id, action)) or (
            self.is_admin
        )

    def runs(self, task: Task) -> bool:
        """Whether the caller's worker was granted the task's latest attempt."""
        return task.worker_identity == self.identity

    def sees(self, task: Task) -> bool:
        """Whether the task exists for the caller: they run it, or may read its room."""
        return self.runs(task) or self.may("read", task.room_id)

    def visible(self, tasks: Sequence[Task]) -> list[Task]:
        """Those of these tasks that exist for the caller; the hook is asked once for each room."""
        rooms = {task.room_id for task in tasks if not self.runs(task)}
        readable = {room_id for room_id in rooms if self.may("read", room_id)}
        return [task for task in tasks if self.runs(task) or task.room_id in readable]
