"""Retries of failed and lost tasks: who has them, when they are due, and what they leave."""

from __future__ import annotations

import pytest

from tests.factories import ROTATE, problem
from tests.runs import PATH, delay_of, fail, lose, start, submit
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.models import Task
from zndraw_joblib.storage import attempts

JOB = f"open:{ROTATE}"


@pytest.fixture(autouse=True)
def offered(bob):
    bob.register()


@pytest.fixture
def jitter(monkeypatch):
    """The jitter of each backoff; returns the bounds that were asked for."""
    asked: list[tuple[float, float]] = []

    def uniform(low, high):
        asked.append((low, high))
        return 1.0

    monkeypatch.setattr(attempts, "uniform", uniform)
    return asked


def test_a_failed_task_is_tried_again_until_its_retries_are_used_up(alice, bob):
    task = submit(alice, retries=2)
    for left in (1, 0):
        start(bob, task)
        document = fail(bob, task, error=f"with {left} left")
        assert (document["status"], document["retries_left"]) == ("pending", left)
        assert document["error"] == f"with {left} left"
        for name in ("worker_id", "started_at", "completed_at"):
            assert document[name] is None, name
        assert document["run_at"] > document["created_at"]
        assert bob.claim() is None
    start(bob, task)
    document = fail(bob, task, error="for good")
    assert (document["status"], document["error"]) == ("failed", "for good")
    assert document["retries_left"] == 0
    assert document["attempt"] == 3
    assert document["completed_at"]


def test_a_task_without_a_policy_is_not_tried_again(alice, bob, settings_of):
    settings_of(task_max_retries=3)
    task = submit(alice)
    start(bob, task)
    assert fail(bob, task)["status"] == "failed"


def test_the_error_stays_while_the_task_is_tried_again_and_goes_when_it_is_completed(alice, bob):
    task = submit(alice, retries=1)
    start(bob, task)
    fail(bob, task, error="broken")
    Task.objects.update(run_at=None)
    bob.claim()
    assert alice.get(f"/tasks/{task}").json()["error"] == "broken"
    assert bob.report(task, "running").json()["error"] == "broken"
    assert bob.report(task, "completed", result=1).json()["error"] is None


@pytest.mark.parametrize("error", [None, ""])
def test_a_failure_without_an_error_keeps_that_of_an_earlier_attempt(alice, bob, error):
    """Control: an empty one replaced it while the task was tried again."""
    task = submit(alice, retries=2)
    start(bob, task)
    fail(bob, task, error="first")
    start(bob, task)
    assert fail(bob, task, error=error)["error"] == "first"
    attempts = alice.get(f"/tasks/{task}/attempts").json()
    assert [attempt["error"] for attempt in attempts] == ["first", None]


@pytest.mark.parametrize("retry_after", [None, 5])
def test_a_task_that_must_not_be_tried_again_has_failed(alice, bob, retry_after):
    task = submit(alice, retries=3)
    start(bob, task)
    document = fail(bob, task, retry=False, retry_after=retry_after, error="hopeless")
    assert (document["status"], document["error"]) == ("failed", "hopeless")
    assert document["retries_left"] == 3


@pytest.mark.parametrize("retry", [True, None])
def test_to_ask_for_a_retry_gives_none_beyond_the_policy(alice, bob, retry):
    task = submit(alice)
    start(bob, task)
    assert fail(bob, task, retry=retry, retry_after=0)["status"] == "failed"


@pytest.mark.parametrize("seconds", [0, 0.5, 5, 86_400])
def test_a_worker_may_say_after_how_many_seconds_it_is_tried_again(alice, bob, seconds):
    task = submit(alice, retries=1)
    start(bob, task)
    assert fail(bob, task, retry_after=seconds)["status"] == "pending"
    assert delay_of(task) == pytest.approx(seconds, abs=0.1)
    assert (bob.claim() is not None) == (seconds == 0)


@pytest.mark.any_database
@pytest.mark.parametrize("value", [-1, 86_400.5, 1e300, "1", True, []])
def test_seconds_beyond_the_limits_are_refused(alice, bob, value):
    task = submit(alice, retries=1)
    start(bob, task)
    answer = problem(bob.report(task, "failed", retry_after=value), "validation-error", 400)
    assert [error["pointer"] for error in answer["errors"]] == ["/retry_after"]
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"


@pytest.mark.any_database
@pytest.mark.parametrize("status", ["running", "completed", "cancelled"])
@pytest.mark.parametrize("field", [{"retry": False}, {"retry": True}, {"retry_after": 1}])
def test_a_retry_beside_another_status_is_refused(alice, bob, status, field):
    task = submit(alice, retries=1)
    start(bob, task)
    answer = problem(bob.report(task, status, **field), "validation-error", 400)
    assert [error["pointer"] for error in answer["errors"]] == [f"/{name}" for name in field]
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"


