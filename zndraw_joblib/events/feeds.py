"""The feeds of rooms: one reader for an event loop and tenant, whose events all watchers share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from zndraw_joblib.events.cursors import parse_cursor
from zndraw_joblib.events.queries import reader
from zndraw_joblib.events.reads import BatchedReads
from zndraw_joblib.events.resumes import (
    ResumeKey,
    events_since,
    must_reset,
    resumed_and_released,
)
from zndraw_joblib.events.room_changes import ClockWentBack, Found, RoomChanges
from zndraw_joblib.events.states import (
    Jobs,
    Workers,
    job_states,
    worker_states,
)
from zndraw_joblib.events.waiters import counting
from zndraw_joblib.events.watchers import Room, Watcher
from zndraw_joblib.storage.connections import release_connections

logger = logging.getLogger(__name__)

#: Seconds from one look at the changed tasks to the next; and to the next look at jobs and workers,
#: and at the places in queues, which are dearer.
LOOK_SECONDS, STATES_SECONDS, QUEUES_SECONDS = 0.05, 1.0, 2.0
#: A look is followed by a rest of at least this many times its own length, because the reads of
#: waiting requests use the same thread.
REST = 1.0
#: Seconds of rest after a look that failed.
FAILED_SECONDS = 1.0


class Request(NamedTuple):
    """The reads of a look; `rooms` says for each whether an administrator watches it."""

    rooms: Mapping[str, bool]
    with_states: bool
    with_queues: bool
    clock: float


class Seen(NamedTuple):
    """The result of a look. `jobs` and `workers` have those of each room, None if not read.

    `is_broken` if the changes since the last look are unknown.
    """

    found: Found
    is_broken: bool
    jobs: Mapping[str, Jobs] | None
    workers: Mapping[str, Workers] | None


class RoomFeeds:
    """The feeds of one event loop for the rooms of a tenant.

    While somebody watches, one task looks at all watched rooms by one statement. No message of
    the channel layer is needed, so none can be lost, and no change of a task costs a message.
    """

    def __init__(self, executor: Executor, tenant: str | None) -> None:
        self._executor = executor
        self._rooms: dict[str, Room] = {}
        self._read = reader(tenant, self._look)
        self._resumes = BatchedReads(executor, reader(tenant, resumed_and_released))
        self._changes = RoomChanges()
        self._looking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._now: datetime | None = None

    @asynccontextmanager
    async def watch(
        self,
        room_id: str,
        *,
        tasks: Collection[UUID] | None = None,
        is_admin: bool = False,
        resume: str | None = None,
    ) -> AsyncIterator[Watcher]:
        """A watcher of a room, whose first batch begins with `ready` or `reset`.

        `resume` is a client's cursor, and the events since then follow. Without it, or after a
        reset, the client loads the lists, and the events that follow are later than these.
        """
        room = self._rooms.setdefault(room_id, Room())
        watcher = Watcher(room, None if tasks is None else frozenset(tasks), is_admin)
        room.watchers.add(watcher)
        try:
            with counting("events"):
                while not room.is_read_for(watcher):
                    await self._next_look()
                await self._begin(room_id, watcher, resume)
                yield watcher
        finally:
            watcher.leave()
            room.watchers.discard(watcher)
            if not room.watchers and self._rooms.get(room_id) is room:
                del self._rooms[room_id]

    async def _begin(self, room_id: str, watcher: Watcher, resume: str | None) -> None:
        room = watcher.room
        # Both were set by the look that the watcher waited for.
        assert self._now is not None
        assert room.jobs is not None
        watcher.cursor = room.cursor
        if resume is None:
            watcher.begin("ready")
            return
        cursor = parse_cursor(resume)
        workers = room.workers if watcher.is_admin else None
        known_workers = room.workers_digest if watcher.is_admin else None
        if cursor is None or must_reset(cursor, self._now, known_workers):
            watcher.reset()
            return
        has_other_jobs = cursor.jobs != room.jobs_digest
        key = ResumeKey(room_id, cursor.since, watcher.tasks, has_other_jobs)
        found = await self._resumes.read(key)
        if found is None:
            watcher.reset()
        elif watcher.lead is None:
            watcher.put_earlier(
                events_since(found, room.jobs, workers, has_other_jobs=has_other_jobs)
            )
            watcher.cursor = resume
            watcher.begin("ready")

    async def _next_look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_forever())
        await self._looked.wait()

    async def _look_forever(self) -> None:
        loop = asyncio.get_running_loop()
        # New, because looks would otherwise begin where the last watcher of an earlier time left.
        self._changes = RoomChanges()
        states_at = queues_at = loop.time()
        while self._rooms:
            began, rooms = loop.time(), dict(self._rooms)
            watched = {room_id: room.has_admins for room_id, room in rooms.items()}
            is_new = any(
                room.jobs is None or (watched[room_id] and room.workers is None)
                for room_id, room in rooms.items()
            )
            request = Request(watched, is_new or began >= states_at, began >= queues_at, began)
            try:
                (seen,) = await loop.run_in_executor(self._executor, self._read, [request])
            except Exception:
                logger.exception("could not read the changes in %d rooms", len(rooms))
                await asyncio.sleep(FAILED_SECONDS)
                continue
            if request.with_states:
                states_at = began + STATES_SECONDS
            if request.with_queues:
                queues_at = began + QUEUES_SECONDS
            self._publish(rooms, seen, began)
            took = loop.time() - began
            await asyncio.sleep(max(LOOK_SECONDS - took, REST * took))

    def _publish(self, rooms: Mapping[str, Room], seen: Seen, clock: float) -> None:
        self._now = seen.found.now
        for room_id, room in rooms.items():
            if seen.is_broken or room_id in seen.found.overflowed:
                room.reset()
            jobs = room.jobs if seen.jobs is None else seen.jobs[room_id]
            workers = room.workers if seen.workers is None else seen.workers.get(room_id)
            assert jobs is not None
            room.publish(seen.found.since, seen.found.tasks.get(room_id, []), jobs, workers)
            room.reset_if_due(clock)
        self._looked.set()
        self._looked.clear()

    def _look(self, requests: list[Request]) -> list[Seen]:
        """Look at the database, in the executor."""
        try:
            return [self._seen(request) for request in requests]
        finally:
            release_connections()

    def _seen(self, request: Request) -> Seen:
        is_broken, jobs, workers = False, None, None
        # Before the tasks, because a client knows from the cursor that its jobs are not older.
        if request.with_states:
            jobs = job_states(request.rooms)
            of_admins = [room_id for room_id, has_admins in request.rooms.items() if has_admins]
            workers = worker_states(of_admins) if of_admins else {}
        try:
            found = self._changes.look(
                request.rooms, request.clock, with_queues=request.with_queues
            )
        except ClockWentBack:
            is_broken, self._changes = True, RoomChanges()
            found = self._changes.look(request.rooms, request.clock, with_queues=False)
        return Seen(found, is_broken, jobs, workers)
