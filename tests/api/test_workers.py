from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import OperationalError

from tests.factories import problem
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.storage.jobs import JobQuerySet
from zndraw_joblib.storage.workers import WorkerQuerySet


def test_each_post_creates_a_worker_and_the_default_worker_has_the_callers_identity(bob):
    one, two = bob.worker(), bob.worker()
    assert len({one, two, bob.identity}) == 3
    bob.register()
    listed = {worker["id"]: worker for worker in bob.get("/workers").json()}
    assert set(listed) == {one, two, bob.identity}
    assert listed[bob.identity]["job_count"] == 1
    assert listed[one]["job_count"] == 0


def test_the_list_of_workers_has_the_callers_own_and_for_admins_all(bob, carol, root):
    bobs, carols = bob.worker(), carol.worker()
    assert [worker["id"] for worker in bob.get("/workers").json()] == [bobs]
    assert {worker["id"] for worker in root.get("/workers").json()} == {bobs, carols}


def test_a_room_lists_workers_registered_for_its_jobs_or_global_jobs(bob, carol, root):
    bob.register("open")
    carol.register("open2")
    root.register("@global")
    bob.worker()
    listed = {worker["id"] for worker in bob.get("/rooms/open/workers").json()}
    assert listed == {bob.identity, root.identity}


def test_claims_are_granted_oldest_first_over_all_jobs(bob):
    worker = bob.worker()
    for name in ("A", "B"):
        bob.register(name=name, worker_id=worker)
    bob.register(name="C")
    order = ["B", "A", "C", "A", "B"]
    ids = [bob.submit(job=f"open:modifiers:{name}").json()["id"] for name in order]
    expected = [task_id for task_id, name in zip(ids, order, strict=True) if name != "C"]
    claimed = [bob.claim(worker) for _ in expected]
    assert [task["id"] for task in claimed] == expected
    assert all(task["worker_id"] == worker and task["attempt"] == 1 for task in claimed)
    assert all(task["status"] == "claimed" for task in claimed)
    assert bob.claim(worker) is None
    assert bob.claim()["id"] == ids[2]


def test_a_claim_for_somebody_elses_worker_is_not_found(bob, carol):
    worker = bob.worker()
    bob.register(worker_id=worker)
    bob.submit()
    problem(carol.send("post", "/tasks/claim", {"worker_id": worker}), "worker-not-found", 404)
    assert carol.claim() is None
    assert Task.objects.get().status == "pending"


def test_a_claim_sets_the_lease_and_a_heartbeat_renews_it(bob, settings_of):
    settings_of(worker_timeout_seconds=100)
    bob.register()
    bob.submit()
    claimed = Task.objects.get(pk=bob.claim()["id"])
    lease = claimed.lease_expires_at - Worker.objects.get().last_heartbeat
    assert timedelta(seconds=99) < lease < timedelta(seconds=120)
    settings_of(worker_timeout_seconds=1000)
    reply = bob.send("patch", f"/workers/{bob.identity}")
    assert set(reply.json()) == {"id", "last_heartbeat"}
    renewed = Task.objects.get().lease_expires_at
    assert renewed - claimed.lease_expires_at > timedelta(seconds=800)


def test_a_heartbeat_renews_the_listed_tasks_and_lists_the_lost_ones(bob, settings_of):
    bob.register()
    ids = [bob.submit().json()["id"] for _ in range(3)]
    for _ in ids:
        bob.claim()
    Task.objects.filter(pk=ids[1]).cancel()
    Task.objects.filter(pk=ids[2]).requeue()
    before = dict(Task.objects.values_list("pk", "lease_expires_at"))
    settings_of(worker_timeout_seconds=1000)
    body = {"tasks": [{"id": task_id, "attempt": 1} for task_id in ids]}
    reply = bob.send("patch", f"/workers/{bob.identity}", body).json()
    assert reply["lost"] == [ids[2]]
    assert reply["cancelled"] == [ids[1]]
    after = {str(pk): lease for pk, lease in Task.objects.values_list("pk", "lease_expires_at")}
    assert after[ids[0]] > before[Task.objects.get(pk=ids[0]).pk]
    assert after[ids[1]] is None
    other = {"tasks": [{"id": ids[0], "attempt": 7}]}
    assert bob.send("patch", f"/workers/{bob.identity}", other).json()["lost"] == [ids[0]]


