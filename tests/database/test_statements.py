"""Each named statement can be pasted into the shell of its database, with literal parameters."""

from __future__ import annotations

import json
import re
import sqlite3
from importlib.resources import files

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db

ID = "01890000000070008000000000000001"
#: A literal for each parameter, by the database.
LITERALS = {
    "tasks": json.dumps([{"id": ID, "payload": "{}"}]),
    "reports": json.dumps(
        [{"id": ID, "attempt": 1, "status": "failed", "legal_from": ["running"]}]
    ),
    "grants": json.dumps([{"id": ID, "attempt": 1}]),
    "statuses": json.dumps(["pending"]),
    "ids": json.dumps([ID]),
    "worker_ids": json.dumps([ID]),
    "rooms": json.dumps(["room"]),
    "since": "2026-01-01 00:00:00+00",
    "ends": json.dumps(
        [{"id": ID, "status": "pending", "outcome": "lost", "retries_left": 0, "delay": 1}]
    ),
}
NUMBERS = {
    *("limit", "most_ahead", "lease_seconds", "longest_seconds", "ttl_seconds"),
    *("revision", "lost_retries", "attempt", "changes", "least_seconds", "watch_seconds"),
    *("tolerance_seconds", "margin"),
    *("first", "max_bytes", "most", "size", "max_jobs"),
}
ARRAYS = {"ids", "statuses", "worker_ids", "rooms"}


def literal(name):
    postgresql = connection.vendor == "postgresql"
    if name in NUMBERS:
        return "1"
    if name in ("start", "include_result", "include_payload"):
        return "TRUE"
    if name in ("before_time", "before_id"):
        return "NULL"
    value = LITERALS.get(name, ID)
    if postgresql and name in ARRAYS:
        value = "{" + value.strip("[]").replace('"', "") + "}"
    return f"'{value}'"


def pasted():
    """The text of each statement of the file, with literals in place of its parameters."""
    folder = files("zndraw_joblib.storage").joinpath("sql")
    text = "".join(
        file.read_text() for file in folder.iterdir() if file.name.startswith(connection.vendor)
    )
    _, *parts = re.split(r"^-- name: (.+)$", text, flags=re.MULTILINE)
    return {
        name: re.sub(r"%\((\w+)\)s", lambda match: literal(match[1]), body)
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def explain(statement):
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement}")
            return cursor.fetchall()
    # A plain connection, because Django's connections add functions that the shell lacks.
    with sqlite3.connect(connection.settings_dict["NAME"]) as shell:
        return shell.execute(f"EXPLAIN {statement}").fetchall()


@pytest.mark.parametrize("name", pasted())
def test_statement_runs_in_the_shell_of_the_database(name):
    assert explain(pasted()[name])
