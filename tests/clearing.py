"""Tests with ``transaction=True`` leave empty databases, faster than by the flush of Django."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TransactionTestCase

#: Tables that `migrate` fills. They keep their rows, because a flush spends most of its time on
#: making the same ones again.
FILLED = ("django_content_type", "auth_permission")
#: Bytes from which a table is truncated, because many deleted rows would slow down later tests.
LARGE = 2**17

#: The rows of the tables above after `migrate`, by the alias of the database.
_filled: dict[str, list[Any]] = {}


def clear_quickly(alias: str) -> None:
    """Let tests clear this database, which was just migrated, by `clear`."""
    _filled[alias] = filled_rows(connections[alias])
    TransactionTestCase._fixture_teardown = fixture_teardown  # type: ignore[attr-defined]


def fixture_teardown(self: Any) -> None:
    """Clear the databases of a test; in the place of the method of `TransactionTestCase`."""
    for alias in self._databases_names(include_mirrors=False):
        if alias in _filled:
            clear(connections[alias])
            if filled_rows(connections[alias]) == _filled[alias]:
                continue
        call_command("flush", verbosity=0, interactive=False, database=alias, reset_sequences=False)
        if alias in _filled:
            # The flush made these rows anew, with other ids.
            _filled[alias] = filled_rows(connections[alias])


def filled_rows(connection: BaseDatabaseWrapper) -> list[Any]:
    """The rows of the tables that `migrate` fills."""
    with connection.cursor() as cursor:
        rows = []
        for table in FILLED:
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            rows += cursor.fetchall()
        return rows


def clear(connection: BaseDatabaseWrapper) -> None:
    """Delete the rows of all tables but those that `migrate` fills."""
    names = connection.introspection.django_table_names(include_views=False)
    tables = [connection.ops.quote_name(name) for name in names if name not in FILLED]
    everything = ", ".join(tables)
    size = "0"
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            size = "pg_relation_size('{0}')"
            # Waits for the writers that a test left behind, because their rows are not seen before.
            # On SQLite the beginning of the transaction waits for them.
            cursor.execute(f"LOCK TABLE {everything} IN EXCLUSIVE MODE")
        used = f"SELECT '{{0}}', {size} WHERE EXISTS (SELECT 1 FROM {{0}})"
        cursor.execute(" UNION ALL ".join(used.format(table) for table in tables))
        sizes = dict(cursor.fetchall())
        if any(size >= LARGE for size in sizes.values()):
            # All of them, because PostgreSQL truncates no table to which another refers.
            cursor.execute(f"TRUNCATE {everything}")
            return
        for table in sizes:
            cursor.execute(f"DELETE FROM {table}")
