"""The backend, where Django looks for it."""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """As Django's, but `CONN_HEALTH_CHECKS` asks the socket before it asks the server.

    A server that ends a connection says so on it. While there is nothing to read the connection is
    taken for good, without the ``SELECT 1`` that Django sends before each request's first query.
    """

    def is_usable(self) -> bool:
        """Whether the connection can be used."""
        connection = self.connection
        if connection is None or connection.closed or self.errors_occurred or _readable(connection):
            return bool(super().is_usable())
        return True


def _readable(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
