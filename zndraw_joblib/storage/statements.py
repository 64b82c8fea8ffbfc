"""Runs the named statements of the files in ``sql``.

The statements are written by hand, because the ORM compiles a query at each request, which takes
longer than the database needs for it, and because it cannot express "heads, then lock one".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import connections

from zndraw_joblib.storage.cursors import column_names, open_cursor

_NAME = re.compile(r"^-- name: (.+)$", re.MULTILINE)
#: An empty line or a comment.
_COMMENT = re.compile(r" *(--|$)")
#: A percent sign outside a parameter. It is doubled, because cursors read `%%` as a percent sign.
_PERCENT = re.compile(r"%(?!\(\w+\)s)")


class Result(NamedTuple):
    """The rows of a statement and the names of their columns."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


@cache
def load(vendor: str) -> dict[str, str]:
    """The statements of a database, by their names.

    `vendor` is ``"postgresql"`` or ``"sqlite"``; a system check refuses others.
    """
    statements: dict[str, str] = {}
    for file in files(__package__).joinpath("sql").iterdir():
        if not file.name.startswith(vendor):
            continue
        _, *parts = _NAME.split(file.read_text("utf-8"))
        for names, body in zip(parts[::2], parts[1::2], strict=True):
            # Without the comments, because a database would parse them at each execution.
            lines = [line for line in body.splitlines() if not _COMMENT.match(line)]
            statement = "\n".join(lines).rstrip().removesuffix(";")
            for name in names.split(", "):
                statements[name] = _PERCENT.sub("%%", statement)
    return statements


def run(using: str, name: str, **parameters: Any) -> Result:
    """Run the statement of this name on a database.

    Parameters may be of any type that psycopg adapts; a record is a dict in a list, see `records`.
    """
    connection = connections[using]
    if connection.vendor == "sqlite":
        parameters = {
            key: json.dumps(adapted)
            if isinstance(adapted := _for_sqlite(value, using), list)
            else adapted
            for key, value in parameters.items()
        }
    cursor = open_cursor(connection, name)
    cursor.execute(load(connection.vendor)[name], parameters)
    return Result(column_names(cursor, connection.vendor), cursor.fetchall())


def records(using: str, rows: Sequence[dict[str, Any]]) -> str:
    """Several records as one parameter: a JSON array, ids as the database writes them."""
    if connections[using].vendor == "sqlite":
        rows = [{key: _for_sqlite(value, using) for key, value in row.items()} for row in rows]
    # orjson writes a UUID as text by itself.
    return orjson.dumps(rows).decode()


def _for_sqlite(value: Any, using: str) -> Any:
    """A parameter as SQLite stores it, because Django's backend adapts values of fields only."""
    match value:
        case UUID():
            return value.hex
        case datetime():
            return connections[using].ops.adapt_datetimefield_value(value)
        case list():
            return [_for_sqlite(item, using) for item in value]
        case _:
            return value
