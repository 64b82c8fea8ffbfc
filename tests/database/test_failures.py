"""The groups of failures: by job and error, apart from numbers and ids."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection

from tests.histories import count_at_once, make_job, make_task
from zndraw_joblib.models import FailedTask, FailureGroup
from zndraw_joblib.services import statistics
from zndraw_joblib.services.failures import Failure, normalized, record_failures
from zndraw_joblib.storage.clock import database_time

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch):
    count_at_once(monkeypatch)


def test_failures_are_grouped_by_job_and_error():
    first, second = make_job(), make_job()
    newest = make_task(first, "failed", ago=1, error="Worker '0190a3f2' timed out after 3.5 s")
    make_task(first, "failed", ago=9, error="Worker '7' timed out after 12 s")
    make_task(first, "failed", ago=5, error="Traceback\n  line 3\nValueError: 5 is odd")
    make_task(second, "failed", ago=4, error="Worker '9' timed out after 1 s")
    make_task(second, "failed", ago=3)
    statistics.collect()
    statistics.collect()
    found = {(group.job_id, group.error): group for group in FailureGroup.objects.all()}
    lost = "Worker '#' timed out after # s"
    assert {key: group.count for key, group in found.items()} == {
        (first.pk, lost): 2,
        (first.pk, "Traceback\nValueError: # is odd"): 1,
        (second.pk, lost): 1,
        (second.pk, ""): 1,
    }
    assert found[first.pk, lost].example == newest.pk
    assert found[first.pk, lost].tasks.count() == 2


def test_a_large_group_keeps_its_latest_tasks(monkeypatch):
    monkeypatch.setattr("zndraw_joblib.services.failures.MAX_TASKS", 2)
    job = make_job()
    made = [make_task(job, "failed", ago=9 - n, error="no") for n in range(4)]
    statistics.collect()
    group = FailureGroup.objects.get()
    assert group.count == 4
    assert set(group.tasks.values_list("task_id", flat=True)) == {made[2].pk, made[3].pk}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ""),
        ("  \n ", ""),
        ("code -5 at 1.5e-3, row 1,000", "code # at #, row #"),
        ("id 01890000-0000-7000-8000-000000000001 gone", "id # gone"),
        ("at 0x7f3a and deadbeef01", "at # and #"),
        ("decade facade", "decade facade"),
        ("step2 of v3", "step# of v#"),
        # Across the end of what is kept of a line.
        ("x" * 290 + " 01890000-0000-7000-8000-000000000001 gone", "x" * 290 + " # gone"),
        ("x" * 400, "x" * 300),
    ],
)
def test_numbers_and_ids_of_an_error_are_replaced(error, expected):
    assert normalized(error) == expected


def test_errors_of_any_text_fill_no_table(monkeypatch):
    """Without the limit each error was a row for `statistics_days`."""
    monkeypatch.setattr("zndraw_joblib.services.failures.MAX_GROUPS", 2)
    monkeypatch.setattr("zndraw_joblib.services.failures.CHUNK", 2)
    job = make_job()
    for number, error in enumerate("abcdefg"):
        make_task(job, "failed", ago=9 - number, error=f"no {error * 3}")
    statistics.collect()
    assert set(FailureGroup.objects.values_list("error", flat=True)) == {"no fff", "no ggg"}
    assert FailedTask.objects.count() == 2


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="PostgreSQL has no such limit here")
def test_any_number_of_tasks_may_fail_at_one_moment(monkeypatch):
    """A query with a parameter for each of them was refused."""
    most = 900
    connection.ensure_connection()
    # On the class, because Django 6.0 computes it.
    monkeypatch.setattr(type(connection.features), "max_query_params", most)
    limit = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most)
    job = make_job()
    moment = database_time("default") - timedelta(seconds=5)
    try:
        failures = [Failure(uuid4(), job.pk, moment, f"no {uuid4().hex}z") for _ in range(most + 1)]
        record_failures("default", failures)
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit)
    assert FailureGroup.objects.count() == FailedTask.objects.count() == most + 1
