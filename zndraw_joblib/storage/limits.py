"""What keeps submits within bounds: their keys and the places of rooms."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from django.db import models, transaction
from django.db.models import F

from zndraw_joblib.exceptions import IdempotencyKeyReused, TooManyPending
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.querysets import locked_batch

if TYPE_CHECKING:
    from zndraw_joblib.models import IdempotencyKey, RoomBacklog

#: Backlogs up to this limit are counted whenever no place is left.
EXACT_BACKLOG = 1000
#: A longer one that was full is not counted again for so long.
FULL_FOR = timedelta(seconds=1)


class IdempotencyKeyQuerySet(models.QuerySet["IdempotencyKey"]):
    """Verbs over the keys of submits."""

    def expired(self, ttl: timedelta) -> Self:
        """Keys older than `ttl`."""
        return self.filter(created_at__lt=Now() - ttl)

    def reserve(self, pk: str, request: str, task_id: UUID, ttl: timedelta) -> UUID:
        """Keep a key for a task, in the submit's own transaction; the id of the key's task.

        That is `task_id` for a new or expired key. Whoever comes while the first submit is still
        under way waits for its commit by the unique key. `request` is the digest of the body. Of
        several tasks the key keeps the first: the ids of the others follow it.

        Raises
        ------
        IdempotencyKeyReused
            The key was kept for another request.
        """
        if statements.supports(self.db):
            kept, known = statements.reserve(self.db, pk, request, task_id, ttl)
        else:
            kept, known = self._reserve_by_orm(pk, request, task_id, ttl)
        if kept != request:
            raise IdempotencyKeyReused
        return known

    def _reserve_by_orm(
        self, pk: str, request: str, task_id: UUID, ttl: timedelta
    ) -> tuple[str, UUID]:
        wanted: IdempotencyKey = self.model(pk=pk, request=request, task_id=task_id)
        own = self.filter(pk=pk)
        while True:
            self.bulk_create([wanted], ignore_conflicts=True)
            # Locked before it is looked at: another submit may be about to renew it.
            kept = own.select_for_update().first()
            if kept is not None:
                break
            # A sweep removed it in between.
        if own.expired(ttl).update(request=request, task_id=task_id, created_at=Now()):
            return request, task_id
        return kept.request, kept.task_id

    def remove(self) -> int:
        """Delete up to `BATCH` of these keys; say how many."""
        with transaction.atomic(using=self.db):
            ids = list(locked_batch(self).values_list("pk", flat=True))
            # The condition is looked at again: a submit may have renewed a key before the lock.
            return self.filter(pk__in=ids).delete()[0] if ids else 0


class RoomBacklogQuerySet(models.QuerySet["RoomBacklog"]):
    """Verbs over the rooms' limits of pending tasks."""

    def admit(self, room_id: str, limit: int, number: int = 1) -> None:
        """Let so many more pending tasks into a room, in the submit's own transaction.

        Counting the backlog costs more the longer it is, so a count is drawn upon: it leaves so
        many places, each submit takes its own, and only when too few are left is the backlog
        counted again. Claims free places that the next count finds, so the limit is never
        exceeded by submits; tasks that come back to the queue void it, see `forget_places`. Up to
        `EXACT_BACKLOG` that next count comes at once; beyond it a room that was full is counted
        again a second later.

        Raises
        ------
        TooManyPending
            There are not so many places. Tell `note_full` after the rollback.
        """
        room = self.filter(room_id=room_id)
        if room.filter(limit=limit, places__gte=number).update(places=F("places") - number):
            return
        self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
        locked: RoomBacklog = room.select_for_update().get()
        # Another submit may have counted while this one waited for the lock.
        places = locked.places if locked.limit == limit else 0
        just_full = room.filter(limit=limit, full_at__gt=Now() - FULL_FOR)
        if places < number and not (limit > EXACT_BACKLOG and just_full.exists()):
            tasks: Any = self.model._meta.apps.get_model("zndraw_joblib", "Task")
            pending = tasks.objects.using(self.db).filter(
                room_id=room_id, status=TaskStatus.PENDING
            )
            places = limit - pending.order_by()[:limit].count()
        if places < number:
            raise TooManyPending(
                f"At most {limit} tasks may be pending in this room; {number} more do not fit.",
                headers={"Retry-After": "1"},
            )
        room.update(limit=limit, places=places - number, full_at=None)

    def forget_places(self, rooms: set[str]) -> None:
        """Count these rooms' backlogs again at their next submits: tasks came back to them."""
        self.filter(room_id__in=rooms, places__gt=0).update(places=0)

    def note_full(self, room_id: str, limit: int) -> None:
        """Remember that a room was just counted and found full."""
        if limit > EXACT_BACKLOG:
            self.bulk_create([self.model(room_id=room_id, limit=limit)], ignore_conflicts=True)
            room = self.filter(room_id=room_id).exclude(full_at__gt=Now() - FULL_FOR)
            room.update(limit=limit, places=0, full_at=Now())
