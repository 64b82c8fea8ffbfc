"""DELETE workers/{id}/jobs/{full_name}."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.factories import problem
from zndraw_joblib.models import Job, Task, Worker, WorkerJobLink
from zndraw_joblib.services.sweep import sweep

ROTATE = "open:modifiers:Rotate"


@pytest.fixture
def worker(bob):
    worker_id = bob.worker()
    bob.register(worker_id=worker_id)
    return worker_id


def withdraw(person, worker_id, job=ROTATE):
    return person.send("delete", f"/workers/{worker_id}/jobs/{job}")


def test_a_withdrawn_job_is_not_granted_to_the_worker_any_more(bob, alice, carol, worker):
    bob.register(name="Bend", worker_id=worker)
    answer = withdraw(bob, worker)
    assert answer.status_code == 204
    assert answer.content == b""
    task = alice.submit().json()
    assert task["status"] == "pending"
    assert bob.claim(worker) is None
    carol.register()
    assert carol.claim()["id"] == task["id"]
    alice.submit(job="open:modifiers:Bend")
    assert bob.claim(worker)["job_name"] == "open:modifiers:Bend"
    assert Worker.objects.filter(pk=worker).exists()


def test_a_second_withdrawal_and_that_of_a_job_never_offered_are_not_found(bob, carol, worker):
    carol.register(name="Bend")
    assert withdraw(bob, worker).status_code == 204
    problem(withdraw(bob, worker), "job-not-found", 404)
    for job in ("open:modifiers:Bend", "open:modifiers:Nope", "x", "a:b:c:d", "a%00b:c:d"):
        problem(withdraw(bob, worker, job), "job-not-found", 404)
    assert WorkerJobLink.objects.count() == 1


@pytest.mark.parametrize("unknown", ["nobody", "\x01", "x" * 256])
def test_a_withdrawal_by_an_unknown_worker_is_not_found(bob, worker, unknown):
    problem(withdraw(bob, quote(unknown)), "worker-not-found", 404)


def test_a_worker_of_another_caller_is_not_found_whether_it_offers_the_job_or_not(
    carol, worker, root
):
    for job in (ROTATE, "open:modifiers:Nope"):
        problem(withdraw(carol, worker, job), "worker-not-found", 404)
    assert WorkerJobLink.objects.count() == 1
    assert withdraw(root, worker).status_code == 204


def test_the_default_worker_withdraws_by_its_identity(bob):
    bob.register()
    assert withdraw(bob, bob.identity).status_code == 204
    assert not WorkerJobLink.objects.exists()


def test_a_job_of_the_global_room_is_withdrawn_in_either_notation(root):
    for job in ("@global:modifiers:Rotate", "%40global%3Amodifiers%3ARotate"):
        root.register("@global")
        assert withdraw(root, root.identity, job).status_code == 204


def test_the_worker_keeps_the_tasks_that_it_holds(bob, alice, worker):
    claimed, running = alice.submit().json(), alice.submit().json()
    bob.claim(worker)
    bob.claim(worker)
    bob.report(running["id"], "running")
    assert withdraw(bob, worker).status_code == 204
    assert dict(Task.objects.values_list("status", "worker_id")) == {
        "claimed": worker,
        "running": worker,
    }
    grants = [{"id": task["id"], "attempt": 1} for task in (claimed, running)]
    beat = bob.send("patch", f"/workers/{worker}", {"tasks": grants}).json()
    assert beat["lost"] == beat["cancelled"] == []
    assert bob.report(claimed["id"], "running", attempt=1).status_code == 200
    for task in (claimed, running):
        assert bob.report(task["id"], "completed", attempt=1).status_code == 200


def test_pending_tasks_wait_for_the_next_registration(bob, alice, worker):
    task = alice.submit().json()
    withdraw(bob, worker)
    assert sweep().jobs == 0
    assert alice.get(f"/tasks/{task['id']}").json()["status"] == "pending"
    assert bob.register(worker_id=worker).status_code == 200
    assert bob.claim(worker)["id"] == task["id"]


def test_a_job_without_workers_and_unfinished_tasks_is_retired_by_the_next_sweep(
    bob, alice, worker
):
    withdraw(bob, worker)
    assert alice.get(f"/rooms/open/jobs/{ROTATE}").json()["worker_count"] == 0
    assert sweep().jobs == 1
    problem(alice.get(f"/rooms/open/jobs/{ROTATE}"), "job-not-found", 404)
    assert bob.register(worker_id=worker).status_code == 201


def test_another_schema_takes_over_after_the_only_worker_has_withdrawn_the_job(bob, carol, worker):
    other = {"type": "object"}
    carol.register()
    problem(bob.register(schema=other, worker_id=worker), "schema-conflict", 409)
    withdraw(bob, worker)
    # Carol's worker still offers the first one.
    problem(bob.register(schema=other, worker_id=worker), "schema-conflict", 409)
    withdraw(carol, carol.identity)
    answer = bob.register(schema=other, worker_id=worker)
    assert answer.status_code == 200
    assert answer.json()["schema"] == other
    assert Job.objects.get().revision == 1
