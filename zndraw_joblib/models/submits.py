"""Idempotency keys of submits, and the backlogs of rooms with a limit."""

from __future__ import annotations

from hashlib import sha256

from django.db import models
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.models.tasks import Task
from zndraw_joblib.names import MAX_NAME_LENGTH
from zndraw_joblib.storage.backlogs import RoomBacklogQuerySet
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.fields import NameField
from zndraw_joblib.storage.idempotency import IdempotencyKeyManager


class IdempotencyKey(models.Model):
    """The `Idempotency-Key` of a submit and the task that it made.

    The id is a digest of the identity, the route and the key, because two callers must not share a
    key and a long key would not fit an index row. `request` is a digest of the body.
    """

    id = models.CharField(_("key"), primary_key=True, max_length=64, editable=False)
    request = models.CharField(_("request"), max_length=64, editable=False)
    task = models.ForeignKey(
        Task, on_delete=models.CASCADE, related_name="idempotency_keys", verbose_name=_("task")
    )
    created_at = models.DateTimeField(
        _("created at"), db_default=Now(), editable=False, db_index=True
    )

    objects = IdempotencyKeyManager()

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")

    def __str__(self) -> str:
        return self.id

    @staticmethod
    def digest(*parts: str) -> str:
        """SHA-256 of the parts. Each is preceded by its length, so that no two lists collide."""
        return sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


class RoomBacklog(models.Model):
    """The free places for pending tasks in a room, as of the last count.

    A room has a row if a task was submitted there while `max_pending_per_room` was set.
    """

    room_id = NameField(_("room"), primary_key=True, max_length=MAX_NAME_LENGTH)
    limit = models.PositiveIntegerField(
        _("limit"), help_text=_("Limit of the room at the last count.")
    )
    places = models.PositiveIntegerField(_("free places"), default=0)
    full_at = models.DateTimeField(_("full since"), null=True)

    objects = RoomBacklogQuerySet.as_manager()

    class Meta:
        verbose_name = _("backlog of a room")
        verbose_name_plural = _("backlogs of rooms")

    def __str__(self) -> str:
        return self.room_id
