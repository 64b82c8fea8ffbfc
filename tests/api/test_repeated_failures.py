"""The repeated report of an attempt that failed and is tried again."""

from __future__ import annotations

import pytest

from tests.factories import problem
from tests.runs import fail, lose, start, submit


@pytest.fixture(autouse=True)
def offered(bob):
    bob.register()


@pytest.mark.parametrize("attempt", [1, None])
@pytest.mark.parametrize("batch", [False, True])
def test_the_repeated_report_of_a_failure_gets_the_task_as_it_is_by_then(
    alice, bob, attempt, batch
):
    """A report without an attempt is repeated as long as the task is not granted again."""
    task = submit(alice, retries=2)
    start(bob, task)
    fail(bob, task, attempt=attempt, error="once")

    def again(status="failed", of=attempt):
        body = {"status": status, "attempt": of, "error": "twice"}
        if batch:
            (result,) = bob.report_many([{"id": task, **body}])
            return result["status"], result.get("task") or result["problem"]
        answer = bob.report(task, **body)
        return answer.status_code, answer.json()

    status, document = again()
    assert status == 200
    assert (document["status"], document["error"], document["retries_left"]) == (
        "pending",
        "once",
        1,
    )
    assert again("completed")[0] == 409
    start(bob, task)
    status, document = again(of=1)
    assert (status, document["status"], document["attempt"]) == (200, "running", 2)
    alice.report(task, "cancelled")
    assert again(of=1)[1]["status"] == "cancelled"


def test_the_repeated_report_is_answered_though_another_caller_has_the_task(alice, bob, carol):
    """Control: 403 while the owner of the latest attempt was asked instead."""
    carol.register()
    task = submit(alice, retries=2)
    start(bob, task)
    fail(bob, task, attempt=1)
    start(carol, task)
    assert bob.report(task, "failed", attempt=1).json()["status"] == "running"
    # But not the other way round.
    problem(carol.report(task, "failed", attempt=1), "lease-lost", 409)
    problem(alice.report(task, "failed", attempt=1), "forbidden", 403)
    problem(bob.report(task, "completed", attempt=1), "forbidden", 403)
    assert alice.get(f"/tasks/{task}").json()["status"] == "running"


def test_a_report_of_another_end_of_the_attempt_is_refused(alice, bob):
    task = submit(alice, retries=2)
    start(bob, task)
    lose(bob)
    answer = problem(bob.report(task, "failed", attempt=1), "invalid-task-transition", 409)
    assert "pending" in answer["detail"]
    start(bob, task)
    problem(bob.report(task, "failed", attempt=1), "lease-lost", 409)
    problem(bob.report(task, "failed", attempt=3), "lease-lost", 409)


def test_a_failed_task_without_retries_answers_its_repeated_report(alice, bob):
    task = submit(alice, retries=0)
    start(bob, task)
    first = fail(bob, task, attempt=1, error="once")
    assert fail(bob, task, attempt=1, error="twice") == first
