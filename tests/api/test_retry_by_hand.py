"""POST tasks/{id}/retry: the payload of an ended task, as a new task."""

from __future__ import annotations

import pytest

from tests.factories import ROTATE, V1, by_room, problem
from zndraw_joblib.models import Task
from zndraw_joblib.services import submit as submits

JOB = f"open:{ROTATE}"


@pytest.fixture(autouse=True)
def offered(bob):
    bob.register()


def submit(person, **body):
    path = f"/rooms/open/tasks/{JOB}"
    answer = person.send("post", path, {"payload": {"angle": 1}, **body})
    assert answer.status_code == 202
    return answer.json()["id"]


@pytest.fixture
def ended(alice):
    """The id of a task that was cancelled."""
    task = submit(alice, retries=3, timeout_seconds=60)
    alice.report(task, "cancelled", error="by mistake")
    return task


def retry(person, task, key=None, **kwargs):
    if key is not None:
        kwargs["headers"] = {"idempotency-key": f'"{key}"'}
    return person.send("post", f"/tasks/{task}/retry", **kwargs)


def test_a_retry_is_a_new_task_with_the_same_payload_retries_and_timeout(alice, carol, ended):
    old = alice.get(f"/tasks/{ended}").json()
    answer = retry(carol, ended)
    assert answer.status_code == 202
    new = answer.json()
    assert answer["Location"] == f"{V1}/tasks/{new['id']}"
    assert answer["Retry-After"] == "1"
    assert new["id"] != ended
    assert new["retry_of"] == ended
    for name in ("payload", "job_name", "room_id", "retries_left", "timeout_seconds"):
        assert new[name] == old[name], name
    assert (new["status"], new["attempt"], new["queue_position"]) == ("pending", 0, 1)
    for name in ("error", "result", "run_at", "worker_id", "started_at", "completed_at"):
        assert new[name] is None, name
    assert Task.objects.get(pk=new["id"]).created_by == carol.identity
    assert alice.get(f"/tasks/{ended}").json() == old


def test_a_retry_has_all_retries_and_is_due_at_once(alice, bob):
    task = submit(alice, retries=2, delay=0)
    bob.claim()
    bob.report(task, "running")
    bob.report(task, "failed", retry_after=0)
    assert bob.claim()["id"] == task
    bob.report(task, "running")
    bob.report(task, "failed", retry=False, error="no")
    assert alice.get(f"/tasks/{task}").json()["retries_left"] == 1
    new = retry(alice, task).json()
    assert (new["retries_left"], new["run_at"]) == (2, None)
    assert bob.claim()["id"] == new["id"]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_task_of_every_terminal_status_can_be_retried_more_than_once(alice, bob, status):
    task = submit(alice)
    bob.claim()
    bob.report(task, "running")
    bob.report(task, status)
    first, second = retry(alice, task).json(), retry(alice, task).json()
    assert first["id"] != second["id"]
    assert first["retry_of"] == second["retry_of"] == task
    alice.report(first["id"], "cancelled")
    assert retry(alice, first["id"]).json()["retry_of"] == first["id"]


@pytest.mark.parametrize("status", ["pending", "claimed", "running"])
def test_a_task_that_has_not_ended_cannot_be_retried(alice, bob, status):
    task = submit(alice)
    if status != "pending":
        bob.claim()
    if status == "running":
        bob.report(task, "running")
    answer = problem(retry(alice, task), "invalid-task-transition", 409)
    assert status in answer["detail"]
    assert Task.objects.count() == 1


@pytest.mark.parametrize("task", ["nonsense", "0190b0a0-0000-7000-8000-000000000000"])
def test_an_unknown_task_is_not_found(alice, task):
    problem(retry(alice, task), "task-not-found", 404)


def test_a_reader_without_the_right_to_submit_is_refused(alice, people, ended, settings_of):
    settings_of(room_access="tests.api.test_retry_by_hand.eve_reads")
    eve = people("eve")
    problem(retry(eve, ended), "forbidden", 403)
    # Also of a task that has not ended, because that would not help.
    problem(retry(eve, submit(alice)), "forbidden", 403)
    settings_of(room_access="tests.factories.by_room")
    assert retry(eve, ended).status_code == 202


def eve_reads(request, room_id, action):
    return action == "read" or request.user.username != "eve"


def test_a_task_of_a_hidden_room_is_not_found(bob, people, settings_of):
    settings_of(room_access="tests.factories.by_room")
    assert by_room is not None
    bob.register("bobs")
    task = bob.submit("bobs", "bobs:modifiers:Rotate").json()["id"]
    bob.report(task, "cancelled")
    problem(retry(people("eve"), task), "task-not-found", 404)


