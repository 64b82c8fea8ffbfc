from __future__ import annotations

import itertools
from datetime import datetime

import pytest

from tests.factories import V1, problem
from zndraw_joblib.lifecycle import TRANSITIONS, TaskStatus
from zndraw_joblib.models import Task

REPORTS = {"running", "completed", "failed", "cancelled"}


def in_state(bob, status: str) -> dict:
    """Submit a task and report it until it has this status; returns its document."""
    bob.register()
    task = bob.submit().json()
    if status == "pending":
        return task
    if status == "cancelled":
        return bob.report(task["id"], "cancelled").json()
    task = bob.claim()
    if status in {"running", "completed", "failed"}:
        task = bob.report(task["id"], "running", attempt=1).json()
    if status in {"completed", "failed"}:
        task = bob.report(task["id"], status, attempt=1).json()
    assert task["status"] == status
    return task


@pytest.mark.parametrize(("before", "target"), list(itertools.product(TaskStatus, TaskStatus)))
def test_a_report_is_accepted_for_the_transitions_of_the_state_machine_only(
    bob, root, before, target
):
    task = in_state(bob, before)
    # Only an admin may report a task that was never granted.
    reporter = bob if task["attempt"] else root
    answer = reporter.report(task["id"], target, attempt=task["attempt"])
    stored = Task.objects.get(pk=task["id"])
    if target not in REPORTS:
        problem(answer, "invalid-task-transition", 409)
    elif target in TRANSITIONS[before] or target == before:
        assert answer.status_code == 200
        assert answer.json()["status"] == target
        assert stored.status == target
        return
    else:
        problem(answer, "invalid-task-transition", 409)
    assert stored.status == before


def test_the_state_machine_is_that_of_the_contract():
    allowed = {(a.value, b.value) for a, targets in TRANSITIONS.items() for b in targets}
    assert allowed == {
        ("pending", "claimed"),
        ("claimed", "running"),
        ("claimed", "pending"),
        ("running", "completed"),
        ("running", "failed"),
        ("running", "pending"),
        ("pending", "cancelled"),
        ("claimed", "cancelled"),
        ("running", "cancelled"),
    }


def test_times_and_worker_follow_the_states(bob):
    task = in_state(bob, "running")
    assert task["started_at"] is not None
    assert task["completed_at"] is None
    assert task["worker_id"] == bob.identity
    done = bob.report(task["id"], "completed").json()
    # Parsed, because as text ``00Z`` sorts after ``00.001Z``.
    names = ("created_at", "started_at", "completed_at")
    times = [datetime.fromisoformat(done[name]) for name in names]
    assert times == sorted(times)


def test_a_repeated_finish_answers_200_and_changes_nothing(bob):
    task = in_state(bob, "running")
    first = bob.report(task["id"], "failed", attempt=1, error="first").json()
    again = bob.report(task["id"], "failed", attempt=1, error="second")
    assert again.status_code == 200
    assert again.json() == first
    assert bob.report(task["id"], "failed").json() == first


def test_a_zombie_loses_to_the_worker_that_claimed_after_a_requeue(bob, alice, carol):
    bob.register()
    alice.submit()
    task = bob.claim()
    assert bob.report(task["id"], "running", attempt=1).status_code == 200
    carol.register()
    Task.objects.filter(pk=task["id"]).requeue()
    # Requeued and not claimed again: the attempt is still the current one.
    problem(bob.report(task["id"], "completed", attempt=1), "invalid-task-transition", 409)
    problem(bob.report(task["id"], "cancelled", attempt=1), "forbidden", 403)
    assert carol.claim()["attempt"] == 2
    for status in ("completed", "running", "cancelled"):
        problem(bob.report(task["id"], status, attempt=1), "forbidden", 403)
        problem(bob.report(task["id"], status), "forbidden", 403)
    assert Task.objects.get().status == "claimed"
    assert carol.report(task["id"], "running", attempt=2).status_code == 200
    assert carol.report(task["id"], "completed", attempt=2).status_code == 200
    problem(bob.report(task["id"], "completed", attempt=1), "forbidden", 403)


def test_an_attempt_never_granted_is_refused(bob):
    task = in_state(bob, "claimed")
    problem(bob.report(task["id"], "running", attempt=2), "lease-lost", 409)
    problem(bob.report(task["id"], "running", attempt=0), "lease-lost", 409)


def test_error_texts_are_cut_at_the_limit_between_characters(bob):
    task = in_state(bob, "running")
    failed = bob.report(task["id"], "failed", error="é" * 5000).json()
    assert failed["error"] == "é" * 4096


def send_raw(person, path, body):
    """Send a report whose JSON is written by hand."""
    return person.client.generic("PATCH", V1 + path, body, "application/json")


#: Escaped error texts, and the text that is stored.
FREE_TEXTS = {
    "NUL": (r"A\u0000B", "A\ufffdB"),
    "high surrogate": (r"a\ud800", "a\ufffd"),
    "low surrogate": (r"\uDC00b", "\ufffdb"),
    "reversed surrogates": (r"\udc00\ud800", "\ufffd\ufffd"),
    "pair": (r"\ud83d\ude00", "\U0001f600"),
    "other control characters": (r"\u0001\n", "\x01\n"),
    "an escaped backslash": (r"\\u0000", r"\u0000"),
}


