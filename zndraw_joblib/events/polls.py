"""The events of a room for a request that cannot wait, as under WSGI."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from zndraw_joblib.events.cursors import Cursor, parse_cursor
from zndraw_joblib.events.resumes import ResumeKey, events_since, must_reset, resumed
from zndraw_joblib.events.room_changes import HIDDEN
from zndraw_joblib.events.states import job_states, jobs_digest, worker_states, workers_digest
from zndraw_joblib.events.watchers import Batch, Room, Watcher
from zndraw_joblib.models import Task
from zndraw_joblib.storage.changes import look_at, reserve


def poll(
    room_id: str, tasks: Collection[UUID] | None, *, is_admin: bool, resume: str | None
) -> Batch:
    """The first batch of a watcher; see `RoomFeeds.watch` for the parameters."""
    using = Task.objects.write_db
    # Before all other reads, because they find what other transactions have committed by now.
    look = look_at(using, [], None)
    begins = [begin or look.now - HIDDEN for begin in look.writing.values()]
    jobs = job_states([room_id])[room_id]
    workers = worker_states([room_id])[room_id] if is_admin else None
    known_jobs = jobs_digest(jobs)
    known_workers = None if workers is None else workers_digest(workers)
    since = min([look.now, *begins]) - reserve(using)
    now = str(Cursor(since, known_jobs, known_workers or ""))
    if resume is None:
        return Batch("ready", [], now, now)
    cursor = parse_cursor(resume)
    if cursor is None or must_reset(cursor, look.now, known_workers):
        return Batch("reset", [], now, now)
    chosen = None if tasks is None else frozenset(tasks)
    has_other_jobs = cursor.jobs != known_jobs
    (found,) = resumed([ResumeKey(room_id, cursor.since, chosen, has_other_jobs)])
    if found is None:
        return Batch("reset", [], now, now)
    watcher = Watcher(Room(), chosen, is_admin)
    events = events_since(found, jobs, workers, has_other_jobs=has_other_jobs)
    return Batch("ready", [each for each in events if watcher.wants(each)], resume, now)
