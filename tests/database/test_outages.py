"""A live connection is not a usable database: read-only, full, busy or not migrated."""

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import InternalError, OperationalError, ProgrammingError, connections
from psycopg import errors

from tests.factories import V1, problem
from tests.servers import until
from zndraw_joblib.management.commands import run_sweeper
from zndraw_joblib.storage import connections as sessions
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.storage.outages import Outage, outage_of

connection: Any = connections["default"]

SUBMIT = "/rooms/open/tasks/open:modifiers:Rotate"


def raised(error: type[Exception], cause: BaseException) -> Exception:
    """An error as Django raises it from one of the driver's."""
    try:
        raise error(str(cause)) from cause
    except error as caught:
        return caught


def of_postgresql(sqlstate: str) -> Exception:
    cause = errors.lookup(sqlstate)("refused")
    names = {psycopg.InternalError: InternalError, psycopg.ProgrammingError: ProgrammingError}
    django = next((to for of, to in names.items() if isinstance(cause, of)), OperationalError)
    return raised(django, cause)


def of_sqlite(code: int, message: str = "refused") -> Exception:
    cause = sqlite3.OperationalError(message)
    cause.sqlite_errorcode = code
    return raised(OperationalError, cause)


@pytest.mark.parametrize(
    ("outage", "codes"),
    [
        (Outage.AWAY, ["08006", "08P01", "25006", "25P03", "25P04", "57P01", "57P02", "57P03"]),
        (Outage.AWAY, ["57P05", "58030"]),
        (Outage.BUSY, ["40001", "40P01", "53100", "53200", "53300", "55006", "55P03", "57014"]),
        (Outage.UNMIGRATED, ["42P01", "42703"]),
        (None, ["XX000", "XX001", "25P02", "42601", "42501", "22021", "55000"]),
    ],
)
def test_the_sqlstate_decides_whether_postgresql_is_away(outage, codes):
    assert {code: outage_of(of_postgresql(code)) for code in codes} == dict.fromkeys(codes, outage)


@pytest.mark.parametrize(
    ("outage", "error"),
    [
        (Outage.BUSY, of_sqlite(sqlite3.SQLITE_BUSY)),
        (Outage.BUSY, of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT)),
        (Outage.BUSY, of_sqlite(sqlite3.SQLITE_FULL)),
        (Outage.AWAY, of_sqlite(sqlite3.SQLITE_READONLY)),
        (Outage.AWAY, of_sqlite(sqlite3.SQLITE_READONLY_DBMOVED)),
        (Outage.AWAY, of_sqlite(sqlite3.SQLITE_CANTOPEN)),
        (Outage.AWAY, of_sqlite(sqlite3.SQLITE_IOERR_WRITE)),
        (Outage.UNMIGRATED, of_sqlite(sqlite3.SQLITE_ERROR, "no such table: t")),
        (Outage.UNMIGRATED, of_sqlite(sqlite3.SQLITE_ERROR, "no such column: c")),
        (Outage.UNMIGRATED, of_sqlite(sqlite3.SQLITE_ERROR, "table t has no column named c")),
        (None, of_sqlite(sqlite3.SQLITE_ERROR, 'near "SELEC": syntax error')),
        (Outage.AWAY, OperationalError("without a code")),
        (None, ValueError("not of a database")),
    ],
)
def test_the_result_code_decides_whether_sqlite_is_away(outage, error):
    assert outage_of(error) is outage


def writes(person: Any, task_id: str, worker_id: str) -> dict[str, Any]:
    """The answers to a write on each route."""
    return {
        "register": person.register(name="Other"),
        "submit": person.submit(),
        "submit an array": person.send("post", SUBMIT, [{"payload": {}}]),
        "submit with a key": person.client.post(
            V1 + SUBMIT, {"payload": {}}, format="json", HTTP_IDEMPOTENCY_KEY="k"
        ),
        "claim": person.send("post", "/tasks/claim", {}),
        "report": person.report(task_id, "cancelled"),
        "make a worker": person.send("post", "/workers"),
        "heartbeat": person.send("patch", f"/workers/{worker_id}"),
        "leave": person.send("delete", f"/workers/{worker_id}"),
    }


@pytest.fixture(params=["pool", "persistent connections"])
def switch(transactional_db, bob, request, monkeypatch):
    """A function that makes new sessions read-only, as after a failover, or writable again."""
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL only")
    release_connections()
    # A new pool, because a thread of an earlier test may keep a connection of the present one.
    connection.close_pool()
    if request.param != "pool":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "pool", None)
    bob.client.raise_request_exception = False
    name = connection.settings_dict["NAME"]
    options = "-c default_transaction_read_only=off"
    parameters = {**connection.get_connection_params(), "options": options, "autocommit": True}

    def change(read_only: bool) -> None:
        until(is_pool_complete)
        action = "SET default_transaction_read_only = on" if read_only else "RESET ALL"
        with psycopg.connect(**parameters) as operator:
            operator.execute(f'ALTER DATABASE "{name}" {action}')

    yield change
    change(False)
    replace_sessions()
    sessions._failed_over.clear()


def is_pool_complete() -> bool:
    """Whether the pool makes no connections now, some of which may be older than the change.

    After a test that changed TIME_ZONE the pool is a new one, and closed until it is used.
    """
    if connection.pool is None or connection.pool.closed:
        return True
    stats = connection.pool.get_stats()
    in_use = connection.connection is not None
    return stats.get("pool_size", 0) == stats.get("pool_available", 0) + in_use


