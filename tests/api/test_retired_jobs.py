"""DELETE rooms/{room}/jobs/{job}: retires a job whose workers still offer it."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from tests.factories import ROTATE, V1, by_room, problem
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.models import Job, Task, WorkerJobLink
from zndraw_joblib.services.sweep import sweep

JOB = f"open:{ROTATE}"


@pytest.fixture
def worker(bob):
    worker = bob.worker()
    bob.register(worker_id=worker)
    return worker


def retire(person, job=JOB, room="open"):
    return person.send("delete", f"/rooms/{room}/jobs/{job}")


def test_a_retired_job_is_gone_until_it_is_registered_again(bob, alice, worker):
    answer = retire(alice)
    assert (answer.status_code, answer.content) == (204, b"")
    problem(alice.get(f"/rooms/open/jobs/{JOB}"), "job-not-found", 404)
    problem(alice.submit(), "job-not-found", 404)
    assert alice.get("/rooms/open/jobs").json() == []
    assert not WorkerJobLink.objects.exists()
    assert bob.register(worker_id=worker).status_code == 201
    assert alice.get(f"/rooms/open/jobs/{JOB}").json()["worker_count"] == 1
    assert alice.submit().status_code == 202


def test_a_job_that_was_submitted_to_before_is_not_found_at_once(bob, alice, worker):
    """The process has the job in its cache by then."""
    assert alice.submit().status_code == 202
    retire(alice)
    problem(alice.submit(), "job-not-found", 404)


def test_a_second_retirement_is_not_found(alice, worker):
    assert retire(alice).status_code == 204
    problem(retire(alice), "job-not-found", 404)


@pytest.mark.parametrize("job", ["open:modifiers:Other", "nonsense", "other:modifiers:Rotate"])
def test_an_unknown_job_and_one_of_another_room_are_not_found(bob, alice, worker, job):
    bob.register("other", worker_id=worker)
    problem(retire(alice, job), "job-not-found", 404)
    assert not Job.objects.exclude(retired_at=None).exists()


def test_a_global_job_is_retired_in_the_global_room_only(root, alice):
    root.register("@global")
    job = f"@global:{ROTATE}"
    for person in (alice, root):
        problem(retire(person, job), "job-not-found", 404)
    problem(retire(alice, job, "@global"), "forbidden", 403)
    assert retire(root, "%40global%3Amodifiers%3ARotate", "@global").status_code == 204


def test_a_caller_without_the_right_to_register_is_refused(bob, people, worker, settings_of):
    settings_of(room_access="tests.api.test_retired_jobs.owners_register")
    bob.register("bobs")
    eve = people("eve")
    for job in ("bobs:modifiers:Rotate", "bobs:modifiers:Unknown"):
        problem(retire(eve, job, "bobs"), "forbidden", 403)
    assert retire(bob, "bobs:modifiers:Rotate", "bobs").status_code == 204


def owners_register(request, room_id, action):
    return action != "register" or by_room(request, room_id, action)


def test_the_name_of_a_job_may_come_in_another_form_of_unicode(bob, alice):
    bob.register(name="Größe")
    assert retire(alice, "open:modifiers:Gro\u0308ße").status_code == 204


@pytest.mark.parametrize("room", ["a b:", "%00", "@internal"])
def test_an_invalid_room_is_refused(alice, room):
    assert retire(alice, JOB, room).status_code in {400, 404}


def test_running_tasks_go_on_and_pending_ones_wait_for_a_registration(bob, alice, worker):
    claimed, running, pending = (alice.submit().json()["id"] for _ in range(3))
    bob.claim(worker)
    bob.claim(worker)
    bob.report(running, "running")
    retire(alice)
    assert bob.claim(worker) is None
    grants = [{"id": task, "attempt": 1} for task in (claimed, running)]
    beat = bob.send("patch", f"/workers/{worker}", {"tasks": grants}).json()
    assert beat["lost"] == beat["cancelled"] == []
    bob.report(claimed, "running")
    for task in (claimed, running):
        assert bob.report(task, "completed", attempt=1).status_code == 200
    sweep()
    assert alice.get(f"/tasks/{pending}").json()["status"] == "pending"
    bob.register(worker_id=worker)
    assert bob.claim(worker)["id"] == pending


def test_a_task_that_fails_after_its_job_was_retired_is_retried_when_it_is_back(bob, alice):
    bob.register(retry={"max_retries": 1, "backoff_seconds": 0})
    task = alice.submit().json()["id"]
    bob.claim()
    bob.report(task, "running")
    retire(alice)
    assert bob.report(task, "failed", error="no").json()["status"] == "pending"
    assert bob.claim() is None
    assert bob.register().json()["retry"]["max_retries"] == 1
    assert bob.claim()["id"] == task


def test_a_durable_job_is_retired_too(bob, alice):
    bob.register(durable=True)
    assert retire(alice).status_code == 204
    problem(alice.submit(), "job-not-found", 404)
    assert bob.register().json()["durable"] is True


def test_another_schema_may_take_over_a_retired_job(bob, alice, carol, worker):
    other = {"type": "object"}
    problem(carol.register(schema=other), "schema-conflict", 409)
    retire(alice)
    assert carol.register(schema=other).status_code == 201


def test_the_tasks_of_a_retired_job_can_be_listed(bob, alice, worker):
    task = alice.submit().json()["id"]
    retire(alice)
    listed = alice.get(f"/rooms/open/jobs/{JOB}/tasks").json()
    assert [each["id"] for each in listed] == [task]


@pytest.mark.django_db(transaction=True)
async def test_a_waiting_claim_gets_tasks_of_a_job_that_was_retired_and_registered_again(
    bob, alice, worker
):
    def retire_and_revive():
        assert retire(alice).status_code == 204
        bob.register(worker_id=worker)
        return alice.submit().json()["id"]

    async def change():
        while not get_hub().work._lines:
            await asyncio.sleep(0.01)
        return await sync_to_async(retire_and_revive)()

    claim, task = await asyncio.gather(
        AsyncClient().post(
            f"{V1}/tasks/claim",
            {"worker_id": worker},
            content_type="application/json",
            headers={"authorization": f"Token {bob.token}", "prefer": "wait=20"},
        ),
        change(),
    )
    assert claim.status_code == 200
    assert claim.json()["task"]["id"] == task


@pytest.mark.django_db(transaction=True)
async def test_a_waiting_claim_of_a_worker_whose_only_job_is_retired_gets_no_task(
    bob, alice, worker
):
    async def change():
        while not get_hub().work._lines:
            await asyncio.sleep(0.01)
        await sync_to_async(retire)(alice)

    claim, _ = await asyncio.gather(
        AsyncClient().post(
            f"{V1}/tasks/claim",
            {"worker_id": worker},
            content_type="application/json",
            headers={"authorization": f"Token {bob.token}", "prefer": "wait=1"},
        ),
        change(),
    )
    assert (claim.status_code, claim.json()) == (200, {"task": None})


def test_retirements_need_no_body_and_refuse_parameters(alice, worker):
    problem(retire(alice, f"{JOB}?force=1"), "validation-error", 400)
    assert Task.objects.count() == 0
    assert retire(alice).status_code == 204
