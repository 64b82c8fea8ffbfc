"""The watchers of a room: connections that send its events to clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from zndraw_joblib.events.cursors import Cursor
from zndraw_joblib.events.room_events import Event, job_events, task_event, worker_events
from zndraw_joblib.events.states import Jobs, Workers, jobs_digest, workers_digest
from zndraw_joblib.storage.rows import TaskRow

Encoded = TypeVar("Encoded")

#: Most events that wait for one watcher. One that is further behind loads the lists instead.
MAX_PENDING = 1000
#: Seconds between two resets of a room, because after each of them its clients load the lists.
RESET_SECONDS = 2.0


class Batch(NamedTuple):
    """The events that a watcher sends next.

    After `before` the client has everything up to the cursor before these events, after `after`
    everything up to their end. `lead` is the type of a message that precedes them. Without both,
    nothing happened for this client, which may resume from `after` later.
    """

    lead: str | None
    events: list[Event]
    before: str
    after: str

    @property
    def is_empty(self) -> bool:
        """Whether it has no message."""
        return self.lead is None and not self.events


@dataclass(eq=False)
class Watcher:
    """A connection that sends a room's events; `tasks` None stands for all of them.

    It keeps one event for each task, job and worker, the latest, so it needs no more memory when
    its client reads slowly.
    """

    room: Room
    tasks: frozenset[UUID] | None
    is_admin: bool
    #: The client has everything up to this cursor.
    cursor: str = ""
    #: The message that precedes the next events, `ready` or `reset`.
    lead: str | None = None
    _pending: dict[Hashable, Event] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None

    def wants(self, event: Event) -> bool:
        """Whether the client asked for events of this kind, and may have them."""
        if self.tasks is not None:
            return event.type == "task" and event.key in self.tasks
        return self.is_admin or not event.type.startswith("worker")

    def put(self, events: Iterable[Event]) -> None:
        """Let the client have these events, each in place of an earlier one of the same subject."""
        for event in events:
            if self.wants(event):
                # Removed first, so that the events are in the order of their cursors.
                self._pending.pop(event.key, None)
                self._pending[event.key] = event
        if len(self._pending) > MAX_PENDING:
            self.reset()
        if self._pending:
            self._woken.set()

    def put_earlier(self, events: Iterable[Event]) -> None:
        """As `put`, before the events that are there, and not in place of them."""
        later, self._pending = self._pending, {}
        self.put(events)
        self.put(later.values())

    def begin(self, lead: str) -> None:
        """Begin the stream with a `ready` or `reset`."""
        self.lead = lead
        self._woken.set()

    def reset(self) -> None:
        """Let the client load the lists in place of the events that are there."""
        self._pending.clear()
        self.cursor = self.room.cursor
        self.begin("reset")

    def wake_at(self, when: float) -> None:
        """Let `batch` return at a time of the loop's clock, also without events.

        One timer for many batches, because a timeout for each of them costs more than its events.
        """
        self.leave()
        self._timer = asyncio.get_running_loop().call_at(when, self._woken.set)

    def leave(self) -> None:
        """Cancel the timer of `wake_at`."""
        if self._timer is not None:
            self._timer.cancel()

    async def batch(self) -> Batch:
        """The next events, as soon as there are some; none at the time of `wake_at`."""
        await self._woken.wait()
        self._woken.clear()
        batch = Batch(self.lead, list(self._pending.values()), self.cursor, self.room.cursor)
        self.lead, self.cursor = None, batch.after
        self._pending.clear()
        return batch


@dataclass(eq=False)
class Room:
    """A room that has watchers. `jobs` and `workers` are None until they were read."""

    watchers: set[Watcher] = field(default_factory=set)
    jobs: Jobs | None = None
    workers: Workers | None = None
    #: The cursor after all events that the watchers were given.
    cursor: str = ""
    #: Digests of the jobs and workers, computed once for all looks that find the same.
    jobs_digest: str = ""
    workers_digest: str = ""
    #: The last batch that each encoder encoded, and its result, because most watchers get the same.
    encoded: dict[Callable[[Batch], Any], tuple[Batch, Any]] = field(default_factory=dict)
    _reset_pending: bool = False
    _reset_at: float = float("-inf")

    @property
    def has_admins(self) -> bool:
        """Whether an administrator watches."""
        return any(watcher.is_admin for watcher in self.watchers)

    def encode(self, batch: Batch, encoder: Callable[[Batch], Encoded]) -> Encoded:
        """The batch as `encoder` encodes it."""
        known = self.encoded.get(encoder)
        if known is None or known[0] != batch:
            known = self.encoded[encoder] = batch, encoder(batch)
        encoded: Encoded = known[1]
        return encoded

    def is_read_for(self, watcher: Watcher) -> bool:
        """Whether every later change of the room will be an event for this watcher."""
        return self.jobs is not None and (self.workers is not None or not watcher.is_admin)

    def publish(
        self, since: datetime, tasks: list[TaskRow], jobs: Jobs, workers: Workers | None
    ) -> None:
        """Give the watchers what has changed; every later change is later than `since`."""
        events = [task_event(task) for task in tasks]
        if jobs is not self.jobs:
            events += [] if self.jobs is None else job_events(self.jobs, jobs)
            self.jobs_digest = jobs_digest(jobs)
        if workers is not self.workers:
            self.workers_digest = "" if workers is None else workers_digest(workers)
        if self.workers is not None and workers is not None and workers is not self.workers:
            events_of_workers = worker_events(self.workers, workers)
            events += events_of_workers
            # A worker that no event is about stays as clients know it.
            changed_workers = {event.subject for event in events_of_workers}
            workers = {
                name: now if now in changed_workers else self.workers[name]
                for name, now in workers.items()
            }
        self.jobs, self.workers = jobs, workers
        if not self._reset_pending:
            self.cursor = str(Cursor(since, self.jobs_digest, self.workers_digest))
        if events:
            for watcher in self.watchers:
                watcher.put(events)

    def reset(self) -> None:
        """Let all clients load the lists, because changes were not sent.

        Later, if the last reset was a short time ago. Until then the cursor stays, because a client
        that left meanwhile would resume after the changes.
        """
        self._reset_pending = True

    def reset_if_due(self, clock: float) -> None:
        """Send a pending reset, if the last one is `RESET_SECONDS` ago by the loop's `clock`."""
        if self._reset_pending and clock - self._reset_at >= RESET_SECONDS:
            self._reset_pending, self._reset_at = False, clock
            for watcher in self.watchers:
                watcher.reset()
