"""The tasks of a room that ended since the last look."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from zndraw_joblib.models import Task
from zndraw_joblib.storage.clock import database_time
from zndraw_joblib.storage.rows import TaskRow

#: Most time between the `completed_at` that a transaction writes and its commit.
OVERLAP = timedelta(seconds=10)
#: Most ends that are remembered when the database's clock went back.
MAX_AHEAD = 100_000


class RoomEnds:
    """Finds the tasks of a room that ended since the last look, by `completed_at`.

    Each look begins `OVERLAP` before the last one, because a task may have been committed later
    than it ended. When the database's clock has gone back, times occur that it has shown before:
    the ends that lie ahead of the clock are remembered, because the clock reaches them again. Ends
    of the last `OVERLAP` before the new time may then be found twice.
    """

    def __init__(self, room_id: str) -> None:
        self._room_id = room_id
        #: The database's time of the last look; None before the first.
        self._looked_at: datetime | None = None
        #: The tasks that the last look found.
        self._found: set[UUID] = set()
        #: Tasks that are not new when the clock reaches their end.
        self._ahead: set[UUID] = set()

    def new(self) -> list[TaskRow]:
        """The tasks that ended since the last call, by their ends; none at the first call."""
        using = Task.objects.write_db
        ended = Task.objects.using(using).filter(room_id=self._room_id, completed_at__isnull=False)
        now = database_time(using)
        since = self._looked_at or now
        begin = min(since, now) - OVERLAP
        # By `changed_at`, which has an index; a task ended no later than it last changed.
        window = ended.filter(changed_at__gte=begin, completed_at__range=(begin, now))
        found = set(window.values_list("pk", flat=True))
        new, ahead = found - self._found - self._ahead, self._ahead
        if self._looked_at is None or now < since:
            ends = dict(
                ended.filter(changed_at__gt=now, completed_at__gt=now)
                .order_by("completed_at")
                .values_list("pk", "completed_at")[:MAX_AHEAD]
            )
            # Tasks that ended between the last look and the change of the clock are new.
            new |= {pk for pk, at in ends.items() if at >= since - OVERLAP} - self._found
            ahead = set(ends)
        rows = Task.objects.read(new if self._looked_at else ())
        # Set at the end, because the tasks are still new if a query has failed.
        self._looked_at, self._found, self._ahead = now, found, ahead
        return sorted(rows.values(), key=_end_order)


def _end_order(task: TaskRow) -> tuple[datetime | None, UUID]:
    return task.completed_at, task.id