def replace_sessions() -> None:
    """Make all sessions of this process anew."""
    release_connections()
    if connection.pool is not None:
        connection.pool.drain()


def test_every_write_to_a_read_only_postgresql_is_503(bob, switch):
    worker_id = bob.register().json()["worker_id"]
    task_id = bob.submit().json()["id"]
    switch(True)
    replace_sessions()
    for answer in writes(bob, task_id, worker_id).values():
        problem(answer, "service-unavailable", 503)
        assert answer["Retry-After"] == "1"
    assert bob.get(f"/tasks/{task_id}").json()["status"] == "pending"


def test_writes_succeed_at_once_when_new_sessions_can_write(bob, switch, monkeypatch):
    """Without `drop_failed_sessions` and the two receivers each submit of this test is a 503."""
    monkeypatch.setattr(sessions, "REPLACE_SECONDS", 0.0)
    bob.register()
    switch(True)
    replace_sessions()
    problem(bob.submit(), "service-unavailable", 503)
    switch(False)
    # The failed statement's session was dropped.
    assert bob.submit().status_code == 202
    switch(True)
    replace_sessions()
    assert bob.get("/workers").status_code == 200
    switch(False)
    # The thread has a session that began during the outage, and that only read.
    assert bob.submit().status_code == 202
    switch(True)
    replace_sessions()
    assert bob.get("/workers").status_code == 200
    release_connections()
    switch(False)
    # So has the pool.
    assert bob.submit().status_code == 202


@pytest.mark.parametrize("switch", ["pool"], indirect=True)
def test_a_failover_costs_at_most_one_failed_write_for_a_pool(bob, switch, monkeypatch):
    monkeypatch.setattr(sessions, "REPLACE_SECONDS", float("inf"))
    bob.register()
    switch(True)
    replace_sessions()
    switch(False)
    statuses = []
    for _ in range(4):
        statuses.append(bob.submit().status_code)
        release_connections()
    assert statuses == [503, 202, 202, 202]


@pytest.mark.parametrize("switch", ["pool"], indirect=True)
def test_requests_after_a_restart_do_not_wait_for_the_broken_sessions_of_a_pool(bob, switch):
    """Without `drain` the second request takes seconds, and with 8 broken sessions it is a 503."""
    bob.register()
    pool = connection.pool
    taken = [pool.getconn() for _ in range(5)]
    for session in taken:
        pool.putconn(session)
    until(is_pool_complete)
    bob.get("/workers")
    with psycopg.connect(**connection.get_connection_params()) as operator:
        operator.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    problem(bob.submit(), "service-unavailable", 503)
    began = time.monotonic()
    assert bob.submit().status_code == 202
    assert time.monotonic() - began < 0.8


def test_read_only_sessions_are_kept_where_no_write_has_failed(bob, switch):
    """A site may read from a standby, and would lose its connection with each request."""
    switch(True)
    replace_sessions()
    bob.get("/workers")
    session = connection.connection
    bob.get("/workers")
    assert connection.connection is session


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite only")
@pytest.mark.django_db(transaction=True)
def test_a_read_only_connection_of_sqlite_is_503_and_replaced(bob):
    bob.client.raise_request_exception = False
    bob.register()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = 1")
    answer = bob.submit()
    problem(answer, "service-unavailable", 503)
    assert answer["Retry-After"] == "1"
    assert bob.submit().status_code == 202


@pytest.fixture
def table_missing(transactional_db):
    """The table of workers has another name."""
    change = "ALTER TABLE zndraw_joblib_{} RENAME TO zndraw_joblib_{}"
    with connection.cursor() as cursor:
        cursor.execute(change.format("worker", "other"))
    yield
    with connection.cursor() as cursor:
        cursor.execute(change.format("other", "worker"))


def test_an_unmigrated_database_is_answered_with_the_remedy(bob, table_missing, caplog):
    bob.client.raise_request_exception = False
    for answer in (bob.get("/workers"), bob.send("post", "/tasks/claim", {})):
        document = problem(answer, "database-not-migrated", 503)
        assert "manage.py migrate" in document["detail"]
        assert "Retry-After" not in answer
    assert caplog.text.count("must run `manage.py migrate`") == 2


@pytest.mark.parametrize("options", [{"once": True}, {"interval": 0.01}], ids=["once", "forever"])
def test_the_sweeper_ends_with_the_remedy_on_an_unmigrated_database(table_missing, options):
    with pytest.raises(CommandError, match=r"manage\.py migrate"):
        call_command("run_sweeper", **options)


def test_the_sweeper_logs_one_line_for_a_pass_while_the_database_is_away(monkeypatch, caplog):
    outcomes = [of_postgresql("25006"), "swept", ValueError("the test ends the loop")]

    def sweep() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(run_sweeper, "sweep_tenants", sweep)
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    with pytest.raises(ValueError, match="ends the loop"), caplog.at_level(logging.INFO):
        call_command("run_sweeper", interval=0.01)
    failed, swept = caplog.records
    assert failed.getMessage() == "sweep failed; trying again at the next sweep: refused"
    assert failed.exc_info is None
    assert swept.getMessage() == "sweep swept"
