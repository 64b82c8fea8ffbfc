"""Reports of a worker whose task a sweep has ended, because its heartbeats were late."""

from __future__ import annotations

import ctypes
import threading
from datetime import UTC, datetime

import httpx
import pytest
from django.core.handlers.wsgi import WSGIHandler

from tests.client.jobs import Double
from tests.factories import problem
from tests.servers import until
from zndraw_joblib.client import Api, JobManager
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.sweep import sweep

pytestmark = pytest.mark.django_db

PAST = datetime(2020, 1, 1, tzinfo=UTC)


def end_leases():
    """Sweep as if no heartbeat had come for a lease."""
    Task.objects.update(lease_expires_at=PAST)
    Worker.objects.update(last_heartbeat=PAST)
    return sweep()


@pytest.fixture
def timed_out(bob):
    """The document of a task that a sweep ended; its worker was removed."""
    worker = bob.worker()
    bob.register(worker_id=worker)
    bob.submit()
    task = bob.claim(worker)
    bob.report(task["id"], "running", attempt=1)
    report = end_leases()
    assert (report.failed, report.workers) == (1, 1)
    task = bob.get(f"/tasks/{task['id']}").json()
    assert task["error"] == f"Worker '{worker}' timed out"
    return task


def test_the_error_of_a_late_report_follows_the_sweeps(bob, timed_out):
    """Control: the report changes nothing when the service returns the task as it is."""
    answer = bob.report(timed_out["id"], "failed", attempt=1, error="the GIL was held")
    assert answer.status_code == 200
    explained = {**timed_out, "error": f"{timed_out['error']}\n\nthe GIL was held"}
    assert answer.json() == explained
    # Once, because the report may come again after its first answer was lost.
    bob.report_many([{"id": timed_out["id"], "status": "failed", "attempt": 1, "error": "again"}])
    assert bob.get(f"/tasks/{timed_out['id']}").json() == explained


def test_a_long_error_of_a_late_report_is_cut(bob, timed_out, settings_of):
    settings_of(max_error_bytes=100)
    bob.report(timed_out["id"], "failed", attempt=1, error="x" * 200)
    error = bob.get(f"/tasks/{timed_out['id']}").json()["error"]
    assert len(error) == 100
    assert error.startswith(f"{timed_out['error']}\n\nxx")


@pytest.mark.parametrize(
    ("reporter", "body", "slug", "status"),
    [
        ("bob", {"status": "completed", "attempt": 1}, "invalid-task-transition", 409),
        ("bob", {"status": "failed", "attempt": 2, "error": "e"}, "lease-lost", 409),
        ("carol", {"status": "failed", "attempt": 1, "error": "e"}, "forbidden", 403),
        ("bob", {"status": "failed", "attempt": 1}, None, 200),
        ("bob", {"status": "failed", "error": "e"}, None, 200),
    ],
)
def test_no_other_late_report_changes_the_task(
    people, bob, timed_out, reporter, body, slug, status
):
    answer = people(reporter).report(timed_out["id"], **body)
    if slug:
        problem(answer, slug, status)
    else:
        assert answer.status_code == status
    assert bob.get(f"/tasks/{timed_out['id']}").json() == timed_out


def test_an_error_that_the_worker_reported_itself_stays(bob):
    bob.register()
    bob.submit()
    task = bob.claim()
    bob.report(task["id"], "running", attempt=1)
    bob.report(task["id"], "failed", attempt=1, error="first")
    assert bob.report(task["id"], "failed", attempt=1, error="second").json()["error"] == "first"


@pytest.mark.django_db(transaction=True)
def test_a_task_that_was_lost_while_the_gil_was_held_says_so_in_its_error(bob, settings_of, caplog):
    settings_of(worker_timeout_seconds=1, heartbeat_interval_seconds=0.1)
    transport = httpx.WSGITransport(WSGIHandler())
    with Api("http://localhost", bob.token, transport=transport) as api:
        manager = JobManager(api)
        manager.register(room="open")(Double)
        task_id = manager.submit(Double(number=1), room="open", job_room="open")

        def execute(task):
            # Holds the GIL, as an extension module does that does not release it.
            ctypes.PyDLL(None).usleep(1_500_000)
            # The sweep of another process meanwhile; a heartbeat may come between.
            while not end_leases().failed:
                pass

        thread = threading.Thread(target=manager.serve, args=(execute,), daemon=True)
        thread.start()
        try:
            until(lambda: "was lost" in caplog.text)
            until(lambda: "GIL" in (Task.objects.get().error or ""))
        finally:
            manager.stop()
            thread.join(10)
        task = manager.task(task_id)
    assert task.status == "failed"
    assert task.error is not None
    assert task.error.startswith("Worker '")
    assert "' timed out\n\nNo heartbeat of the worker was answered for 1." in task.error
    assert task.error.endswith("or raise worker_timeout_seconds of the server.")
