"""Prepared statements on PostgreSQL, where the host allows them.

To plan one of our statements takes PostgreSQL several times as long as to execute it, and Django's
own cursors put parameters into the text, so that no plan can be kept. A host opts in with
``DATABASES[...]["OPTIONS"]["prepare_threshold"] = 1``. Poolers in transaction mode may not bear it.
"""

from __future__ import annotations

from functools import cache
from typing import Any


def prepare(connection: Any, cursor: Any) -> None:
    """Let this cursor of Django's run prepared statements, if its connection does."""
    if connection.vendor != "postgresql":
        return
    raw = cursor.cursor
    if getattr(raw.connection, "prepare_threshold", None) is not None:
        cursor.cursor = _cursor_class()(raw.connection)


@cache
def _cursor_class() -> type[Any]:
    # Not needed, and perhaps not there, with other databases.
    import psycopg  # noqa: PLC0415

    times = psycopg.adapters.types["timestamptz"].oid
    # Django's own loader is Python, this one is C; both give times in UTC.
    loader: Any = psycopg.adapters.get_loader(times, psycopg.pq.Format.TEXT)

    class PreparedCursor(psycopg.Cursor[Any]):
        """Prepares what it executes."""

        def __init__(self, connection: Any) -> None:
            super().__init__(connection)
            self.adapters.register_loader(times, loader)

        def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
            super().execute(query, params, **{**kwargs, "prepare": True})
            # Where Django looks for what it logs when DEBUG is on.
            self._query: Any = Shown(self.connection, query, params)
            return self

    class Shown:
        """What was executed, with its parameters, for who wants to see it."""

        def __init__(self, connection: Any, text: Any, params: Any) -> None:
            self._connection, self._text, self._params = connection, text, params

        @property
        def query(self) -> bytes:
            """The text."""
            cursor = psycopg.ClientCursor(self._connection)
            return cursor.mogrify(self._text, self._params).encode()

    return PreparedCursor
