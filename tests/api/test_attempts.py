"""GET tasks/{id}/attempts: what each attempt did, oldest first."""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import urlsplit

import pytest

from tests.factories import V1, problem
from zndraw_joblib.models import Task, TaskAttempt
from zndraw_joblib.services.claim import requeue_granted
from zndraw_joblib.services.sweep import sweep

PAST = "2020-01-01T00:00:00Z"
KEYS = {"attempt", "worker_id", "claimed_at", "started_at", "ended_at", "outcome", "error"}


@pytest.fixture
def worker(bob):
    worker = bob.worker()
    bob.register(worker_id=worker)
    return worker


def submit(alice, **body):
    path = "/rooms/open/tasks/open:modifiers:Rotate"
    return alice.send("post", path, {"payload": {}, **body}).json()["id"]


def start(bob, worker):
    """Claim the oldest task and start it; returns the attempt."""
    # A backoff would make the test wait.
    Task.objects.filter(status="pending").update(run_at=None)
    task = bob.claim(worker)
    assert bob.report(task["id"], "running", attempt=task["attempt"]).status_code == 200
    return task["attempt"]


def attempts(person, task_id):
    answer = person.get(f"/tasks/{task_id}/attempts")
    assert answer.status_code == 200
    return answer.json()


def outcomes(person, task_id):
    return [(each["attempt"], each["outcome"], each["error"]) for each in attempts(person, task_id)]


def test_a_task_that_was_never_claimed_has_no_attempts(alice, bob, worker):
    task = submit(alice)
    assert attempts(alice, task) == []
    alice.report(task, "cancelled")
    assert attempts(alice, task) == []


def test_an_attempt_that_is_under_way_has_no_outcome(alice, bob, worker):
    task = submit(alice)
    bob.claim(worker)
    (claimed,) = attempts(alice, task)
    assert claimed.keys() == KEYS
    assert (claimed["attempt"], claimed["worker_id"]) == (1, worker)
    assert [claimed[name] for name in ("started_at", "ended_at", "outcome", "error")] == [None] * 4
    bob.report(task, "running")
    (running,) = attempts(alice, task)
    assert running["claimed_at"] == claimed["claimed_at"]
    assert datetime.fromisoformat(running["started_at"]) >= datetime.fromisoformat(
        running["claimed_at"]
    )
    assert running["outcome"] is None


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("error", ["why", None])
def test_the_latest_attempt_ends_as_its_task_does(alice, bob, worker, status, error):
    task = submit(alice)
    start(bob, worker)
    ended = bob.report(task, status, error=error).json()
    (attempt,) = attempts(alice, task)
    assert (attempt["outcome"], attempt["error"]) == (status, error)
    assert attempt["ended_at"] == ended["completed_at"]
    assert attempt["worker_id"] == worker


def test_every_attempt_is_listed_oldest_first_with_its_own_error(alice, bob, worker):
    task = submit(alice, retries=3)
    start(bob, worker)
    bob.report(task, "failed", error="first", attempt=1)
    start(bob, worker)
    Task.objects.update(lease_expires_at=PAST)
    sweep()
    bob.register(worker_id=worker)
    Task.objects.update(run_at=None)
    bob.claim(worker)
    Task.objects.update(lease_expires_at=PAST)
    sweep()
    start(bob, worker)
    bob.report(task, "failed", attempt=4)
    assert outcomes(alice, task) == [
        (1, "failed", "first"),
        (2, "lost", f"Worker '{worker}' timed out"),
        (3, "requeued", None),
        (4, "failed", None),
    ]
    start(bob, worker)
    bob.report(task, "completed", error="a remark", attempt=5)
    assert outcomes(alice, task)[4:] == [(5, "completed", "a remark")]
    times = [each[name] for each in attempts(alice, task) for name in ("claimed_at", "ended_at")]
    assert times == sorted(times)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_attempt_that_ended_without_an_error_does_not_show_that_of_an_earlier_one(
    alice, bob, worker, status
):
    """Control: red while the statement finish_tasks kept the earlier error."""
    task = submit(alice, retries=1)
    start(bob, worker)
    assert bob.report(task, "failed", error="first").json()["error"] == "first"
    start(bob, worker)
    assert bob.report(task, status).json()["status"] == status
    assert outcomes(alice, task) == [(1, "failed", "first"), (2, status, None)]


