"""Conditions of queries that have to repeat the condition of a partial index."""

from __future__ import annotations

from django.db.models import BooleanField, F, Func

from zndraw_joblib.lifecycle import LEASED_STATUSES


class IsLeased(Func):
    """Whether a worker holds the task: the condition of the indexes of leases and of workers.

    In place of ``status__in``, whose values are parameters: SQLite uses a partial index only where
    a query lists the same values as literals and in the same order.
    """

    template = "%(expressions)s IN ({})".format(
        ", ".join(f"'{status.value}'" for status in sorted(LEASED_STATUSES))
    )
    output_field = BooleanField()

    def __init__(self) -> None:
        super().__init__(F("status"))
