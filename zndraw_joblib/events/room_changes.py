"""Finds the tasks of rooms that changed, by repeated looks at the database.

A look misses the changes of transactions that have not been committed. Each look tells which
transactions write. When one of them has ended, the next look goes back to its begin, so that its
changes are found however long it was open; all other looks go back by `changes.reserve` only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from zndraw_joblib.models import Task
from zndraw_joblib.storage.changes import MAX_CHANGES, Look, look_at, queued, reserve
from zndraw_joblib.storage.clock import TOLERANCE
from zndraw_joblib.storage.rows import TaskRow

#: Seconds between two messages about one task, on average.
TASK_SECONDS = 0.2
#: A message may precede its time by this many seconds, and the next one is due as if it had not.
#: Without it, a task that changes every `TASK_SECONDS` is late by as much, because looks find its
#: changes at uneven times, and each message would delay all later ones.
EARLY_SECONDS = 0.08
#: Most tasks of a room that one look reads; where more have changed, clients load the lists.
MAX_READ = 500
#: Tasks of a room whose revisions are remembered. One that was forgotten may be sent twice.
MAX_KNOWN = 10_000
#: Begin of a transaction that is hidden and was never missing: this long before the first look.
HIDDEN = timedelta(seconds=60)


@dataclass(slots=True)
class Known:
    """A task as it was sent: its revision and its queue place.

    Its next message is due at `due_at`, a time of the loop's clock.
    """

    revision: int
    place: int | None = None
    due_at: float = float("-inf")

    def is_due(self, clock: float) -> bool:
        """Whether the next message may be sent now."""
        return clock >= self.due_at - EARLY_SECONDS


class Found(NamedTuple):
    """The tasks of a look by room, and the rooms in which too many have changed.

    Every change that the looks have not found yet is later than `since`.
    """

    now: datetime
    since: datetime
    tasks: dict[str, list[TaskRow]]
    overflowed: set[str]


class ClockWentBack(Exception):
    """The database's clock went back, so the times of earlier looks tell nothing."""


@dataclass
class RoomChanges:
    """The looks of one feed, which follow one after the other."""

    #: The time of the last look, and the transactions that wrote then, each with its begin.
    _looked_at: datetime | None = None
    _writing: dict[str, datetime] = field(default_factory=dict)
    #: The begin of the next look's changes.
    _begin: datetime | None = None
    #: The tasks of each room that were sent.
    _known: dict[str, dict[UUID, Known]] = field(default_factory=dict)
    #: Changed tasks of each room that may not be sent yet.
    _delayed: dict[str, set[UUID]] = field(default_factory=lambda: defaultdict(set))

    def look(self, rooms: Collection[str], clock: float, *, with_queues: bool) -> Found:
        """The tasks of the rooms that changed since the last look, or may be sent since.

        `clock` is the time of the loop's clock. With queues also those whose place in their queue
        has changed; a place moves without a change of the task.

        Raises
        ------
        ClockWentBack
            The looks must begin anew, and clients load the lists.
        """
        using = Task.objects.write_db
        self._forget(rooms)
        if self._looked_at is None:
            # The first look finds the transactions only: what they write is missing in the second.
            self._follow(using, look_at(using, [], None))
        look = look_at(using, sorted(rooms), self._begin)
        assert self._looked_at is not None
        if look.now < self._looked_at - TOLERANCE:
            raise ClockWentBack
        since = min([self._looked_at, *self._writing.values()]) - reserve(using)
        overflowed, wanted = self._new(look, clock)
        places = set(queued(using, sorted(rooms))) if with_queues else set()
        ids = {task_id for room in wanted.values() for task_id in room} | places
        found = Task.objects.read(ids, include_result=False, include_payload=False)
        tasks: dict[str, list[TaskRow]] = defaultdict(list)
        for task in found.values():
            if task.room_id in rooms and self._is_sent_now(task, clock):
                tasks[task.room_id].append(task)
        # Set at the end, because the changes are still new if a query has failed.
        for room_id, sent in wanted.items():
            self._delayed[room_id] -= sent
        self._follow(using, look)
        return Found(look.now, since, dict(tasks), overflowed)

    def _new(self, look: Look, clock: float) -> tuple[set[str], dict[str, set[UUID]]]:
        """The rooms in which too many tasks have changed, and the tasks of the others to read."""
        changed: dict[str, dict[UUID, int]] = defaultdict(dict)
        for room_id, task_id, revision in look.changes:
            changed[room_id][task_id] = revision
        overflowed, wanted = set(), {}
        for room_id in changed.keys() | self._delayed.keys():
            known = self._known.setdefault(room_id, {})
            new = {
                task_id
                for task_id, revision in changed[room_id].items()
                if task_id not in known or known[task_id].revision < revision
            }
            if len(new) > MAX_READ or len(changed[room_id]) > MAX_CHANGES:
                overflowed.add(room_id)
                for task_id in new:
                    self._remember(known, task_id, Known(changed[room_id][task_id]))
                self._delayed[room_id].clear()
                continue
            new |= self._delayed[room_id]
            wanted[room_id] = {
                task_id for task_id in new if task_id not in known or known[task_id].is_due(clock)
            }
            self._delayed[room_id] = new
        return overflowed, wanted

    def _is_sent_now(self, task: TaskRow, clock: float) -> bool:
        """Whether to send the task, which then counts as sent; delays one sent just now."""
        known = self._known.setdefault(task.room_id, {})
        before = known.get(task.id)
        due_at = clock
        if before is not None:
            if before.revision >= task.revision and before.place == task.queue_position:
                return False
            if not before.is_due(clock):
                self._delayed[task.room_id].add(task.id)
                return False
            due_at = max(clock, before.due_at)
        now = Known(task.revision, task.queue_position, due_at + TASK_SECONDS)
        self._remember(known, task.id, now)
        # Also a task that was never sent, because its place may have moved since a client read it.
        return True

    @staticmethod
    def _remember(known: dict[UUID, Known], task_id: UUID, now: Known) -> None:
        # Removed first, so that the tasks are in the order in which they were sent.
        known.pop(task_id, None)
        known[task_id] = now
        if len(known) > MAX_KNOWN:
            del known[next(iter(known))]

    def _follow(self, using: str, look: Look) -> None:
        """Note the transactions of a look, and the begin of the next one's changes."""
        before = self._looked_at or look.now - HIDDEN
        writing = {
            key: begin or self._writing.get(key, before) for key, begin in look.writing.items()
        }
        ended = [begin for key, begin in self._writing.items() if key not in writing]
        # From the last look on: its transactions were listed after its tasks were read.
        self._begin = min([self._looked_at or look.now, *ended]) - reserve(using)
        self._looked_at, self._writing = look.now, writing

    def _forget(self, rooms: Iterable[str]) -> None:
        """Forget the rooms that nobody watches any more."""
        for room_id in self._known.keys() - set(rooms):
            del self._known[room_id]
            self._delayed.pop(room_id, None)
