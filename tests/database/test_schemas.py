"""A host's engine that chooses a schema for each cursor, as that of django-tenants does."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, connections

from zndraw_joblib.models import Task, Worker
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.settings import get_settings

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no schemas"),
]

TABLES = ("job", "worker", "workerjoblink", "task", "roombacklog", "idempotencykey")


def execute(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def choose_schema(monkeypatch):
    """A function that chooses the schema of later cursors; `other` has empty tables of the app."""
    execute(
        "CREATE SCHEMA other",
        *(
            f"CREATE TABLE other.zndraw_joblib_{name} (LIKE public.zndraw_joblib_{name})"
            for name in TABLES
        ),
    )
    engine: Any = type(connections["default"])
    open_cursor, chosen = engine._cursor, ["public"]

    def open_in_schema(self, name=None):
        cursor = open_cursor(self, name)
        cursor.execute(f"SET search_path = {chosen[0]}")
        return cursor

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_cursor", open_in_schema)
        yield lambda name: chosen.__setitem__(0, name)
    execute("SET search_path = public", "DROP SCHEMA other CASCADE")


@pytest.mark.parametrize("is_logged", [False, True])
def test_statements_run_in_the_schema_that_the_engine_chooses(choose_schema, is_logged, settings):
    """No query of the ORM stands between the choice of the schema and the statement."""
    settings.DEBUG = is_logged
    worker = Worker.objects.create(identity="bob")
    job = offer(worker, JobName("room", "modifiers", "Rotate"), {}, get_settings().lease)[0]
    task = job.enqueue("room", {}, "alice")
    assert list(Task.objects.read([task.id])) == [task.id]
    choose_schema("other")
    assert not Task.objects.read([task.id])
    choose_schema("public")
    assert list(Task.objects.read([task.id])) == [task.id]
