"""The backend, in the module where Django looks for it."""

from __future__ import annotations

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, but `CONN_HEALTH_CHECKS` asks the socket before it asks the server.

    A server that ends a connection sends a message on it. While there is nothing to read the
    connection is taken for usable, without the ``SELECT 1`` that Django sends for each request.
    """

    def is_usable(self) -> bool:
        """Whether the connection can be used."""
        connection = self.connection
        if connection is None or connection.closed or self.errors_occurred:
            return bool(super().is_usable())
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0) or bool(super().is_usable())