def test_the_backoff_is_that_of_the_job(alice, bob, jitter):
    retry = {"backoff_seconds": 3, "backoff_factor": 4, "max_backoff_seconds": 100}
    bob.register(retry={"max_retries": 5, **retry})
    task = submit(alice)
    for expected in (3, 12, 48, 100, 100):
        start(bob, task)
        fail(bob, task)
        assert delay_of(task) == pytest.approx(expected, abs=0.1)
    assert set(jitter) == {(0.9, 1.1)}
    start(bob, task)
    assert fail(bob, task)["status"] == "failed"


def test_the_backoff_without_a_policy_of_the_job_is_five_seconds_doubled_up_to_600(
    alice, bob, jitter
):
    task = submit(alice, retries=9)
    found = []
    for _ in range(9):
        start(bob, task)
        fail(bob, task)
        found.append(round(delay_of(task), 1))
    assert found == [5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_the_jitter_is_at_most_a_tenth(alice, bob):
    bob.register(retry={"max_retries": 100, "backoff_seconds": 100, "backoff_factor": 1})
    task = submit(alice)
    found = []
    for _ in range(30):
        start(bob, task)
        fail(bob, task)
        found.append(delay_of(task))
    assert 89.9 <= min(found) < 98
    assert 102 < max(found) <= 110.1


@pytest.mark.parametrize(
    ("policy", "retry", "seconds"),
    [
        (RetryPolicy(1), 1, 5),
        (RetryPolicy(9), 3, 20),
        (RetryPolicy(9), 8, 600),
        (RetryPolicy(9, 0.5, 1.5, 600), 3, 1.125),
        (RetryPolicy(9, 10, 1, 600), 9, 10),
        (RetryPolicy(9, 10, 1, 5), 1, 5),
        (RetryPolicy(9, 0, 1000, 600), 9, 0),
        (RetryPolicy(9, 31_536_000, 1000, 31_536_000), 100, 31_536_000),
        (RetryPolicy(9, 1, 1000, 600), 10_000, 600),
        (RetryPolicy(9, 0, 1000, 600), 10_000, 0),
        (RetryPolicy(9, 5, 1000, 0), 3, 0),
    ],
)
def test_the_backoff_is_a_power_of_the_factor_up_to_its_limit(policy, retry, seconds):
    assert policy.backoff(retry) == seconds


@pytest.mark.parametrize("retries", [0, 1, 7])
def test_the_retries_of_a_submit_go_before_those_of_the_job(alice, bob, retries):
    bob.register(retry={"max_retries": 3})
    assert alice.get(f"/tasks/{submit(alice)}").json()["retries_left"] == 3
    given = alice.get(f"/tasks/{submit(alice, retries=retries)}").json()
    assert given["retries_left"] == retries


def test_registering_again_replaces_the_policy_only_where_it_is_given(alice, bob):
    policy = {
        "max_retries": 3,
        "backoff_seconds": 1.0,
        "backoff_factor": 3.0,
        "max_backoff_seconds": 60.0,
    }
    assert bob.register().json()["retry"] is None
    assert bob.register(retry=policy, durable=True).json()["retry"] == policy
    again = bob.register().json()
    assert (again["retry"], again["durable"]) == (policy, True)
    assert alice.get(f"/rooms/open/jobs/{JOB}").json()["retry"] == policy
    again = bob.register(retry={"max_retries": 1}, durable=False).json()
    assert again["durable"] is False
    # Replaced as a whole.
    assert again["retry"] == {
        "max_retries": 1,
        "backoff_seconds": 5.0,
        "backoff_factor": 2.0,
        "max_backoff_seconds": 600.0,
    }


@pytest.mark.any_database
@pytest.mark.parametrize(
    "retry",
    [
        {"max_retries": -1},
        {"max_retries": 101},
        {"max_retries": 1.5},
        {"max_retries": "1"},
        {"max_retries": True},
        {"backoff_seconds": -1},
        {"backoff_seconds": 31_536_001},
        {"backoff_factor": 0.5},
        {"backoff_factor": 1001},
        {"max_backoff_seconds": -1},
        {"max_backoff_seconds": 1e300},
        {"attempts": 3},
    ],
)
def test_a_policy_beyond_its_limits_is_refused(bob, retry):
    document = problem(bob.register(retry=retry), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == [f"/retry/{next(iter(retry))}"]


def test_retries_are_bounded_by_the_setting(alice, bob, settings_of):
    settings_of(max_retries=2)
    for retries in (3, -1, 1.5, "1", True):
        answer = alice.send("post", PATH, {"retries": retries})
        document = problem(answer, "validation-error", 400)
        assert [error["pointer"] for error in document["errors"]] == ["/retries"]
    problem(bob.register(retry={"max_retries": 3}), "validation-error", 400)
    assert alice.send("post", PATH, {"retries": 2}).json()["retries_left"] == 2


def test_a_lost_worker_uses_up_a_retry_with_a_backoff_and_an_error(alice, bob, jitter):
    task = submit(alice, retries=1)
    start(bob, task)
    report = lose(bob)
    assert (report.retried, report.failed, report.requeued) == (1, 0, 0)
    document = alice.get(f"/tasks/{task}").json()
    assert (document["status"], document["retries_left"]) == ("pending", 0)
    assert document["error"] == f"Worker '{bob.identity}' timed out"
    assert delay_of(task) == pytest.approx(5, abs=0.1)
    start(bob, task)
    assert lose(bob).failed == 1
    assert alice.get(f"/tasks/{task}").json()["status"] == "failed"


def test_failures_and_losses_share_the_retries_and_the_backoff(alice, bob, jitter):
    task = submit(alice, retries=2)
    start(bob, task)
    lose(bob)
    start(bob, task)
    fail(bob, task)
    assert delay_of(task) == pytest.approx(10, abs=0.1)
    start(bob, task)
    assert fail(bob, task)["status"] == "failed"


def test_a_claim_that_was_never_started_uses_up_no_retry_and_waits_for_none(alice, bob):
    task = submit(alice, retries=1)
    for _ in range(3):
        assert bob.claim()["id"] == task
        assert lose(bob).requeued == 1
    document = alice.get(f"/tasks/{task}").json()
    assert (document["retries_left"], document["run_at"], document["error"]) == (1, None, None)
    assert document["queue_position"] == 1


def test_the_setting_for_lost_workers_holds_beneath_the_policies(alice, bob, settings_of):
    settings_of(task_max_retries=1)
    task = submit(alice)
    start(bob, task)
    assert lose(bob).retried == 1
    document = alice.get(f"/tasks/{task}").json()
    # At once, and without an error.
    assert (document["run_at"], document["error"]) == (None, None)
    start(bob, task)
    assert lose(bob).failed == 1
    none = submit(alice, retries=0)
    start(bob, none)
    assert lose(bob).failed == 1


def test_a_worker_that_is_removed_uses_up_a_retry(alice, bob):
    worker = bob.worker()
    bob.register(worker_id=worker)
    task = submit(alice, retries=1)
    bob.claim(worker)
    bob.report(task, "running")
    assert bob.send("delete", f"/workers/{worker}").status_code == 204
    document = alice.get(f"/tasks/{task}").json()
    assert (document["status"], document["retries_left"]) == ("pending", 0)
    assert document["error"] == f"Worker '{worker}' deregistered"


def test_an_administrator_fails_a_task_with_retries_as_its_worker_does(alice, bob, root):
    task = submit(alice, retries=1)
    start(bob, task)
    assert fail(root, task)["status"] == "pending"
    start(bob, task)
    assert fail(root, task)["status"] == "failed"


def test_reports_of_all_kinds_go_in_one_list(alice, bob):
    tasks = [submit(alice, retries=1) for _ in range(6)]
    for task in tasks:
        start(bob, task)
    results = bob.report_many(
        [
            {"id": tasks[0], "status": "completed", "result": [1]},
            {"id": tasks[1], "status": "failed", "error": "again"},
            {"id": tasks[2], "status": "failed", "retry": False},
            {"id": tasks[3], "status": "running", "progress": 0.5},
            {"id": tasks[4], "status": "cancelled"},
            {"id": tasks[5], "status": "failed", "retry_after": 0},
        ]
    )
    assert [result["status"] for result in results] == [200] * 6
    assert [result["task"]["status"] for result in results] == [
        "completed",
        "pending",
        "failed",
        "running",
        "cancelled",
        "pending",
    ]
    assert bob.claim()["id"] == tasks[5]


def test_a_failure_that_is_tried_again_frees_no_place_of_the_room(alice, bob, settings_of):
    settings_of(max_pending_per_room=1)
    task = submit(alice, retries=1)
    start(bob, task)
    other = submit(alice)
    # Accepted, although the room is full.
    assert fail(bob, task)["status"] == "pending"
    answer = alice.send("post", PATH, {})
    problem(answer, "too-many-pending", 429)
    alice.report(other, "cancelled")
    problem(alice.send("post", PATH, {}), "too-many-pending", 429)
