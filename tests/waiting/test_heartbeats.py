"""Heartbeats that wait until a task of their worker is lost or cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from tests.waiting.asgi import Site
from zndraw_joblib.events import publisher as publishers, reads
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.models import Task
from zndraw_joblib.services.sweep import sweep

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 20


@pytest.fixture(params=[False, True], ids=["plain", "lane"])
def site(request):
    return Site(request.param)


@pytest.fixture
def only_events(monkeypatch):
    """Only events wake waiters, because the next re-read is a minute away."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)


async def beating(site, person, tasks, wait=LONG, worker_id=None):
    body = {"tasks": [{"id": task_id, "attempt": attempt} for task_id, attempt in tasks]}
    path = f"/workers/{worker_id or person.identity}"
    return await site.request(person, "PATCH", path, body, prefer=f"wait={wait}")


async def change_during_wait(change, *args, **kwargs):
    hub = get_hub()
    while not hub.stops._waiting:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return await sync_to_async(change)(*args, **kwargs)


@pytest.mark.usefixtures("only_events")
async def test_a_cancel_wakes_the_heartbeat_that_lists_the_task(site, alice, bob):
    def hold():
        bob.register()
        task_id = alice.submit().json()["id"]
        bob.claim()
        return task_id

    task_id = await sync_to_async(hold)()
    answer, cancelled = await asyncio.gather(
        beating(site, bob, [(task_id, 1)]), change_during_wait(alice.report, task_id, "cancelled")
    )
    assert cancelled.status_code == 200
    assert answer.status == 200
    assert (answer.json()["cancelled"], answer.json()["lost"]) == ([task_id], [])
    assert answer.headers["preference-applied"] == f"wait={LONG}"


def expire(task_id):
    Task.objects.filter(pk=task_id).update(lease_expires_at="2020-01-01T00:00:00Z")
    sweep()


def requeue(task_id):
    Task.objects.filter(pk=task_id).requeue()


def time_out(task_id):
    Task.objects.filter(pk=task_id).update(timeout_seconds=1)
    expire(task_id)


@pytest.mark.usefixtures("only_events")
@pytest.mark.parametrize("take", [expire, requeue, time_out])
@pytest.mark.parametrize("retries", [0, 1])
async def test_a_lost_task_wakes_the_heartbeat_that_lists_it(bob, running, take, retries):
    await sync_to_async(Task.objects.update)(retries=retries, retries_left=retries)
    answer, _ = await asyncio.gather(
        beating(Site(True), bob, [(running, 1)]), change_during_wait(take, running)
    )
    assert (answer.json()["lost"], answer.json()["cancelled"]) == ([running], [])


@pytest.mark.usefixtures("only_events")
async def test_the_removal_of_the_worker_wakes_its_heartbeat(bob):
    def hold():
        worker = bob.worker()
        bob.register(worker_id=worker)
        bob.submit()
        return worker, bob.claim(worker)["id"]

    worker, task_id = await sync_to_async(hold)()
    answer, _ = await asyncio.gather(
        beating(Site(True), bob, [(task_id, 1)], worker_id=worker),
        change_during_wait(bob.send, "delete", f"/workers/{worker}"),
    )
    assert answer.json()["lost"] == [task_id]


async def test_a_heartbeat_is_answered_with_the_present_state_after_its_wait(site, bob, running):
    began = time.monotonic()
    answer = await beating(site, bob, [(running, 1)], wait=1)
    assert time.monotonic() - began > 0.7
    assert answer.json() == {
        "id": bob.identity,
        "last_heartbeat": answer.json()["last_heartbeat"],
        "lost": [],
        "cancelled": [],
    }
    assert answer.headers["preference-applied"] == "wait=1"


async def test_a_task_that_was_lost_or_cancelled_before_is_answered_at_once(site, bob, running):
    await sync_to_async(bob.report)(running, "cancelled")
    began = time.monotonic()
    answer = await beating(site, bob, [(running, 1)])
    assert answer.json()["cancelled"] == [running]
    answer = await beating(site, bob, [(running, 7)])
    assert answer.json()["lost"] == [running]
    assert time.monotonic() - began < LONG / 2


