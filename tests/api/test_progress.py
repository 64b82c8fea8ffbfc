"""Progress and messages of running tasks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import problem
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.signals import task_finished, task_progressed, task_started

PAST = "2020-01-01T00:00:00Z"


@pytest.fixture
def worker(bob):
    worker = bob.worker()
    bob.register(worker_id=worker)
    return worker


@pytest.fixture
def task(alice, bob, worker):
    """The id of a running task."""
    task = alice.submit().json()["id"]
    bob.claim(worker)
    bob.report(task, "running", attempt=1)
    return task


def shown(person, task):
    document = person.get(f"/tasks/{task}").json()
    return document["progress"], document["message"]


@pytest.mark.parametrize("batch", [False, True])
def test_a_worker_says_how_far_a_task_is(alice, bob, task, batch):
    def report(**body):
        if batch:
            (result,) = bob.report_many([{"id": task, "status": "running", "attempt": 1, **body}])
            assert result["status"] == 200
            document = result["task"]
        else:
            document = bob.report(task, "running", attempt=1, **body).json()
        assert document["status"] == "running"
        assert (document["progress"], document["message"]) == shown(alice, task)
        return shown(alice, task)

    assert shown(alice, task) == (None, None)
    assert report(progress=0.25) == (0.25, None)
    assert report(message="step 2") == (0.25, "step 2")
    assert report(progress=1) == (1, "step 2")
    assert report(progress=0, message="from the start") == (0, "from the start")
    # A field that is left out, or null, keeps its value.
    assert report() == (0, "from the start")
    assert report(progress=None, message=None) == (0, "from the start")
    assert report(message="") == (0, "")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_the_progress_stays_when_the_task_ends(alice, bob, task, status):
    bob.report(task, "running", progress=0.5, message="half")
    bob.report(task, status)
    assert shown(alice, task) == (0.5, "half")
    problem(bob.report(task, "running", progress=0.6), "invalid-task-transition", 409)
    assert shown(alice, task) == (0.5, "half")


@pytest.mark.parametrize("many", [False, True])
def test_a_new_claim_makes_both_null(alice, bob, worker, task, many):
    bob.report(task, "running", progress=0.5, message="half")
    Task.objects.get().requeue()
    assert shown(alice, task) == (0.5, "half")
    if many:
        bob.send("post", "/tasks/claim", {"worker_id": worker, "limit": 2, "start": True})
    else:
        bob.claim(worker)
    assert shown(alice, task) == (None, None)


def test_progress_starts_a_claimed_task(alice, bob, worker):
    task = alice.submit().json()["id"]
    bob.claim(worker)
    document = bob.report(task, "running", attempt=1, progress=0.1, message="on").json()
    assert (document["status"], document["progress"]) == ("running", 0.1)
    assert document["started_at"]


@pytest.mark.any_database
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("field", ["progress", "message"])
def test_progress_beside_another_status_is_refused(alice, bob, task, status, field):
    value = {"progress": 0, "message": ""}[field]
    document = problem(bob.report(task, status, **{field: value}), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == [f"/{field}"]
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"


@pytest.mark.any_database
@pytest.mark.parametrize("value", [-0.1, 1.1, 1e300, 2, "0.5", True, [], {}])
def test_progress_beyond_its_limits_is_refused(bob, task, value):
    document = problem(bob.report(task, "running", progress=value), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/progress"]


def test_a_message_has_at_most_a_thousand_characters(alice, bob, task):
    assert bob.report(task, "running", message="é" * 1000).status_code == 200
    document = problem(bob.report(task, "running", message="x" * 1001), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/message"]
    assert shown(alice, task) == (None, "é" * 1000)


@pytest.mark.parametrize("batch", [False, True])
def test_a_message_is_cleaned_like_other_free_text(alice, bob, task, batch):
    report = f'{{"id": "{task}", "status": "running", "message": "a\\u0000b\\ud800c"}}'
    path, body = ("/tasks", f"[{report}]")
    if not batch:
        path, body = f"/tasks/{task}", report.replace(f'"id": "{task}", ', "")
    answer = bob.client.patch(f"/v1/joblib{path}", body, content_type="application/json")
    assert answer.status_code == 200
    assert shown(alice, task)[1] == "a\ufffdb\ufffdc"


def test_progress_renews_the_lease_and_the_heartbeat_of_the_worker(bob, worker, task):
    """Control: the sweep loses the task and removes the worker without the report."""
    soon = timezone.now() + timedelta(seconds=1)
    Task.objects.update(lease_expires_at=soon)
    Worker.objects.update(last_heartbeat=PAST)
    bob.report(task, "running", attempt=1)
    # A report without progress is no renewal.
    assert Task.objects.get().lease_expires_at == soon
    bob.report(task, "running", attempt=1, progress=0.5)
    assert Task.objects.get().lease_expires_at > timezone.now() + timedelta(seconds=30)
    assert Worker.objects.get().is_alive(5)
    report = sweep()
    assert (report.failed, report.workers) == (0, 0)


def test_frequent_progress_writes_the_heartbeat_once_a_second(bob, worker, task):
    Worker.objects.update(last_heartbeat=PAST)
    bob.report(task, "running", progress=0.1)
    first = Worker.objects.get().last_heartbeat
    bob.report(task, "running", progress=0.2)
    assert Worker.objects.get().last_heartbeat == first


def test_progress_of_an_earlier_attempt_changes_nothing(alice, bob, worker, task):
    Task.objects.get().requeue()
    bob.claim(worker)
    bob.report(task, "running", attempt=2)
    lease = Task.objects.get().lease_expires_at
    problem(bob.report(task, "running", attempt=1, progress=0.5), "lease-lost", 409)
    assert shown(alice, task) == (None, None)
    assert Task.objects.get().lease_expires_at == lease


def test_progress_is_for_the_worker_and_administrators(alice, carol, root, task):
    for person in (alice, carol):
        problem(person.report(task, "running", progress=0.5), "forbidden", 403)
    assert shown(alice, task) == (None, None)
    assert root.report(task, "running", progress=0.5).status_code == 200
    assert shown(alice, task) == (0.5, None)


def test_each_change_raises_the_revision(alice, bob, task):
    def revision():
        return Task.objects.get().revision

    before = revision()
    for body in ({"progress": 0.1}, {"message": "x"}, {"progress": 0.1}):
        bob.report(task, "running", **body)
        assert revision() > before
        before = revision()
    # Neither a renewal nor a report that changes nothing.
    bob.report(task, "running")
    bob.send("patch", f"/workers/{Worker.objects.get().pk}")
    assert revision() == before
    bob.report(task, "completed", result=1)
    assert revision() == before + 1


@pytest.mark.django_db(transaction=True)
def test_progress_sends_a_signal_of_its_own(alice, bob, worker):
    sent: list[str] = []

    def receiver(signal, task, **_):
        sent.append(f"{names[signal]} {task.progress}")

    names = {task_started: "started", task_progressed: "progressed", task_finished: "finished"}
    for signal in names:
        signal.connect(receiver)
    try:
        task = alice.submit().json()["id"]
        bob.claim(worker)
        bob.report(task, "running", progress=0.5)
        bob.report(task, "running", progress=0.75)
        bob.report(task, "running")
        bob.report(task, "completed")
    finally:
        for signal in names:
            signal.disconnect(receiver)
    assert sent == ["started None", "progressed 0.5", "progressed 0.75", "finished 0.75"]


def test_a_list_reports_progress_and_ends_of_one_task_in_its_order(alice, bob, task):
    results = bob.report_many(
        [
            {"id": task, "status": "running", "progress": 0.9},
            {"id": task, "status": "completed", "result": 1},
            {"id": task, "status": "running", "progress": 0.1},
        ]
    )
    assert [result["status"] for result in results] == [200, 200, 409]
    assert shown(alice, task) == (0.9, None)
