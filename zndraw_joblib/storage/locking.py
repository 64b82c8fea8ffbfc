"""Locks rows before a statement changes them."""

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
    return list(skip_locked(queryset.order_by()).values_list("pk", flat=True)[:BATCH])


def skip_locked(queryset: models.QuerySet[M]) -> models.QuerySet[M]:
    """Lock these rows when they are read, without those that others have locked.

    SQLite locks nothing, because it has one writer at a time.
    """
    features = connections[queryset.db].features
    return queryset.select_for_update(skip_locked=features.has_select_for_update_skip_locked)


def delete_in_order(queryset: models.QuerySet[M]) -> None:
    """Delete rows that are locked in the order of their keys first, in the caller's transaction.

    A statement locks rows in the order of its plan, so two that delete some of the same rows could
    wait for each other.
    """
    list(queryset.order_by("pk").select_for_update().values_list("pk", flat=True))
    queryset.delete()