def test_a_cancel_of_a_task_that_is_pending_again_is_no_attempt(alice, bob, worker):
    task = submit(alice, retries=1)
    start(bob, worker)
    bob.report(task, "failed", error="first")
    assert alice.report(task, "cancelled").json()["error"] == "first"
    assert outcomes(alice, task) == [(1, "failed", "first")]


def test_the_last_attempt_of_a_lost_task_is_listed_once(alice, bob, worker):
    task = submit(alice)
    start(bob, worker)
    Task.objects.update(lease_expires_at=PAST)
    sweep()
    assert outcomes(alice, task) == [(1, "lost", f"Worker '{worker}' timed out")]
    # The worker tells the cause of its late heartbeats.
    told = bob.report(task, "failed", attempt=1, error="The disk was full.").json()["error"]
    assert "The disk was full." in told
    assert outcomes(alice, task) == [(1, "lost", told)]


def test_a_claim_whose_client_left_and_a_requeue_by_the_site_are_requeued(alice, bob, worker):
    task = submit(alice)
    granted = bob.claim(worker)
    requeue_granted([(Task.objects.get().pk, granted["attempt"])])
    start(bob, worker)
    Task.objects.get().requeue()
    assert outcomes(alice, task) == [(1, "requeued", None), (2, "requeued", None)]


def test_a_worker_that_is_removed_loses_its_attempt(alice, bob, worker):
    task = submit(alice)
    start(bob, worker)
    bob.send("delete", f"/workers/{worker}")
    assert outcomes(alice, task) == [(1, "lost", f"Worker '{worker}' deregistered")]


def next_page(answer):
    link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
    if not link:
        return None
    parts = urlsplit(link[1])
    return f"{parts.path.removeprefix(V1)}?{parts.query}"


@pytest.mark.parametrize("kept", [2, 3])
@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_attempts_come_in_pages(alice, bob, worker, kept, limit):
    """With three attempts, of which the last has a row or not."""
    task = submit(alice)
    for _ in range(kept):
        bob.claim(worker)
        Task.objects.get().requeue()
    if kept == 2:
        bob.claim(worker)
    found, path = [], f"/tasks/{task}/attempts?limit={limit}"
    while path:
        answer = alice.get(path)
        assert 1 <= len(answer.json()) <= limit
        found += [each["attempt"] for each in answer.json()]
        path = next_page(answer)
    assert found == [1, 2, 3]


@pytest.mark.parametrize("query", ["?status=failed", "?limit=0", "?cursor=x", "?offset=1"])
def test_invalid_parameters_are_refused(alice, bob, worker, query):
    problem(alice.get(f"/tasks/{submit(alice)}/attempts{query}"), "validation-error", 400)


@pytest.mark.parametrize("text", ["nonsense", "0190b0a0-0000-7000-8000-000000000000"])
def test_attempts_of_an_unknown_task_are_not_found(alice, text):
    problem(alice.get(f"/tasks/{text}/attempts"), "task-not-found", 404)


def test_a_cursor_beyond_every_number_gives_no_attempts(alice, bob, worker):
    import base64
    import json

    task = submit(alice)
    bob.claim(worker)
    for number, count in ((10**30, 0), (-5, 1)):
        cursor = base64.urlsafe_b64encode(json.dumps([str(number)]).encode()).decode().rstrip("=")
        answer = alice.get(f"/tasks/{task}/attempts?cursor={cursor}")
        assert (answer.status_code, len(answer.json())) == (200, count)


def test_attempts_are_deleted_with_their_task(alice, bob, worker):
    submit(alice)
    bob.claim(worker)
    Task.objects.get().requeue()
    assert TaskAttempt.objects.count() == 1
    Task.objects.all().delete()
    assert TaskAttempt.objects.count() == 0
