"""The backend, where Django looks for it."""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """As Django's, but `CONN_HEALTH_CHECKS` asks the socket before it asks the server.

    psycopg's pool does so too, for each connection that it hands out.

    A server that ends a connection says so on it. While there is nothing to read the connection is
    taken for good, without the ``SELECT 1`` that Django sends before each request's first query.
    """

    @property
    def pool(self) -> Any:
        """Psycopg's pool of this database's connections; None without one."""
        pool: Any = super().pool
        if pool is not None and pool._check is not None:
            # Django has its own check for all that is pooled, and takes none of ours.
            pool._check = _check
        return pool

    def is_usable(self) -> bool:
        """Whether the connection can be used."""
        connection = self.connection
        if connection is None or connection.closed or self.errors_occurred or _readable(connection):
            return bool(super().is_usable())
        return True


def _check(connection: Any) -> None:
    """See to it that a pooled connection can be used.

    Raises
    ------
    psycopg.OperationalError
        The server has ended it.
    """
    if _readable(connection):
        connection.execute("")


def _readable(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
