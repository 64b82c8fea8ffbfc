"""Reads of the tasks that changed in rooms, by `Task.changed_at`.

A transaction commits later than the time that its statements wrote. So no read can take for granted
that it found every change up to its own time: `Look.writing` tells which transactions may still
bring earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connections

from zndraw_joblib.names import nfc
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.rows import parsed_id, parsed_time

#: Most changed tasks of a room that one look finds.
MAX_CHANGES = 5000
#: Most pending tasks of a room whose queue places are looked up.
MAX_QUEUED = 200

#: Most time between the `changed_at` of a statement and the moment at which PostgreSQL shows its
#: transaction as one that writes.
_UNSEEN = timedelta(seconds=2)
#: SQLite shows no transactions, so this is the most time that one may be open.
_OPEN_ON_SQLITE = timedelta(seconds=10)


class Change(NamedTuple):
    """A task that changed, and its revision."""

    room_id: str
    task_id: UUID
    revision: int


class Look(NamedTuple):
    """The changes that a look found, and the database's time of it.

    `writing` has the transactions that write, each with its begin; None where the begin is hidden.
    """

    now: datetime
    writing: Mapping[str, datetime | None]
    changes: Sequence[Change]


def reserve(using: str) -> timedelta:
    """The time by which a read goes back, because statements were under way at the last one."""
    return _UNSEEN if connections[using].vendor == "postgresql" else _OPEN_ON_SQLITE


def look_at(using: str, rooms: Sequence[str], since: datetime | None) -> Look:
    """The changes in rooms since a moment; none, but the time and the transactions, without one."""
    found = statements.run(
        using,
        "look_at_rooms",
        rooms=list(rooms) if since else [],
        since=since,
        limit=MAX_CHANGES + 1,
    )
    now, writing = found.rows[0][:2]
    return Look(
        parsed_time(now, using),
        {key: begin and parsed_time(begin, using) for key, begin in json.loads(writing or "[]")},
        [
            Change(room_id, parsed_id(task_id), revision)
            for _, _, room_id, task_id, revision in found.rows
            if task_id is not None
        ],
    )


def changed_since(
    using: str, room_id: str, since: datetime, limit: int
) -> list[tuple[UUID, datetime]]:
    """Up to `limit` tasks of a room that changed since a moment, each with its last change."""
    found = statements.run(using, "changed_tasks", room_id=nfc(room_id), since=since, limit=limit)
    return [(parsed_id(task_id), parsed_time(at, using)) for task_id, at in found.rows]


def queued(using: str, rooms: Sequence[str]) -> list[UUID]:
    """Up to `MAX_QUEUED` pending tasks of each room, oldest first."""
    found = statements.run(using, "queued_tasks", rooms=list(rooms), limit=MAX_QUEUED)
    return [parsed_id(task_id) for (task_id,) in found.rows]
