"""Statements prepared by libpq itself, past Django's cursors."""

from __future__ import annotations

import re
import threading
from datetime import UTC, timedelta
from time import monotonic
from typing import Any, cast
from uuid import UUID

import pytest
from django.db import OperationalError, connection, transaction

from zndraw_joblib.models import Job, Task, Worker, new_ids
from zndraw_joblib.names import JobName
from zndraw_joblib.storage import prepared

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's"),
]

LEASE = timedelta(seconds=60)


@pytest.fixture
def job():
    # A new one, on which nothing is prepared.
    cast("Any", connection).close_pool()
    connection.close()
    worker = Worker.objects.create(identity="bob")
    return worker.register(JobName("room", "modifiers", "Rotate"), {}, LEASE)[0]


@pytest.fixture
def ran(monkeypatch):
    """The statements that were prepared."""
    texts = []
    run = prepared.Session.run

    def note(self, text, params):
        texts.append(text)
        return run(self, text, params)

    monkeypatch.setattr(prepared.Session, "run", note)
    return texts


def names():
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE 'joblib%'")
        return [name for (name,) in cursor.fetchall()]


def test_a_statement_is_prepared_once(job, ran):
    for _ in range(3):
        job.submit("room", {"a": 1}, "alice")
    assert len(ran) == 3
    assert len(set(ran)) == 1
    assert len(names()) == 1


def test_plans_of_single_rows_are_kept(job):
    """With arrays PostgreSQL would plan anew each time."""
    for _ in range(12):
        job.submit("room", {}, "alice")
        Task.objects.read([Task.objects.first().pk])
    with connection.cursor() as cursor:
        cursor.execute("SELECT generic_plans FROM pg_prepared_statements WHERE name LIKE 'joblib%'")
        assert min(kept for (kept,) in cursor.fetchall()) > 0


def test_the_plan_of_a_submit_is_kept_for_jobs_with_a_shorter_queue_than_most(job):
    worker = Worker.objects.get()
    long, _ = worker.register(JobName("room", "modifiers", "Other"), {}, LEASE)
    Task.objects.bulk_create(
        [Task(job=long, room_id="room", created_by="x", payload={}) for _ in range(20_000)]
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE zndraw_joblib_task")
    for _ in range(12):
        job.submit("room", {}, "alice")
    with connection.cursor() as cursor:
        cursor.execute("SELECT generic_plans FROM pg_prepared_statements WHERE name LIKE 'joblib%'")
        assert cursor.fetchall() == [(7,)]


def test_plans_made_while_a_table_was_short_do_not_last(job, monkeypatch):
    def execute(sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return [row for (row,) in cursor.fetchall()] if cursor.description else []

    def read():
        text = "SELECT filler FROM growing WHERE id = %(id)s::integer"
        prepared.run(connection, text, {"id": 1})

    def plan():
        (name,) = names()
        return execute(f"EXPLAIN EXECUTE {name}(1)")[0]

    # Else PostgreSQL may take a plan that it keeps for worse than a new one each time.
    execute("SET plan_cache_mode = force_generic_plan")
    execute("CREATE TEMPORARY TABLE growing (id integer, filler text)")
    read()
    execute("INSERT INTO growing SELECT number, 'x' FROM generate_series(1, 100000) number")
    (before,) = re.findall(r"rows=(\d+)", plan())
    monkeypatch.setattr(prepared, "monotonic", lambda: monotonic() + prepared.PLANS_SECONDS)
    read()
    (after,) = re.findall(r"rows=(\d+)", plan())
    # The planner looks at how long a table is, analyzed or not.
    assert int(after) > 10 * int(before)
    # Not every 2 s: a connection that is used now and then would plan each time.
    execute("INSERT INTO growing SELECT number, 'x' FROM generate_series(1, 100000) number")
    read()
    assert re.findall(r"rows=(\d+)", plan()) == [after]
    execute("DROP TABLE growing")
    execute("RESET plan_cache_mode")


def test_values_come_back_as_they_went(job, ran):
    payload = {"text": 'a "quoted" \\ {brace}, NULL \u00e4\u4e2d', "n": 10**30, "f": 0.1}
    made = Task.objects.submit(
        job, "room", "al'ice", 3, dict(zip(new_ids(2), [payload, {}], strict=True))
    )
    assert ran
    assert made[0].payload == payload
    assert (made[0].created_by, made[0].retries_left, made[0].attempt) == ("al'ice", 3, 0)
    assert isinstance(made[0].pk, UUID)
    assert made[0].created_at.tzinfo == UTC or made[0].created_at.utcoffset() == timedelta(0)
    stored = Task.objects.get(pk=made[0].pk)
    assert (stored.payload, stored.created_at) == (payload, made[0].created_at)


def test_a_transaction_is_the_cursors(job, ran):
    """psycopg begins it at a cursor's first statement; past the cursors nothing would be undone."""
    with transaction.atomic():
        job.submit("room", {}, "alice")
        transaction.set_rollback(True)
    assert not ran
    assert not Task.objects.exists()


def test_who_looks_sees_the_statement(job, ran):
    seen = []

    def look(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        job.submit("room", {}, "alice")
    assert len(seen) == 1
    assert not ran


def test_errors_are_djangos(job, ran):
    from django.db import IntegrityError

    task = job.submit("room", {}, "alice")
    with pytest.raises(IntegrityError):
        job.submit("room", {}, "alice", 0, task.pk)
    assert job.submit("room", {}, "alice").pk != task.pk


def test_a_connection_that_ended_is_an_operational_error_once(job, ran):
    from django.db import connections

    job.submit("room", {}, "alice")
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
        job.submit("room", {}, "alice")
    connection.close_if_unusable_or_obsolete()
    assert job.submit("room", {}, "alice").status == "pending"


def test_other_threads_run_while_one_waits_for_a_lock(job):
    """libpq's own blocking calls would stop them all."""
    from django.db import connections

    Job.objects.get()
    done = threading.Event()

    def wait_for_it():
        try:
            job.submit("room", {}, "alice")
            done.set()
        finally:
            connections.close_all()

    with transaction.atomic():
        Job.objects.select_for_update().get()
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        # This thread would not get so far.
        assert not done.wait(0.5)
    thread.join(10)
    assert done.is_set()


def test_nothing_is_prepared_unless_the_host_says_so(job, ran, monkeypatch):
    monkeypatch.setattr(connection.connection, "prepare_threshold", None)
    job.submit("room", {}, "alice")
    assert not ran


@pytest.mark.parametrize(
    ("text", "sql", "order"),
    [
        ("a = %(a)s AND b = %(b)s OR a = %(a)s", b"a = $1 AND b = $2 OR a = $1", ("a", "b")),
        ("x %% 2 = %(n)s::int", b"x % 2 = $1::int", ("n",)),
        ("SELECT 1", b"SELECT 1", ()),
    ],
)
def test_placeholders(text, sql, order):
    assert prepared.numbered(text) == (sql, order)
