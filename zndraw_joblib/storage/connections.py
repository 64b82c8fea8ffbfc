"""Database connections of threads that outlive a request."""

from __future__ import annotations

from django.db import connections


def release_connections() -> None:
    """Close this thread's database connections, except those inside a transaction.

    With a pool, closing returns a connection to the pool.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