def test_the_owner_of_the_worker_needs_the_right_to_submit(alice, bob, people, settings_of):
    settings_of(room_access="tests.api.test_retry_by_hand.only_alice")
    task = submit(alice)
    bob.claim()
    bob.report(task, "cancelled")
    assert bob.get(f"/tasks/{task}").status_code == 200
    problem(retry(bob, task), "forbidden", 403)


def only_alice(request, room_id, action):
    return request.user.username == "alice"


def test_the_payload_must_satisfy_the_present_schema(alice, bob, carol, ended):
    bob.send("delete", f"/rooms/open/jobs/{JOB}")
    carol.register(schema={"type": "object", "properties": {"angle": {"type": "string"}}})
    answer = problem(retry(alice, ended), "invalid-payload", 422)
    assert [error["pointer"] for error in answer["errors"]] == ["/payload/angle"]
    assert Task.objects.count() == 1


def test_a_task_of_a_retired_job_cannot_be_retried(alice, bob, ended):
    bob.send("delete", f"/rooms/open/jobs/{JOB}")
    problem(retry(alice, ended), "job-not-found", 404)
    bob.register()
    assert retry(alice, ended).status_code == 202


def test_a_retry_counts_against_the_limit_of_the_room(alice, ended, settings_of):
    settings_of(max_pending_per_room=1)
    assert retry(alice, ended).status_code == 202
    answer = retry(alice, ended)
    problem(answer, "too-many-pending", 429)
    assert answer["Retry-After"]


def test_a_repeated_retry_with_its_key_gives_the_same_task(alice, bob, carol, ended):
    first = retry(alice, ended, "k").json()
    assert retry(alice, ended, "k").json() == first
    alice.report(first["id"], "cancelled")
    assert retry(alice, ended, "k").json()["status"] == "cancelled"
    assert retry(alice, ended, "other").json()["id"] != first["id"]
    assert retry(carol, ended, "k").json()["id"] != first["id"]
    # Also when the job is gone.
    bob.send("delete", f"/rooms/open/jobs/{JOB}")
    assert retry(alice, ended, "k").json()["id"] == first["id"]
    problem(retry(alice, ended, "new"), "job-not-found", 404)


def test_the_key_of_a_retry_is_not_that_of_another_task_or_of_a_submit(alice, ended):
    path, headers = f"/rooms/open/tasks/{JOB}", {"idempotency-key": '"k"'}
    submitted = alice.send("post", path, {"payload": {"angle": 1}}, headers=headers).json()
    first = retry(alice, ended, "k").json()
    assert first["id"] != submitted["id"]
    alice.report(submitted["id"], "cancelled")
    second = retry(alice, submitted["id"], "k")
    assert second.status_code == 202
    assert second.json()["retry_of"] == submitted["id"]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_invalid_key_is_refused(alice, ended, key):
    problem(retry(alice, ended, key), "validation-error", 400)
    assert Task.objects.count() == 1


@pytest.mark.parametrize("body", [{"payload": {}}, {"retries": 1}, [], "x", 1])
def test_a_retry_takes_no_fields(alice, ended, body):
    problem(alice.send("post", f"/tasks/{ended}/retry", body), "validation-error", 400)
    assert alice.send("post", f"/tasks/{ended}/retry", {}).status_code == 202


def test_the_retries_of_a_retry_are_bounded_by_the_setting(alice, ended, settings_of):
    settings_of(max_retries=2)
    assert retry(alice, ended).json()["retries_left"] == 2


def test_a_task_without_retries_gets_those_of_the_job(alice, bob):
    task = submit(alice)
    alice.report(task, "cancelled")
    bob.register(retry={"max_retries": 4})
    assert retry(alice, task).json()["retries_left"] == 4


def test_a_task_of_a_global_job_is_retried_in_its_room(alice, root):
    root.register("@global", name="Global")
    task = alice.submit("open", "@global:modifiers:Global").json()["id"]
    alice.report(task, "cancelled")
    new = retry(alice, task).json()
    assert (new["room_id"], new["job_name"]) == ("open", "@global:modifiers:Global")


def test_a_task_that_is_deleted_meanwhile_is_submitted_again_all_the_same(
    alice, ended, monkeypatch
):
    """Control: an IntegrityError, if insert_tasks took `retry_of` as it is given."""
    checked = submits._checked_job

    def delete_and_check(*args):
        Task.objects.filter(pk=ended).delete()
        return checked(*args)

    monkeypatch.setattr(submits, "_checked_job", delete_and_check)
    new = retry(alice, ended)
    assert (new.status_code, new.json()["retry_of"]) == (202, None)


def test_a_retry_stays_when_the_ended_task_is_deleted(alice, ended):
    new = retry(alice, ended).json()["id"]
    Task.objects.filter(pk=ended).delete()
    assert alice.get(f"/tasks/{new}").json()["retry_of"] is None
