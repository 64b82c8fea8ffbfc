"""Database connections: released by threads that outlive a request, replaced when useless."""

from __future__ import annotations

from time import monotonic
from typing import Any

from django.core.signals import request_started
from django.db import connections
from django.db.backends.signals import connection_created

#: Parameters that PostgreSQL reports by itself when a session begins and when they change.
_READ_ONLY_PARAMETERS = ("default_transaction_read_only", "in_hot_standby")
#: Least seconds between two replacements of a pool's connections because one was read-only, because
#: during an outage new ones are read-only too.
REPLACE_SECONDS = 1.0

_replaced_at = float("-inf")
#: Aliases on which a write found PostgreSQL read-only. Others are not looked at, because a site may
#: read from a standby, whose sessions are read-only for good.
_failed_over: set[str] = set()


def release_connections() -> None:
    """Close this thread's database connections, except those inside a transaction.

    With a pool, closing returns a connection to the pool.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def drop_failed_sessions() -> None:
    """End this thread's sessions in which a statement failed, except inside a transaction."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            if _is_read_only(connection):
                _failed_over.add(connection.alias)
            if not connection.in_atomic_block:
                _end_session(connection)


def _end_session(connection: Any) -> None:
    """Close a connection for good.

    A pool keeps an open connection that is returned to it, unless it was drained. Draining replaces
    its other connections too, whose sessions are as old. Without it a request that finds several of
    these broken would pause for 1, 2, 4 s between them, although new sessions could be had.
    """
    pool = getattr(connection, "pool", None)
    if pool is not None and connection.connection:
        pool.drain()
    connection.close()


def end_read_only_session(**_: Any) -> None:
    """Receiver of `request_started`: ends a read-only session of this thread after a failover.

    A session that began while PostgreSQL was read-only stays so when new ones can write again, and
    a thread that only read meanwhile has not noticed. No query is sent.
    """
    for alias in tuple(_failed_over):
        connection = connections[alias]
        if not connection.in_atomic_block and _is_read_only(connection):
            _end_session(connection)


def replace_read_only_session(connection: Any, **_: Any) -> None:
    """Receiver of `connection_created`: replaces a read-only session that a pool gave."""
    global _replaced_at
    if (
        connection.alias in _failed_over
        and _is_read_only(connection)
        and connection.pool is not None
        and monotonic() - _replaced_at > REPLACE_SECONDS
    ):
        # The new session may be read-only too, and is then kept.
        _replaced_at = float("inf")
        try:
            _end_session(connection)
            connection.connect()
        finally:
            _replaced_at = monotonic()


def _is_read_only(connection: Any) -> bool:
    """Whether PostgreSQL has said that the connection's session cannot write."""
    if connection.vendor != "postgresql" or connection.connection is None:
        return False
    reported = connection.connection.info.parameter_status
    return any(reported(name) == "on" for name in _READ_ONLY_PARAMETERS)


def connect() -> None:
    """Connect the receivers; the app does so when it is ready."""
    request_started.connect(end_read_only_session, dispatch_uid="zndraw_joblib.end_read_only")
    connection_created.connect(
        replace_read_only_session, dispatch_uid="zndraw_joblib.replace_read_only"
    )
