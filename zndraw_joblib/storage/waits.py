"""Reads of the requests that wait for changes of tasks, or for the loss of granted ones."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from zndraw_joblib.storage import statements
from zndraw_joblib.storage.rows import parsed_id

#: Seconds for which changes of a task are published after its last watcher asked for them.
WATCH_SECONDS = 120.0
#: A watch is made longer when fewer seconds of it are left, because each time is a write.
LEAST_WATCH_SECONDS = 60.0


class GrantState(StrEnum):
    """The present state of a grant. `ENDED` is an end that the worker reported itself."""

    HELD = "held"
    CANCELLED = "cancelled"
    ENDED = "ended"
    LOST = "lost"


class Grant(NamedTuple):
    """A task, its attempt, and the worker and identity to which it was granted."""

    id: UUID
    attempt: int
    worker_id: str
    identity: str


class Revision(NamedTuple):
    """A task's revision, and whether each change after this one is published."""

    task_id: UUID
    revision: int
    is_watched: bool


def grant_states(using: str, grants: Sequence[Grant]) -> list[GrantState]:
    """The present state of each grant, by one query."""
    listed = [grant._asdict() | {"place": place} for place, grant in enumerate(grants)]
    found = statements.run(using, "read_grants", grants=statements.records(using, listed))
    return [GrantState(state) for _, state in found.rows]


def watch(using: str, ids: Sequence[UUID]) -> list[Revision]:
    """The revisions of the tasks that exist, whose changes are published from now on.

    One query; and an update, if the changes of a task are not published yet or for a short time
    only. A task whose row another transaction has locked may stay unwatched: ask again.
    """
    found = statements.run(
        using, "read_revisions", ids=list(ids), least_seconds=LEAST_WATCH_SECONDS
    )
    read = {
        parsed_id(task_id): Revision(parsed_id(task_id), revision, bool(is_watched))
        for task_id, revision, is_watched in found.rows
    }
    unwatched = [task_id for task_id, one in read.items() if not one.is_watched]
    if unwatched:
        watched = statements.run(using, "watch_tasks", ids=unwatched, watch_seconds=WATCH_SECONDS)
        for row_id, revision in watched.rows:
            read[parsed_id(row_id)] = Revision(parsed_id(row_id), revision, True)
    return list(read.values())