@pytest.mark.parametrize(("escaped", "stored"), FREE_TEXTS.values(), ids=FREE_TEXTS)
@pytest.mark.parametrize("many", [False, True])
def test_an_error_text_may_have_any_character(bob, many, escaped, stored):
    task = in_state(bob, "running")
    body = f'{{"id": "{task["id"]}", "status": "failed", "error": "{escaped}", "attempt": 1}}'
    if many:
        answer = send_raw(bob, "/tasks", f"[{body}]")
        (result,) = answer.json()
        assert result["task"]["error"] == stored
    else:
        body = body.replace(f'"id": "{task["id"]}", ', "")
        answer = send_raw(bob, f"/tasks/{task['id']}", body)
        assert answer.json()["error"] == stored
    assert Task.objects.get().error == stored


@pytest.mark.parametrize(
    "body",
    [
        r'{"status": "failed", "error": "x", "more": "\u0000"}',
        r'{"status": "failed", "error": {"error": "\u0000"}}',
        r'{"status": "failed", "\ud800": "x"}',
        r'{"status": "\ud800", "error": "x"}',
    ],
)
def test_other_text_of_a_report_may_not_have_any_character(bob, body):
    task = in_state(bob, "running")
    problem(send_raw(bob, f"/tasks/{task['id']}", body), "validation-error", 400)
    assert Task.objects.get().status == "running"


@pytest.mark.parametrize("verb", ["cancel", "fail"])
def test_error_texts_of_host_code_are_cleaned_and_cut_too(bob, verb):
    task = in_state(bob, "running")
    getattr(Task.objects.filter(pk=task["id"]), verb)("A\x00\ud800" + "é" * 5000)
    assert Task.objects.get().error == ("A\ufffd\ufffd" + "é" * 4092)


@pytest.mark.parametrize("target", ["pending", "claimed"])
def test_the_refusal_of_a_status_that_the_server_sets_tells_no_more_than_other_refusals(
    bob, alice, carol, root, target
):
    """A caller without the right is refused as for other statuses, and nothing changes."""
    task = in_state(bob, "running")
    problem(carol.report(task["id"], target), "forbidden", 403)
    problem(bob.report(task["id"], target, attempt=2), "lease-lost", 409)
    for person in (bob, root):
        document = problem(person.report(task["id"], target), "invalid-task-transition", 409)
        assert target in document["detail"]
    body = {"status": target, "error": "why", "attempt": 1}
    problem(bob.report(task["id"], **body), "invalid-task-transition", 409)
    assert Task.objects.values("status", "attempt", "error").get() == {
        "status": "running",
        "attempt": 1,
        "error": None,
    }


@pytest.mark.parametrize("target", ["pending", "claimed"])
def test_in_a_batch_the_report_of_a_status_that_the_server_sets_is_refused_alone(bob, root, target):
    task = in_state(bob, "running")
    for person in (root, bob):
        refused, done = person.report_many(
            [{"id": task["id"], "status": status} for status in (target, "completed")]
        )
        assert refused["status"] == 409
        assert refused["problem"]["type"].endswith("/invalid-task-transition")
        assert done["status"] == 200
        assert done["task"]["status"] == "completed"


@pytest.mark.any_database
@pytest.mark.parametrize("status", ["", "done", "Running", None, 1, [], {}])
def test_a_status_that_does_not_exist_is_refused_as_malformed(bob, status):
    task = in_state(bob, "running")
    document = problem(bob.report(task["id"], status), "validation-error", 400)
    assert document["errors"][0]["pointer"] == "/status"


def test_a_report_of_a_start_takes_no_error_text(bob):
    task = in_state(bob, "claimed")
    document = problem(bob.report(task["id"], "running", error="x"), "validation-error", 400)
    assert document["errors"][0]["pointer"] == "/error"
    assert bob.report(task["id"], "running", error=None).status_code == 200


@pytest.mark.parametrize("batch", [False, True])
def test_an_error_text_beside_completed_is_kept_as_a_remark_and_cut_like_others(bob, batch):
    task = in_state(bob, "running")
    report = {"status": "completed", "attempt": 1, "error": "é" * 5000}
    if batch:
        done = bob.report_many([{"id": task["id"], **report}])[0]["task"]
    else:
        done = bob.report(task["id"], **report).json()
    assert done["status"] == "completed"
    assert done["error"] == "é" * 4096
    assert bob.get(f"/tasks/{task['id']}").json()["error"] == "é" * 4096
    assert bob.report(task["id"], "completed", attempt=1, error="later").json() == done


def test_a_heartbeat_lists_a_task_that_its_submitter_cancelled(bob, alice):
    bob.register()
    worker = bob.worker()
    bob.register(worker_id=worker)
    task = alice.submit().json()
    bob.claim(worker)
    assert alice.report(task["id"], "cancelled", error="not needed").status_code == 200
    reply = bob.send(
        "patch", f"/workers/{worker}", {"tasks": [{"id": task["id"], "attempt": 1}]}
    ).json()
    assert reply["cancelled"] == [task["id"]]
    assert reply["lost"] == []
    problem(bob.report(task["id"], "running", attempt=1), "invalid-task-transition", 409)


def test_a_worker_may_cancel_its_task_and_repeat_the_report(bob, alice):
    bob.register()
    alice.submit()
    task = bob.claim()
    assert bob.report(task["id"], "cancelled", attempt=1, error="no").json()["error"] == "no"
    assert bob.report(task["id"], "cancelled", attempt=1).json()["error"] == "no"


def test_a_submitter_who_also_ran_the_task_may_cancel_it_while_pending(bob):
    task = in_state(bob, "running")
    Task.objects.filter(pk=task["id"]).requeue()
    assert bob.report(task["id"], "cancelled").json()["status"] == "cancelled"


def test_an_admin_reports_on_any_task(bob, root):
    task = in_state(bob, "running")
    assert root.report(task["id"], "completed").json()["status"] == "completed"