@pytest.mark.parametrize("status", ["completed", "failed"])
@pytest.mark.parametrize("retries", [None, 1])
async def test_a_task_that_the_worker_ended_itself_is_neither_lost_nor_cancelled(
    bob, running, monkeypatch, status, retries
):
    """The re-read sees the end, too, and must not answer."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.2)
    await sync_to_async(Task.objects.update)(retries=retries, retries_left=retries or 0)
    began = time.monotonic()
    answer, report = await asyncio.gather(
        beating(Site(True), bob, [(running, 1)], wait=1),
        change_during_wait(bob.report, running, status, attempt=1, retry_after=60)
        if status == "failed"
        else change_during_wait(bob.report, running, status, attempt=1),
    )
    assert report.status_code == 200
    assert time.monotonic() - began > 0.7
    assert (answer.json()["lost"], answer.json()["cancelled"]) == ([], [])
    # Neither is one that had ended before the heartbeat.
    answer = await beating(Site(True), bob, [(running, 1)], wait=1)
    assert (answer.json()["lost"], answer.json()["cancelled"]) == ([], [])


async def test_tasks_that_are_not_listed_do_not_end_the_wait(bob, running):
    def claim_another():
        bob.submit()
        return bob.claim()["id"]

    other = await sync_to_async(claim_another)()
    answer, _ = await asyncio.gather(
        beating(Site(True), bob, [(running, 1)], wait=1),
        change_during_wait(bob.report, other, "cancelled"),
    )
    assert (answer.json()["lost"], answer.json()["cancelled"]) == ([], [])


async def test_the_leases_are_renewed_when_the_wait_begins(bob, running):
    await sync_to_async(Task.objects.update)(lease_expires_at="2020-01-01T00:00:00Z")

    def lease():
        return Task.objects.get().lease_expires_at.year

    answer, year = await asyncio.gather(
        beating(Site(True), bob, [(running, 1)], wait=1), change_during_wait(lease)
    )
    assert answer.status == 200
    assert year > 2020


async def test_a_heartbeat_waits_for_a_third_of_the_lease_at_most(site, bob, running, settings_of):
    settings_of(worker_timeout_seconds=4, heartbeat_interval_seconds=1)
    began = time.monotonic()
    answer = await beating(site, bob, [(running, 1)])
    assert answer.headers["preference-applied"] == "wait=1"
    assert time.monotonic() - began < LONG / 2


async def test_a_heartbeat_without_a_list_does_not_wait(site, bob, running):
    began = time.monotonic()
    for body in (None, {}):
        answer = await site.request(
            bob, "PATCH", f"/workers/{bob.identity}", body, prefer=f"wait={LONG}"
        )
        assert set(answer.json()) == {"id", "last_heartbeat"}
        assert "preference-applied" not in answer.headers
    assert time.monotonic() - began < LONG / 2


async def test_a_report_does_not_wait(site, bob, running):
    answer = await site.request(
        bob, "PATCH", f"/tasks/{running}", {"status": "running", "attempt": 1}, prefer="wait=9"
    )
    assert answer.status == 200
    assert "preference-applied" not in answer.headers


def test_wsgi_does_not_let_a_heartbeat_wait(bob, running):
    body = {"tasks": [{"id": running, "attempt": 1}]}
    answer = bob.send("patch", f"/workers/{bob.identity}", body, headers={"prefer": "wait=9"})
    assert answer.json()["lost"] == []
    assert "Preference-Applied" not in answer


async def test_an_unknown_worker_is_not_found_at_once(site, bob):
    answer = await beating(site, bob, [], worker_id="nope")
    assert answer.status == 404
    assert "preference-applied" not in answer.headers


async def test_a_cancel_before_the_subscription_is_seen(bob, running, monkeypatch):
    """Control: without the query after joining the group, the heartbeat waits for the re-read."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    join = Groups.join

    async def cancel_first(self, groups):
        monkeypatch.setattr(Groups, "join", join)
        await sync_to_async(bob.report)(running, "cancelled")
        await join(self, groups)

    monkeypatch.setattr(Groups, "join", cancel_first)
    answer = await asyncio.wait_for(beating(Site(True), bob, [(running, 1)]), LONG / 2)
    assert answer.json()["cancelled"] == [running]


async def test_the_reread_wakes_a_heartbeat_whose_event_was_lost(bob, running, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.5)
    monkeypatch.setattr(publishers.publisher, "publish", lambda *args: None)
    began = time.monotonic()
    answer, _ = await asyncio.gather(
        beating(Site(True), bob, [(running, 1)]),
        change_during_wait(bob.report, running, "cancelled"),
    )
    assert answer.json()["cancelled"] == [running]
    assert time.monotonic() - began < LONG / 2


async def test_the_view_answers_when_the_read_after_the_wait_fails(bob, running, monkeypatch):
    def fail(held):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(get_hub().stops._batched, "_read", fail)
    answer = await beating(Site(True), bob, [(running, 1)], wait=1)
    assert (answer.status, answer.json()["lost"]) == (200, [])


@pytest.fixture
def published(monkeypatch):
    """The types of the messages that are published."""
    kinds = []
    monkeypatch.setattr(
        publishers.publisher, "publish", lambda group, kind, entries: kinds.append(kind)
    )
    return kinds


def test_ordinary_ends_are_not_published_to_heartbeats(bob, running, published):
    bob.report(running, "completed", attempt=1)
    bob.submit()
    bob.report(bob.claim()["id"], "running", attempt=1)
    bob.report(str(Task.objects.get(status="running").pk), "failed", attempt=1, error="e")
    assert set(published) == {"tasks.ended", "tasks.pending"}


def test_a_cancelled_task_that_no_worker_held_is_not_published_to_heartbeats(bob, published):
    bob.register()
    bob.report(bob.submit().json()["id"], "cancelled")
    assert set(published) == {"tasks.ended", "tasks.pending"}


def test_a_task_of_another_identity_is_lost_to_a_worker_that_lists_it(bob, carol, running):
    """The caller may not learn whether the task ended, was cancelled or runs on."""
    worker = carol.worker()
    body = {"tasks": [{"id": running, "attempt": 1}]}
    for status in ("running", "cancelled"):
        bob.report(running, status)
        reply = carol.send("patch", f"/workers/{worker}", body).json()
        assert (reply["lost"], reply["cancelled"]) == ([running], [])
