"""Claims that wait: their response at the deadline, and the tasks of disconnected clients."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.db import OperationalError
from django.test import AsyncClient

from tests.factories import V1, problem
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.events import queries, reads, work
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.storage.tasks import TaskManager

pytestmark = pytest.mark.django_db(transaction=True)


async def claiming(person, wait, **body):
    return await AsyncClient().post(
        f"{V1}/tasks/claim",
        body,
        content_type="application/json",
        headers={"authorization": f"Token {person.token}", "prefer": f"wait={wait}"},
    )


async def change_during_wait(change, *args):
    while not get_hub().work._lines:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return await sync_to_async(change)(*args)


@pytest.fixture
def no_events(monkeypatch):
    """No event is published, and the next re-read is a minute away."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    monkeypatch.setattr(reads, "DUE_SECONDS", 60)
    monkeypatch.setattr(publisher, "publish", lambda *args: None)


@pytest.mark.usefixtures("no_events")
async def test_a_task_whose_event_was_lost_is_claimed_at_the_deadline(bob):
    await sync_to_async(bob.register)()
    answer, submitted = await asyncio.gather(claiming(bob, 1), change_during_wait(bob.submit))
    assert answer.json()["task"]["id"] == submitted.json()["id"]
    assert answer["Preference-Applied"] == "wait=1"


async def test_a_job_registered_during_the_wait_is_claimed_from_at_the_deadline(bob):
    def register_and_submit():
        bob.register(name="Second")
        return bob.submit(job="open:modifiers:Second")

    await sync_to_async(bob.register)()
    answer, submitted = await asyncio.gather(
        claiming(bob, 1), change_during_wait(register_and_submit)
    )
    assert answer.json()["task"]["id"] == submitted.json()["id"]


async def test_a_worker_deleted_during_the_wait_is_not_found(bob):
    worker = await sync_to_async(bob.worker)()
    await sync_to_async(bob.register)(worker_id=worker)
    answer, _ = await asyncio.gather(
        claiming(bob, 1, worker_id=worker), change_during_wait(Worker.objects.all().delete)
    )
    problem(answer, "worker-not-found", 404)
    assert "Preference-Applied" not in answer


async def test_a_default_worker_deleted_during_the_wait_is_granted_nothing(bob):
    await sync_to_async(bob.register)()
    answer, _ = await asyncio.gather(
        claiming(bob, 1), change_during_wait(Worker.objects.all().delete)
    )
    assert answer.json() == {"task": None}


async def test_the_view_answers_when_the_read_at_the_deadline_fails(bob, monkeypatch):
    def fail(ids):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(work, "workers_worth_claiming", fail)
    await sync_to_async(bob.register)()
    assert (await claiming(bob, 1)).json() == {"task": None}


async def test_workers_whose_waits_end_together_are_read_with_few_queries(bob, monkeypatch):
    read, sizes, tried = queries.workers_worth_claiming, [], []
    claim = TaskManager.grant

    def count(ids):
        sizes.append(len(ids))
        return read(ids)

    def count_claims(self, *args, **kwargs):
        tried.append(1)
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(work, "workers_worth_claiming", count)
    monkeypatch.setattr(TaskManager, "grant", count_claims)
    await sync_to_async(bob.register)()
    answers = await asyncio.gather(*(claiming(bob, 2) for _ in range(30)))
    assert [answer.json() for answer in answers] == [{"task": None}] * 30
    assert sum(sizes) == 30
    assert len(sizes) < 30
    # Only the first claim of each: none is tried at the deadline, because no task is pending.
    assert len(tried) == 30


@pytest.fixture
def held_claims(monkeypatch):
    """Events that block claims, by the claim's number, and the list of claims so far."""
    claim, calls = TaskManager.grant, []
    held: dict[int, threading.Event] = {}

    def hold(self, *args, **kwargs):
        calls.append(1)
        if len(calls) in held:
            held[len(calls)].wait(10)
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(TaskManager, "grant", hold)
    return held, calls


async def is_requeued():
    for _ in range(500):
        task = await Task.objects.aget()
        if (task.attempt, task.status, task.worker_id) == (1, "pending", None):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("start", [True, False])
async def test_tasks_claimed_for_a_client_that_disconnected_during_the_first_claim_are_requeued(
    bob, held_claims, start
):
    held, calls = held_claims
    held[1] = threading.Event()
    await sync_to_async(bob.register)()
    await sync_to_async(bob.submit)()
    leaving = asyncio.create_task(claiming(bob, 20, start=start))
    while not calls:
        await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.sleep(0.1)
    held[1].set()
    assert await is_requeued()


@pytest.mark.usefixtures("no_events")
@pytest.mark.parametrize("on_the_lane", [True, False])
async def test_the_response_at_the_deadline_does_not_wait_for_a_slow_claim(
    bob, held_claims, on_the_lane
):
    held, _ = held_claims
    held[2] = threading.Event()
    await sync_to_async(bob.register)()
    django = get_asgi_application()
    request = {
        "type": "http",
        "method": "POST",
        "path": f"{V1}/tasks/claim",
        "query_string": b"",
        "headers": [
            (b"host", b"testserver"),
            (b"prefer", b"wait=1"),
            (b"authorization", f"Token {bob.token}".encode()),
        ],
    }
    communicator = ApplicationCommunicator(ApiLane(django) if on_the_lane else django, request)
    await communicator.send_input({"type": "http.request", "body": b""})
    await change_during_wait(bob.submit)
    try:
        # The blocked claim goes on only when its event is set, after the response.
        start = await communicator.receive_output(5)
        body = await communicator.receive_output(5)
        assert (start["status"], json.loads(body["body"])) == (200, {"task": None})
    finally:
        held[2].set()
    assert await is_requeued()
