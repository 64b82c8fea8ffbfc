"""The limit of pending tasks of a room."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import F

from zndraw_joblib.exceptions import TooManyPending
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.storage.clock import Now

#: Backlogs are counted exactly up to this limit.
EXACT_BACKLOG = 1000
#: A longer backlog that was full is not counted again for this long.
FULL_FOR = timedelta(seconds=1)


class RoomBacklogQuerySet(models.QuerySet[Any]):
    """Verbs over the limits of pending tasks of rooms."""

    def admit(self, room_id: str, limit: int, number: int = 1) -> None:
        """Let `number` more pending tasks into a room, in the submit's own transaction.

        A count of the backlog costs more the longer it is, so a count is used up: it leaves a
        number of places, each submit takes its own, and only when too few are left is the backlog
        counted again. Claims free places that the next count finds, so submits never exceed the
        limit; tasks that come back to the queue void the count, see `forget_places`. Up to
        `EXACT_BACKLOG` the next count comes at once; a longer backlog that was full is counted
        again a second later.

        Raises
        ------
        TooManyPending
            Fewer places are left. Call `note_full` after the rollback.
        """
        room = self.filter(room_id=room_id)
        if room.filter(limit=limit, places__gte=number).update(places=F("places") - number):
            return
        self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
        locked = room.select_for_update().get()
        # Another submit may have counted while this one waited for the lock.
        places = locked.places if locked.limit == limit else 0
        just_full = room.filter(limit=limit, full_at__gt=Now() - FULL_FOR)
        if places < number and not (limit > EXACT_BACKLOG and just_full.exists()):
            tasks = apps.get_model("zndraw_joblib", "Task")._base_manager.using(self.db)
            pending = tasks.filter(room_id=room_id, status=TaskStatus.PENDING)
            places = limit - pending.order_by()[:limit].count()
        if places < number:
            raise TooManyPending(
                f"At most {limit} tasks may be pending in this room; {number} more do not fit.",
                headers={"Retry-After": "1"},
            )
        room.update(limit=limit, places=places - number, full_at=None)

    def forget_places(self, rooms: set[str]) -> None:
        """Have the backlogs of these rooms counted at their next submits: tasks came back."""
        self.filter(room_id__in=rooms, places__gt=0).update(places=0)

    def note_full(self, room_id: str, limit: int) -> None:
        """Remember that a room was just counted and found full."""
        if limit > EXACT_BACKLOG:
            self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
            room = self.filter(room_id=room_id).exclude(full_at__gt=Now() - FULL_FOR)
            room.update(limit=limit, places=0, full_at=Now())
