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
from zndraw_joblib.text import Message

#: Largest limit with which a full room is counted again at each submit.
EXACT_BACKLOG = 1000
#: Time between two counts of a full room with a larger limit.
RECOUNT_INTERVAL = timedelta(seconds=1)


class RoomBacklogQuerySet(models.QuerySet[Any]):
    """Verbs over the free places of rooms."""

    def admit(self, room_id: str, limit: int, number: int = 1) -> None:
        """Take places for `number` pending tasks in a room, in the submit's own transaction.

        A submit does not count the pending tasks, because a count takes the longer the more there
        are. One count gives the number of free places, each submit takes its own, and only a submit
        that finds too few counts again. Claims free places, which the next count finds, so the
        limit is never exceeded; a requeued task takes a place, so `forget_places` discards the
        count. With a limit up to `EXACT_BACKLOG` each submit to a full room counts; with a larger
        one only the first submit after `RECOUNT_INTERVAL` does.

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
        # Read under the lock, because another submit may have counted meanwhile.
        places = locked.places if locked.limit == limit else 0
        just_full = room.filter(limit=limit, full_at__range=_just_now())
        if places < number and not (limit > EXACT_BACKLOG and just_full.exists()):
            tasks = apps.get_model("zndraw_joblib", "Task")._base_manager.using(self.db)
            pending = tasks.filter(room_id=room_id, status=TaskStatus.PENDING)
            places = limit - pending.order_by()[:limit].count()
        if places < number:
            raise TooManyPending(
                Message(
                    "At most {limit} tasks may be pending in this room; {number} more do not fit.",
                    limit=limit,
                    number=number,
                ),
                headers={"Retry-After": "1"},
            )
        room.update(limit=limit, places=places - number, full_at=None)

    def forget_places(self, rooms: set[str]) -> None:
        """Discard the counts of these rooms, because requeued tasks took places in them."""
        self.filter(room_id__in=rooms, places__gt=0).update(places=0)

    def note_full(self, room_id: str, limit: int) -> None:
        """Record that a count has just found the room full."""
        if limit > EXACT_BACKLOG:
            self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
            room = self.filter(room_id=room_id).exclude(full_at__range=_just_now())
            room.update(limit=limit, places=0, full_at=Now())


def _just_now() -> tuple[Any, Any]:
    """The last `RECOUNT_INTERVAL`; a later time is of a clock that has gone back since."""
    return Now() - RECOUNT_INTERVAL, Now()
