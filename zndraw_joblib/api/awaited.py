"""The changes that a request with ``Prefer: wait=N`` waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from zndraw_joblib.events.queries import Visible
from zndraw_joblib.storage.waits import Grant


@dataclass(frozen=True)
class UntilEnd:
    """The response changes when one of the tasks ends.

    `rooms` has the room id of each task, in the order of the response. `visible` returns the tasks
    that the caller may read at the end of the wait. With `many` the response is an array, and has
    the results only with `include_result`.
    `tenant` is that of the request.
    """

    rooms: Mapping[UUID, str]
    visible: Visible
    many: bool = False
    include_result: bool = True
    tenant: str | None = None


@dataclass(frozen=True)
class UntilWork:
    """The response changes when one of these jobs of a worker has a pending task."""

    worker_id: str
    jobs: tuple[UUID, ...]
    tenant: str | None = None


@dataclass(frozen=True)
class UntilMoreLog:
    """The response changes when the task's log has text beyond the offset, or the task ends."""

    task_id: UUID
    offset: int
    visible: Visible
    tenant: str | None = None


@dataclass(frozen=True)
class UntilChange:
    """The response, a 304, changes when the entity tag of the task is not a known one any more.

    `revision` is that of the task as the view read it. `visible` and `tenant` are as in `UntilEnd`.
    """

    task_id: UUID
    room_id: str
    revision: int
    known: frozenset[str]
    visible: Visible
    tenant: str | None = None


@dataclass(frozen=True)
class UntilStop:
    """The response to a heartbeat changes when one of these grants is cancelled or lost."""

    grants: tuple[Grant, ...]
    tenant: str | None = None


Until = UntilEnd | UntilWork | UntilMoreLog | UntilChange | UntilStop
