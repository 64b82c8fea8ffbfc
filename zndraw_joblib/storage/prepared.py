"""Prepared statements on PostgreSQL, by libpq itself, where the host allows them.

To plan one of our statements takes PostgreSQL several times as long as to execute it, and Django's
cursor and psycopg's around it take as long again. A host opts in with
``DATABASES[...]["OPTIONS"]["prepare_threshold"] = 1``. Poolers in transaction mode may not bear it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

_PLACEHOLDER = re.compile(r"%\((\w+)\)s|%%")
_MICROSECOND = timedelta(microseconds=1)

#: Seconds after which a connection's plans are made anew for the first time; then after twice as
#: long, and so on up to the longest. PostgreSQL itself makes them anew when a table was vacuumed or
#: analyzed, which may take it a minute, while a new table's plans are for an empty one.
PLANS_SECONDS = 2.0
LONGEST_PLANS_SECONDS = 60.0


def applies(connection: Any) -> bool:
    """Whether a statement may be prepared.

    Not where somebody looks at what is executed, and not in a transaction, which psycopg's cursors
    begin.
    """
    if connection.vendor != "postgresql" or connection.queries_logged:
        return False
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    return (
        connection.get_autocommit()
        and getattr(connection.connection, "prepare_threshold", None) is not None
        and not connection.execute_wrappers
    )


def run(connection: Any, text: str, params: Mapping[str, Any]) -> list[Any]:
    """The rows of a statement with ``%(name)s`` for its parameters."""
    connection.validate_thread_sharing()
    with connection.wrap_database_errors:
        return _session(connection.connection).run(text, params)


class Session:
    """What is prepared on a connection."""

    def __init__(self, connection: Any) -> None:
        psycopg = _psycopg()
        self._wait, self._pgconn = connection.wait, connection.pgconn
        self._names: dict[str, bytes] = {}
        self._planned, self._plans_seconds = monotonic(), PLANS_SECONDS
        context = connection.cursor()
        # Django's own loader of times is Python, this one is C; both give times in UTC.
        times = psycopg.adapters.types["timestamptz"].oid
        loader = psycopg.adapters.get_loader(times, psycopg.pq.Format.TEXT)
        context.adapters.register_loader(times, loader)
        self._transformer = psycopg.adapt.Transformer(context)

    def run(self, text: str, params: Mapping[str, Any]) -> list[Any]:
        """Execute a statement, prepared at its first time."""
        if monotonic() - self._planned > self._plans_seconds:
            self._pgconn.send_query(b"DISCARD PLANS")
            self._result("COMMAND_OK")
            self._planned = monotonic()
            self._plans_seconds = min(2 * self._plans_seconds, LONGEST_PLANS_SECONDS)
        sql, order = numbered(text)
        name = self._names.get(text)
        if name is None:
            name = b"joblib_%d" % len(self._names)
            self._pgconn.send_prepare(name, sql)
            self._result("COMMAND_OK")
            self._names[text] = name
        self._pgconn.send_query_prepared(name, [dumped(params[each]) for each in order])
        result = self._result("TUPLES_OK")
        self._transformer.set_pgresult(result)
        rows: list[Any] = self._transformer.load_rows(0, result.ntuples, tuple)
        return rows

    def _result(self, status: str) -> Any:
        psycopg = _psycopg()
        # Waited for on the socket: libpq's own calls would keep all other threads from running.
        (result,) = self._wait(psycopg.generators.execute(self._pgconn))
        if result.status != psycopg.pq.ExecStatus[status]:
            raise psycopg.errors.error_from_result(result)
        return result


@cache
def numbered(text: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with ``$1``, ``$2``, ... and the names that these stand for."""
    order: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        if match[1] is None:
            return "%"
        return f"${order.setdefault(match[1], len(order) + 1)}"

    return _PLACEHOLDER.sub(number, text).encode(), tuple(order)


def dumped(value: Any) -> bytes | None:
    """A parameter as PostgreSQL reads it."""
    if value is None:
        return None
    if isinstance(value, list):
        return b"{%s}" % b",".join(map(_element, value))
    if isinstance(value, timedelta):
        return b"%d microseconds" % (value // _MICROSECOND)
    return str(value).encode()


def _element(value: Any) -> bytes:
    if value is None:
        return b"NULL"
    if isinstance(value, UUID):
        return value.hex.encode()
    if isinstance(value, int):
        return b"%d" % value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


_sessions: WeakKeyDictionary[Any, Session] = WeakKeyDictionary()


def _session(connection: Any) -> Session:
    session = _sessions.get(connection)
    if session is None:
        session = _sessions[connection] = Session(connection)
    return session


@cache
def _psycopg() -> Any:
    # Not needed, and perhaps not there, with other databases.
    import psycopg.adapt  # noqa: PLC0415
    import psycopg.generators  # noqa: PLC0415

    return psycopg
