"""Databases that no statement is written for: the same verbs by the ORM alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.factories import SCHEMA, problem
from zndraw_joblib import statements
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.statements import Report
from zndraw_joblib.sweeper import sweep

pytestmark = pytest.mark.django_db
PAST = "2020-01-01T00:00:00Z"
LEASE = timedelta(seconds=60)


@pytest.fixture(autouse=True)
def no_statements(monkeypatch):
    monkeypatch.setattr(statements, "DIALECTS", {})


@pytest.fixture
def worker(bob):
    worker = bob.worker()
    bob.register(worker_id=worker, schema=SCHEMA)
    return worker


def test_the_whole_life(alice, bob, worker):
    first, second = (alice.submit(angle=angle).json() for angle in (1, 2))
    assert [task["queue_position"] for task in (first, second)] == [1, 2]
    listed = alice.get("/rooms/open/tasks").json()
    assert [task["queue_position"] for task in listed] == [2, 1]
    task = bob.claim(worker)
    assert (task["id"], task["status"], task["attempt"]) == (first["id"], "claimed", 1)
    assert task["job_name"] == "open:modifiers:Rotate"
    beat = bob.send("patch", f"/workers/{worker}", {"tasks": [{"id": task["id"], "attempt": 1}]})
    assert beat.json()["lost"] == []
    assert bob.report(task["id"], "running", attempt=1).status_code == 200
    problem(bob.report(task["id"], "running", attempt=0), "lease-lost", 409)
    assert bob.report(task["id"], "completed", attempt=1).status_code == 200
    assert bob.claim(worker)["id"] == second["id"]
    assert alice.report(second["id"], "cancelled").status_code == 200
    assert bob.claim(worker) is None


def test_batches(alice, bob, worker):
    body = [{"payload": {"angle": number}} for number in range(5)]
    made = alice.send("post", "/rooms/open/tasks/open:modifiers:Rotate", body).json()
    assert [task["payload"]["angle"] for task in made] == [0, 1, 2, 3, 4]
    claimed = bob.send(
        "post", "/tasks/claim", {"worker_id": worker, "limit": 3, "start": True}
    ).json()["tasks"]
    assert [task["id"] for task in claimed] == [task["id"] for task in made[:3]]
    assert {task["status"] for task in claimed} == {"running"}
    results = bob.report_many([{"id": task["id"], "status": "completed"} for task in claimed])
    assert [result["status"] for result in results] == [200] * 3


def test_sweeps_and_leaves(alice, bob, worker):
    for _ in range(4):
        alice.submit()
    tasks = [bob.claim(worker) for _ in range(3)]
    for task in tasks[:2]:
        bob.report(task["id"], "running", attempt=1)
    Task.objects.filter(pk=tasks[0]["id"]).update(retries_left=1)
    Task.objects.filter(worker=worker).update(lease_expires_at=PAST)
    report = sweep()
    assert (report.requeued, report.retried, report.failed) == (1, 1, 1)
    assert Task.objects.get(status="failed").error == f"Worker '{worker}' timed out"
    bob.claim(worker)
    assert bob.send("delete", f"/workers/{worker}").status_code == 204
    assert Task.objects.filter(status="pending").count() == 3
    assert not Worker.objects.exists()


def test_a_retired_job_takes_no_task(alice, bob, worker):
    from zndraw_joblib.models import Job

    assert alice.submit().status_code == 202
    Job.objects.update(retired_at=PAST)
    problem(alice.submit(), "job-not-found", 404)
    assert Task.objects.count() == 1


def test_strangers_report_nothing(alice, bob, carol, worker):
    alice.submit()
    task = bob.claim(worker)
    said = [Report(Task.objects.get().pk, 1)]
    assert not Task.objects.report(TaskStatus.RUNNING, said, carol.identity)
    assert Task.objects.report(TaskStatus.RUNNING, said, bob.identity)[0].pk == said[0].task_id
    assert task["attempt"] == 1
