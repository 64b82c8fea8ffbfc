"""Locks a batch of rows for a statement of a sweep."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import connections, models

M = TypeVar("M", bound=models.Model)

#: Most rows that one statement of a sweep changes.
BATCH = 500


def lock_batch(queryset: models.QuerySet[M]) -> list[Any]:
    """Lock up to `BATCH` of these rows, skipping locked ones; returns their primary keys.

    Call it in a transaction, and repeat the condition in the statement that changes the rows,
    because another transaction may have changed a row before the lock was taken.
    """
    features = connections[queryset.db].features
    locked = queryset.order_by().select_for_update(
        skip_locked=features.has_select_for_update_skip_locked
    )
    return list(locked.values_list("pk", flat=True)[:BATCH])
