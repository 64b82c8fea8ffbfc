"""Cursors for the named statements; on PostgreSQL they use prepared statements.

PostgreSQL takes several times as long to plan one of the statements as to execute it. A host opts
in with ``DATABASES[...]["OPTIONS"]["prepare_threshold"] = 1``, because poolers in transaction mode
may not support prepared statements.
"""

from __future__ import annotations

from functools import cache
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

#: Seconds for which a connection keeps its prepared statements, because a plan that was made for an
#: empty table scans the table when it has grown, and a statement whose result type was changed by
#: ``ALTER TABLE`` fails until it is prepared again.
PREPARED_SECONDS = 5.0

#: When each connection began to prepare statements, by the monotonic clock.
_prepared_since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


def open_cursor(connection: Any, statement: str) -> Any:
    """A cursor for the statement of this name, with Django's execute wrappers, logging and errors.

    A connection keeps a cursor for each statement, because psycopg then reuses the adapters of its
    parameters and columns.
    """
    # Django's cursor first, because a host's engine may choose the schema of a tenant when it opens
    # one, as that of django-tenants does.
    cursor = connection.cursor()
    # Where queries are logged, Django's cursor logs the statement with its values.
    if connection.vendor != "postgresql" or connection.queries_logged:
        return cursor
    session = connection.connection
    cursors = vars(session).setdefault("joblib_cursors", {})
    # With the session's time zone, because adapters of times keep the zone in which they were made.
    key = statement, session.pgconn.parameter_status(b"TimeZone")
    if key not in cursors or cursors[key].closed:
        cursors[key] = _preparing_cursor()(session)
    return connection.make_cursor(cursors[key])


def column_names(cursor: Any, vendor: str) -> tuple[str, ...]:
    """The names of the columns of a cursor's result."""
    if vendor != "postgresql":
        return tuple(column[0] for column in cursor.description)
    # psycopg makes an object of each column of `description`, which takes longer than a short row.
    result = cursor.pgresult
    return tuple(result.fname(number).decode() for number in range(result.nfields))


@cache
def _preparing_cursor() -> Any:
    """The cursor class, made at the first use because a site on SQLite may not have psycopg."""
    import psycopg  # noqa: PLC0415
    from psycopg import errors  # noqa: PLC0415

    class PreparingCursor(psycopg.Cursor[Any]):
        """Prepares each statement at its first execution, and again after `PREPARED_SECONDS`.

        Django's own cursor binds parameters on the client, which rules prepared statements out.
        """

        def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
            connection = self.connection
            if connection.prepare_threshold is not None:
                since = _prepared_since.setdefault(connection, monotonic())
                now = monotonic()
                if now - since > PREPARED_SECONDS:
                    # A new text each time, because psycopg forgets its prepared statements only
                    # after a DEALLOCATE ALL whose text it has not seen before.
                    super().execute(f"DEALLOCATE ALL -- at {now}", prepare=False)
                    _prepared_since[connection] = now
            try:
                return super().execute(query, params, prepare=True, binary=True)
            except (errors.FeatureNotSupported, errors.InvalidSqlStatementName) as error:
                # ALTER TABLE changed the result type of a prepared statement, or somebody else
                # on the connection deallocated it.
                _prepared_since[connection] = float("-inf")
                if connection.autocommit:
                    return super().execute(query, params, prepare=False, binary=True)
                raise psycopg.OperationalError("a prepared statement is out of date") from error

        def fetchall(self) -> list[Any]:
            rows = super().fetchall()
            if len(rows) > 1:
                self.close()  # An open cursor keeps its result, which may take megabytes.
            return rows

    return PreparingCursor