def test_a_heartbeat_with_a_list_does_not_renew_other_tasks(bob, settings_of):
    bob.register()
    bob.submit()
    task = bob.claim()
    before = Task.objects.get().lease_expires_at
    settings_of(worker_timeout_seconds=1000)
    bob.send("patch", f"/workers/{bob.identity}", {"tasks": []})
    assert Task.objects.get(pk=task["id"]).lease_expires_at == before


def test_deleting_a_worker_requeues_claimed_tasks_and_ends_running_ones(bob, settings_of):
    worker = bob.worker()
    bob.register(worker_id=worker)
    settings_of(task_max_retries=1)
    retried = bob.submit().json()["id"]
    settings_of(task_max_retries=0)
    failed, claimed = (bob.submit().json()["id"] for _ in range(2))
    for _ in range(3):
        bob.claim(worker)
    for task_id in (retried, failed):
        bob.report(task_id, "running", attempt=1)
    assert bob.send("delete", f"/workers/{worker}").status_code == 204
    states = {str(task.pk): task for task in Task.objects.all()}
    assert states[claimed].status == states[retried].status == "pending"
    assert states[claimed].worker_id is None
    assert states[retried].retries_left == 0
    assert states[failed].status == "failed"
    assert worker in states[failed].error
    assert states[failed].worker_id == worker
    problem(bob.send("delete", f"/workers/{worker}"), "worker-not-found", 404)
    problem(bob.send("patch", f"/workers/{worker}"), "worker-not-found", 404)
    # The job is retired by a sweep only, so that pending tasks wait for the next worker.
    assert bob.get("/rooms/open/jobs/open:modifiers:Rotate").json()["worker_count"] == 0


def test_an_owner_may_report_a_task_after_its_worker_was_deleted(bob, settings_of):
    worker = bob.worker()
    bob.register(worker_id=worker)
    bob.submit()
    task = bob.claim(worker)
    Worker.objects.all().delete()
    assert bob.report(task["id"], "running", attempt=1).status_code == 200
    assert bob.report(task["id"], "completed", attempt=1).json()["worker_id"] == worker


@pytest.mark.parametrize("verbs", [WorkerQuerySet, JobQuerySet])
def test_a_change_is_rolled_back_when_reading_the_response_fails(bob, monkeypatch, verbs):
    def unreachable(self):
        raise OperationalError("the connection is closed")

    bob.client.raise_request_exception = False
    method = "with_job_count" if verbs is WorkerQuerySet else "with_worker_count"
    monkeypatch.setattr(verbs, method, unreachable)
    answer = bob.register() if verbs is JobQuerySet else bob.send("post", "/workers")
    problem(answer, "service-unavailable", 503)
    assert not Worker.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize("worker_id", ["nope", "%00", "x" * 32_000, "é"])
def test_unknown_workers_are_not_found(bob, worker_id):
    problem(bob.send("patch", f"/workers/{worker_id}"), "worker-not-found", 404)
    problem(bob.send("delete", f"/workers/{worker_id}"), "worker-not-found", 404)


def test_a_heartbeat_may_list_500_tasks_whatever_their_attempts(bob):
    worker = bob.worker()
    tasks = [{"id": str(uuid.uuid4()), "attempt": attempt} for attempt in range(501)]
    reply = bob.send("patch", f"/workers/{worker}", {"tasks": tasks[:500]})
    assert reply.json()["lost"] == [task["id"] for task in tasks[:500]]
    document = problem(
        bob.send("patch", f"/workers/{worker}", {"tasks": tasks}), "validation-error", 400
    )
    assert document["errors"][0]["pointer"] == "/tasks"
