"""`timeout_seconds`: an attempt that runs too long is lost, though its worker beats."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.factories import problem
from tests.runs import PAST, PATH, fail, start, submit
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.sweep import sweep


@pytest.fixture(autouse=True)
def offered(bob):
    bob.register()


@pytest.mark.parametrize("seconds", [0, -1, 31_536_001, 1e300, "1", True])
def test_a_timeout_beyond_its_limits_is_refused(alice, seconds):
    document = problem(
        alice.send("post", PATH, {"timeout_seconds": seconds}), "validation-error", 400
    )
    assert [error["pointer"] for error in document["errors"]] == ["/timeout_seconds"]


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (5, "Timed out after 5 s"),
        (2.5, "Timed out after 2.5 s"),
        (1e6, "Timed out after 1000000 s"),
    ],
)
def test_a_task_that_runs_too_long_is_lost_though_its_worker_beats(alice, bob, seconds, error):
    task = submit(alice, timeout_seconds=seconds)
    start(bob, task)
    grant = {"id": task, "attempt": 1}
    Task.objects.update(started_at=timezone.now() - timedelta(seconds=seconds + 0.1))
    # None of these makes the time longer.
    bob.report(task, "running", attempt=1)
    bob.report(task, "running", attempt=1, progress=0.5)
    bob.send("patch", f"/workers/{bob.identity}", {"tasks": [grant]})
    bob.send("patch", f"/workers/{bob.identity}")
    assert sweep().failed == 1
    document = alice.get(f"/tasks/{task}").json()
    assert (document["status"], document["error"]) == ("failed", error)
    assert Worker.objects.filter(pk=bob.identity).exists()


def test_a_task_within_its_time_is_not_ended(alice, bob):
    task = submit(alice, timeout_seconds=60)
    start(bob, task)
    row = Task.objects.get()
    assert row.lease_expires_at <= row.started_at + timedelta(seconds=60)
    for body in (None, {"tasks": [{"id": task, "attempt": 1}]}):
        bob.send("patch", f"/workers/{bob.identity}", body)
        row.refresh_from_db()
        assert row.lease_expires_at <= row.started_at + timedelta(seconds=60)
    assert sweep().failed == 0


def test_the_timeout_counts_from_the_start_and_not_from_the_claim(alice, bob):
    task = submit(alice, timeout_seconds=0.001)
    bob.claim()
    Task.objects.update(claimed_at=PAST)
    assert str(sweep()).startswith("requeued=0 retried=0 failed=0")
    bob.send("patch", f"/workers/{bob.identity}")
    row = Task.objects.get()
    assert row.lease_expires_at > timezone.now() + timedelta(seconds=30)
    assert alice.get(f"/tasks/{task}").json()["status"] == "claimed"


def test_each_attempt_has_the_whole_timeout_and_a_timeout_uses_up_a_retry(alice, bob):
    task = submit(alice, timeout_seconds=60, retries=1)
    start(bob, task)
    Task.objects.update(started_at=PAST)
    bob.send("patch", f"/workers/{bob.identity}")
    assert sweep().retried == 1
    document = alice.get(f"/tasks/{task}").json()
    assert (document["status"], document["error"]) == ("pending", "Timed out after 60 s")
    start(bob, task)
    assert sweep().failed == 0
    assert [each["outcome"] for each in alice.get(f"/tasks/{task}/attempts").json()] == [
        "lost",
        None,
    ]


def test_a_late_error_is_added_to_that_of_a_timeout(alice, bob):
    task = submit(alice, timeout_seconds=60)
    start(bob, task)
    Task.objects.update(started_at=PAST)
    bob.send("patch", f"/workers/{bob.identity}")
    sweep()
    document = fail(bob, task, attempt=1, error="It was in the second step.")
    assert document["error"] == "Timed out after 60 s\n\nIt was in the second step."
    assert fail(bob, task, attempt=1, error="again")["error"] == document["error"]


def test_a_worker_that_is_in_time_for_the_sweep_completes_the_task(alice, bob):
    task = submit(alice, timeout_seconds=60)
    start(bob, task)
    Task.objects.update(started_at=PAST, lease_expires_at=PAST)
    assert bob.report(task, "completed", attempt=1).json()["status"] == "completed"
