"""The events since a cursor, for clients that come back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from zndraw_joblib.events.cursors import Cursor
from zndraw_joblib.events.room_events import (
    Event,
    job_events,
    retired_event,
    task_event,
    worker_events,
)
from zndraw_joblib.events.states import (
    Jobs,
    Workers,
    retired_jobs,
)
from zndraw_joblib.models import Task
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.changes import changed_since
from zndraw_joblib.storage.clock import TOLERANCE, database_time
from zndraw_joblib.storage.connections import release_connections

#: Most tasks whose changes a client gets when it comes back; with more it loads the lists.
MAX_RESUMED = 500
#: The age beyond which a cursor is not resumed; less where tasks are pruned earlier.
MAX_AGE = timedelta(days=1)


class ResumeKey(NamedTuple):
    """A cursor's moment, the tasks that the client watches (None for all), and the retired jobs."""

    room_id: str
    since: datetime
    tasks: frozenset[UUID] | None
    with_retired: bool


class Resumed(NamedTuple):
    """The events of tasks since a cursor, and the full names of the jobs retired since."""

    tasks: list[Event]
    retired: list[str]


def is_too_old(cursor: Cursor, now: datetime) -> bool:
    """Whether changes since a cursor may be unknown, also because it lies ahead of the clock."""
    settings = get_settings()
    ages = [settings.prune_after_days, settings.prune_failed_after_days]
    most = min([MAX_AGE, *(timedelta(days=days) for days in ages if days is not None)])
    return not now - most <= cursor.since <= now + TOLERANCE


def must_reset(cursor: Cursor, now: datetime, workers: str | None) -> bool:
    """Whether the changes since a cursor cannot be told.

    `workers` is the digest of the room's, None for a client that does not administer. Workers that
    left have no rows from which their end could be told.
    """
    return is_too_old(cursor, now) or workers not in {None, cursor.workers}


def events_since(
    found: Resumed, jobs: Jobs, workers: Workers | None, *, has_other_jobs: bool
) -> list[Event]:
    """All events since a cursor: of tasks, of jobs if they changed, and of all workers."""
    events = list(found.tasks)
    if has_other_jobs:
        events += job_events({}, jobs)
        events += [retired_event(name) for name in found.retired if name not in jobs]
    return events + worker_events({}, workers or {})


def resumed_and_released(keys: list[ResumeKey]) -> list[Resumed | None]:
    """As `resumed`, from a thread that keeps no database connection."""
    try:
        return resumed(keys)
    finally:
        release_connections()


def resumed(keys: list[ResumeKey]) -> list[Resumed | None]:
    """For each key the events since its cursor, None if there are too many."""
    using = Task.objects.write_db
    now = database_time(using)
    ids: dict[ResumeKey, list[UUID] | None] = {}
    retired: dict[ResumeKey, list[str]] = {}
    # Each key once, because the clients of a room that come back together have the same cursor.
    for key in set(keys):
        # A little earlier, because the clock may have gone back a little.
        since = key.since - TOLERANCE
        ids[key] = _changed(using, key, since, now)
        retired[key] = retired_jobs(key.room_id, since) if key.with_retired else []
    wanted = {task_id for one in ids.values() for task_id in one or ()}
    tasks = Task.objects.read(wanted, include_result=False, include_payload=False)
    # Shared, because many clients come back at once after a server has been restarted.
    events = {task_id: task_event(task) for task_id, task in tasks.items()}
    found = {
        key: one
        if one is None
        else Resumed(
            [
                events[task_id]
                for task_id in one
                if task_id in tasks and tasks[task_id].room_id == key.room_id
            ],
            retired[key],
        )
        for key, one in ids.items()
    }
    return [found[key] for key in keys]


def _changed(using: str, key: ResumeKey, since: datetime, now: datetime) -> list[UUID] | None:
    """The tasks that changed since a moment, the earliest first; None if they are too many."""
    if key.tasks is not None:
        return list(key.tasks)
    found = changed_since(using, key.room_id, since, MAX_RESUMED + 1)
    # Changes ahead of the clock show that it went back, so earlier ones may be of a later time.
    if len(found) > MAX_RESUMED or any(at > now + TOLERANCE for _, at in found):
        return None
    return [task_id for task_id, _ in reversed(found)]
