"""Tells a database that is away, or not migrated, from a fault in a query."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto

from django.db import DatabaseError, InterfaceError, OperationalError

from zndraw_joblib.storage.connections import drop_failed_sessions

#: Classes of SQLSTATE, their first two characters, of a server that cannot do its work now: no
#: connection, rollback by the server, insufficient resources, operator intervention, system error.
_AWAY_CLASSES = {"08", "40", "53", "57", "58"}
#: Further SQLSTATEs of that kind: object in use and lock not available, read-only transaction
#: (a failover), and transactions that took too long. psycopg raises 25xxx as `InternalError`.
_AWAY_CODES = {"55006", "55P03", "25006", "25P03", "25P04"}
#: After these the session can be used again: conflicts between transactions, resources, locks and
#: a canceled query (`statement_timeout`).
_USABLE_AFTER = ("40", "53", "55", "57014")
#: Undefined table and undefined column.
_UNMIGRATED_CODES = {"42P01", "42703"}

#: Result codes of SQLite after which the connection can be used again, and those after which a new
#: one must open the file again.
_SQLITE_USABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_PROTOCOL,
}
_SQLITE_UNUSABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
#: SQLite has no code of its own for these.
_SQLITE_UNMIGRATED = ("no such table", "no such column", "has no column named")


class Outage(Enum):
    """Why the database could not carry out a statement that has no fault."""

    #: The statement may succeed later, in the same session.
    BUSY = auto()
    #: The statement may succeed later, in another session.
    AWAY = auto()
    #: A table or column is missing until the site's operator runs ``manage.py migrate``.
    UNMIGRATED = auto()


def outage_of(error: BaseException) -> Outage | None:
    """The outage that an error of Django's database layer tells of; None for another error.

    Sessions that failed and cannot be used again are dropped, see `drop_failed_sessions`.
    """
    outage = _classify(error)
    if outage is Outage.AWAY:
        drop_failed_sessions()
    return outage


def _classify(error: BaseException) -> Outage | None:
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    # Django raises its own exception from the driver's.
    if sqlstate := getattr(error.__cause__, "sqlstate", None):
        return _of_postgresql(sqlstate)
    if code := getattr(error.__cause__, "sqlite_errorcode", None):
        return _of_sqlite(code, str(error))
    # Without a code, because there was no answer: the connection failed or was lost.
    return Outage.AWAY if isinstance(error, OperationalError | InterfaceError) else None


def _of_postgresql(sqlstate: str) -> Outage | None:
    if sqlstate in _UNMIGRATED_CODES:
        return Outage.UNMIGRATED
    if sqlstate[:2] in _AWAY_CLASSES or sqlstate in _AWAY_CODES:
        return Outage.BUSY if sqlstate.startswith(_USABLE_AFTER) else Outage.AWAY
    return None


def _of_sqlite(code: int, message: str) -> Outage | None:
    primary = code & 0xFF  # An extended code has its details in the higher bits.
    if primary in _SQLITE_USABLE:
        return Outage.BUSY
    if primary in _SQLITE_UNUSABLE:
        return Outage.AWAY
    if any(text in message for text in _SQLITE_UNMIGRATED):
        return Outage.UNMIGRATED
    return None
