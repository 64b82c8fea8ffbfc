"""Transactions of a site."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction


@contextmanager
def rollback(using: str = "default") -> Iterator[None]:
    """A transaction that is rolled back at its end."""
    with transaction.atomic(using=using):
        yield
        transaction.set_rollback(True, using=using)
