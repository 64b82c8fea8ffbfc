"""Queries over the Idempotency-Keys of submits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self
from uuid import UUID

from django.db import models, transaction

from zndraw_joblib.exceptions import IdempotencyKeyReused
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.locking import lock_batch
from zndraw_joblib.storage.managers import WriteManager
from zndraw_joblib.storage.rows import parsed_id


class IdempotencyKeyQuerySet(models.QuerySet[Any]):
    """Queries over the keys of submits."""

    def expired(self, ttl: timedelta) -> Self:
        """Keys older than `ttl`."""
        return self.filter(created_at__lt=Now() - ttl)

    def remove(self) -> int:
        """Delete up to `BATCH` of these keys; returns how many."""
        with transaction.atomic(using=self.db):
            ids = lock_batch(self)
            # The condition is repeated, because a submit may have renewed a key before the lock.
            return self.filter(pk__in=ids).delete()[0] if ids else 0


class IdempotencyKeyManager(WriteManager.from_queryset(IdempotencyKeyQuerySet)):  # type: ignore[misc]
    """Verbs over the table of keys."""

    def reserve(self, key: str, request: str, task_id: UUID, ttl: timedelta) -> UUID:
        """Reserve a key for a task, in the submit's own transaction; returns the key's task.

        The result is `task_id` for a new or expired key, else the id of the task that the key was
        reserved for. Of several tasks the key has the first, because the others' ids follow from
        it. A submit with the same key waits for the commit of the first, because the key is
        unique. `request` is the digest of the body.

        Raises
        ------
        IdempotencyKeyReused
            The key was reserved for another request.
        """
        reserved = statements.run(
            self.write_db,
            "reserve_key",
            key=key,
            request=request,
            task_id=task_id,
            ttl_seconds=ttl.total_seconds(),
        )
        ((reserved_request, reserved_task_id),) = reserved.rows
        if reserved_request != request:
            raise IdempotencyKeyReused
        return parsed_id(reserved_task_id)
