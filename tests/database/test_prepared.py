"""Statements that psycopg prepares: their plans, their lifetime, and altered tables."""

from __future__ import annotations

import threading
from datetime import UTC, timedelta
from time import monotonic
from typing import Any, cast
from uuid import UUID

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from tests.factories import grant_one
from tests.plans import copy_task
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.names import JobName
from zndraw_joblib.services.register import offer
from zndraw_joblib.storage import cursors
from zndraw_joblib.storage.ids import new_ids
from zndraw_joblib.storage.rows import NewTask

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql", reason="SQLite has no prepared statements on the server"
    ),
]

LEASE = timedelta(seconds=60)


@pytest.fixture
def job():
    # Opens a new connection, which has no prepared statements.
    cast("Any", connection).close_pool()
    connection.close()
    worker = Worker.objects.create(identity="bob")
    return offer(worker, JobName("room", "modifiers", "Rotate"), {}, LEASE)[0]


def fetch(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def prepared(containing):
    """(name, number of generic plans) of the prepared statements that contain this text."""
    return fetch(
        "SELECT name, generic_plans FROM pg_prepared_statements"
        f" WHERE statement LIKE '%{containing}%' AND statement NOT LIKE '%pg_prepared%'"
    )


def age_statements(monkeypatch):
    """Set the clock beyond the lifetime of prepared statements."""
    later = monotonic() + cursors.PREPARED_SECONDS + 1
    monkeypatch.setattr(cursors, "monotonic", lambda: later)


def test_a_statement_is_prepared_once(job):
    for _ in range(3):
        job.enqueue("room", {"a": 1}, "alice")
    assert len(prepared("INSERT INTO zndraw_joblib_task")) == 1


def test_a_statement_is_prepared_in_a_transaction_too(job):
    with transaction.atomic():
        job.enqueue("room", {"a": 1}, "alice")
        assert len(prepared("INSERT INTO zndraw_joblib_task")) == 1
        transaction.set_rollback(True)
    assert not Task.objects.exists()


def test_hot_statements_use_generic_plans(job):
    """With an array parameter PostgreSQL would make a custom plan for each execution."""
    worker = Worker.objects.get()
    for _ in range(12):
        task = job.enqueue("room", {}, "alice")
        Task.objects.read([task.id])
        grant_one(worker.pk, "bob")
        Task.objects.filter(pk=task.id).start()
        Task.objects.renew(worker.pk, LEASE, [(task.id, 1)])
        Task.objects.filter(pk=task.id).complete()
    often = fetch(
        "SELECT statement, generic_plans FROM pg_prepared_statements"
        " WHERE statement LIKE '%zndraw_joblib_task%' AND generic_plans + custom_plans >= 12"
    )
    assert len(often) >= 6
    assert not [statement for statement, generic_plans in often if not generic_plans]


def test_a_submit_uses_a_generic_plan_for_jobs_with_a_short_queue_too(job):
    worker = Worker.objects.get()
    other, _ = offer(worker, JobName("room", "modifiers", "Other"), {}, LEASE)
    Task.objects.create(job=other, room_id="room", created_by="x", payload={})
    copy_task(20_000)
    fetch("ANALYZE zndraw_joblib_task")
    for _ in range(12):
        job.enqueue("room", {}, "alice")
    ((_, generic_plans),) = prepared("INSERT INTO zndraw_joblib_task")
    assert generic_plans == 7


def test_a_statement_is_prepared_again_after_its_lifetime(job, monkeypatch):
    """A plan that was made while the table was short must not last."""
    job.enqueue("room", {}, "alice")
    ((before, _),) = prepared("INSERT INTO zndraw_joblib_task")
    job.enqueue("room", {}, "alice")
    assert [before] == [name for name, _ in prepared("INSERT INTO zndraw_joblib_task")]
    age_statements(monkeypatch)
    job.enqueue("room", {}, "alice")
    ((after, _),) = prepared("INSERT INTO zndraw_joblib_task")
    assert after != before


def test_statements_are_prepared_anew_after_errors_too(job, monkeypatch):
    """A statement that failed is not kept, so the next DEALLOCATE ALL finds none to forget."""
    task = job.enqueue("room", {}, "alice")
    for later in range(1, 5):
        now = monotonic() + later * (cursors.PREPARED_SECONDS + 1)
        monkeypatch.setattr(cursors, "monotonic", lambda now=now: now)
        if later < 3:
            with pytest.raises(IntegrityError):
                job.enqueue("room", {}, "alice", 0, task.id)
        else:
            job.enqueue("room", {}, "alice")
    assert len(prepared("INSERT INTO zndraw_joblib_task")) == 1


def test_statement_that_somebody_else_deallocated_costs_no_request(job):
    job.enqueue("room", {}, "alice")
    ((name, _),) = prepared("INSERT INTO zndraw_joblib_task")
    fetch(f"DEALLOCATE {name}")
    assert job.enqueue("room", {}, "alice").status == "pending"
    assert job.enqueue("room", {}, "alice").status == "pending"


@pytest.fixture
def altered(job):
    """A function that changes a column's type while statements are prepared on this connection."""
    from django.db import connections

    def alter(kind):
        def run():
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE zndraw_joblib_task ALTER COLUMN error TYPE {kind}")
            connections.close_all()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    yield lambda: alter("varchar(9000)")
    connection.close()
    alter("text")
    # Other sessions may have prepared statements for the other type.
    cast("Any", connection).close_pool()


def test_an_altered_table_fails_no_request_outside_a_transaction(job, altered):
    task = job.enqueue("room", {}, "alice")
    assert Task.objects.read([task.id])[task.id].status == "pending"
    altered()
    assert Task.objects.read([task.id])[task.id].status == "pending"
    assert job.enqueue("room", {}, "alice").status == "pending"


def test_an_altered_table_fails_one_transaction_with_an_operational_error(job, altered):
    """The API answers an `OperationalError` with 503, and the next request succeeds."""
    task = job.enqueue("room", {}, "alice")
    Task.objects.read([task.id])
    altered()
    with pytest.raises(OperationalError), transaction.atomic():
        Task.objects.read([task.id])
    with transaction.atomic():
        assert Task.objects.read([task.id])[task.id].status == "pending"


def test_prepared_statements_return_their_parameters_unchanged(job):
    payload = {"text": 'a "quoted" \\ {brace}, NULL \u00e4\u4e2d', "n": 10**30, "f": 0.1}
    tasks = Task.objects.enqueue(
        job,
        "room",
        "al'ice",
        3,
        dict(zip(new_ids(2), [NewTask(payload), NewTask({})], strict=True)),
    )
    assert tasks[0].payload == payload
    assert (tasks[0].created_by, tasks[0].retries_left, tasks[0].attempt) == ("al'ice", 3, 0)
    assert isinstance(tasks[0].id, UUID)
    assert tasks[0].created_at.tzinfo == UTC or tasks[0].created_at.utcoffset() == timedelta(0)
    stored = Task.objects.get(pk=tasks[0].id)
    assert (stored.payload, stored.created_at) == (payload, tasks[0].created_at)


def test_execute_wrappers_see_the_statement(job):
    seen = []

    def record(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        job.enqueue("room", {}, "alice")
    assert len(seen) == 1


def test_errors_are_raised_as_djangos_own_exceptions(job):
    task = job.enqueue("room", {}, "alice")
    with pytest.raises(IntegrityError):
        job.enqueue("room", {}, "alice", 0, task.id)
    assert job.enqueue("room", {}, "alice").id != task.id


def test_a_lost_connection_raises_one_operational_error(job):
    from django.db import connections

    job.enqueue("room", {}, "alice")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]

    def kill():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        connections.close_all()

    thread = threading.Thread(target=kill)
    thread.start()
    thread.join()
    with pytest.raises(OperationalError):
        job.enqueue("room", {}, "alice")
    connection.close_if_unusable_or_obsolete()
    assert job.enqueue("room", {}, "alice").status == "pending"


def test_other_threads_run_while_one_waits_for_a_lock(job):
    """A blocking call of libpq would stop all threads."""
    from django.db import connections

    Job.objects.get()
    done = threading.Event()

    def enqueue_when_unlocked():
        try:
            job.enqueue("room", {}, "alice")
            done.set()
        finally:
            connections.close_all()

    with transaction.atomic():
        Job.objects.select_for_update().get()
        thread = threading.Thread(target=enqueue_when_unlocked)
        thread.start()
        # A blocking call in the other thread would stop this one here.
        assert not done.wait(0.5)
    thread.join(10)
    assert done.is_set()


def test_nothing_is_prepared_without_a_prepare_threshold(job, monkeypatch):
    monkeypatch.setattr(connection.connection, "prepare_threshold", None)
    job.enqueue("room", {}, "alice")
    assert not prepared("INSERT INTO zndraw_joblib_task")
