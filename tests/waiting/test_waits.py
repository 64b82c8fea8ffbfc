"""Requests that wait for a task's end and claims that wait, in one process."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError, connections
from django.test import AsyncClient

from tests.factories import V1
from zndraw_joblib.api.waiting import granted_wait
from zndraw_joblib.events import ends, publisher as publishers, queries, reads
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.work import WorkWaits
from zndraw_joblib.models import Task, Worker
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage.tasks import TaskManager

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 20


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("WAIT = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=5; x=y", 5),
        ("wait=7, wait=9", 7),
        ("wait=0", 0),
        ("wait=500", 120),
        ("wait=" + "9" * 5000, 120),
        ("wait=-1", None),
        ("wait=x", None),
        ("wait=", None),
        ("wait=٣", None),
        ("wait", None),
        ("return=minimal", None),
        ("", None),
        (None, None),
    ],
)
def test_wait_is_read_from_the_prefer_header(header, seconds):
    assert granted_wait(header) == seconds


def headers(person, **more):
    return {"authorization": f"Token {person.token}", **more}


async def waiting(person, task_id, wait=LONG):
    return await AsyncClient().get(
        f"{V1}/tasks/{task_id}", headers=headers(person, prefer=f"wait={wait}")
    )


async def change_during_wait(change, *args):
    hub = get_hub()
    while not hub.ends._waiters and not hub.work._lines:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return await sync_to_async(change)(*args)


async def test_the_end_of_a_task_wakes_its_waiter(bob, running):
    started = time.monotonic()
    answer, _ = await asyncio.gather(
        waiting(bob, running), change_during_wait(bob.report, running, "completed")
    )
    assert answer.json()["status"] == "completed"
    assert answer["Preference-Applied"] == f"wait={LONG}"
    # The event woke the waiter, not the re-read or the deadline.
    assert time.monotonic() - started < reads.REREAD_SECONDS


async def test_a_waiter_is_answered_with_the_stored_task_at_its_deadline(bob, running):
    answer = await waiting(bob, running, 1)
    assert answer.status_code == 200
    assert answer.json()["status"] == "running"
    assert answer["Preference-Applied"] == "wait=1"


async def test_a_terminal_task_and_a_request_without_wait_are_answered_at_once(bob, running):
    plain = await AsyncClient().get(f"{V1}/tasks/{running}", headers=headers(bob))
    assert "Preference-Applied" not in plain
    await sync_to_async(bob.report)(running, "completed")
    started = time.monotonic()
    assert (await waiting(bob, running)).json()["status"] == "completed"
    assert time.monotonic() - started < LONG / 2


async def test_an_error_is_answered_at_once(bob, carol, running):
    answer = await waiting(bob, "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b")
    assert answer.status_code == 404
    assert "Preference-Applied" not in answer


def test_wsgi_does_not_honour_a_wait(bob, running):
    answer = bob.get(f"/tasks/{running}", headers={"prefer": "wait=5"})
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer
    answer = bob.send("post", "/tasks/claim", headers={"prefer": "wait=5"})
    assert answer.json() == {"task": None}
    assert "Preference-Applied" not in answer


async def test_a_sweep_wakes_the_waiters_of_the_tasks_that_it_ends(bob, running, settings_of):
    settings_of(worker_timeout_seconds=0.01)

    def expire_and_sweep():
        Task.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
        sweep()

    answer, _ = await asyncio.gather(waiting(bob, running), change_during_wait(expire_and_sweep))
    assert answer.json()["status"] == "failed"
    assert "timed out" in answer.json()["error"]


async def test_the_reread_wakes_a_waiter_whose_event_was_lost(bob, running, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.5)
    monkeypatch.setattr(publishers.publisher, "publish", lambda *args: None)
    started = time.monotonic()
    answer, _ = await asyncio.gather(
        waiting(bob, running), change_during_wait(bob.report, running, "completed")
    )
    assert answer.json()["status"] == "completed"
    assert time.monotonic() - started < LONG / 2


async def test_the_reread_wakes_waiters_while_the_layer_fails(bob, running, monkeypatch):
    layer = get_channel_layer()

    async def refuse(*args):
        raise ConnectionError("the layer is down")

    for name in ("group_add", "group_send", "group_discard", "new_channel"):
        monkeypatch.setattr(layer, name, refuse)
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.5)
    answer, _ = await asyncio.gather(
        waiting(bob, running), change_during_wait(bob.report, running, "completed")
    )
    assert answer.json()["status"] == "completed"


async def test_an_end_between_the_view_and_the_subscription_is_seen(bob, running, monkeypatch):
    """Control: without the query after joining the groups, the request waits for the re-read."""
    join = Groups.join

    async def end_first(self, groups):
        monkeypatch.setattr(Groups, "join", join)
        await sync_to_async(bob.report)(running, "completed")
        await join(self, groups)

    monkeypatch.setattr(Groups, "join", end_first)
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    answer = await asyncio.wait_for(waiting(bob, running), LONG / 2)
    assert answer.json()["status"] == "completed"


async def test_a_deleted_task_ends_the_wait(bob, running, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    answer, _ = await asyncio.gather(
        waiting(bob, running), change_during_wait(lambda: Task.objects.all().delete())
    )
    assert answer.status_code == 404


async def claiming(person, wait=LONG, **body):
    return await AsyncClient().post(
        f"{V1}/tasks/claim",
        body,
        content_type="application/json",
        headers=headers(person, prefer=f"wait={wait}"),
    )


async def test_a_waiting_claim_is_granted_a_new_task(bob):
    await sync_to_async(bob.register)()
    started = time.monotonic()
    answer, submitted = await asyncio.gather(claiming(bob), change_during_wait(bob.submit))
    assert answer.json()["task"]["id"] == submitted.json()["id"]
    assert answer["Preference-Applied"] == f"wait={LONG}"
    assert time.monotonic() - started < reads.REREAD_SECONDS
    assert (await claiming(bob, 1)).json() == {"task": None}


async def test_a_requeued_task_wakes_a_claimer(bob, running):
    requeue = Task.objects.filter(pk=running).requeue
    answer, _ = await asyncio.gather(claiming(bob), change_during_wait(requeue))
    assert answer.json()["task"]["attempt"] == 2


async def test_a_claimer_is_woken_when_the_worker_that_held_a_task_is_deleted(bob, monkeypatch):
    """Only the event can wake it, because the next re-read is a minute away."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    monkeypatch.setattr(reads, "DUE_SECONDS", 60)

    def hold():
        bob.register()
        holder = bob.worker()
        bob.register(worker_id=holder)
        bob.submit()
        return holder, bob.claim(holder)

    holder, held = await sync_to_async(hold)()
    answer, deleted = await asyncio.gather(
        claiming(bob), change_during_wait(bob.send, "delete", f"/workers/{holder}")
    )
    assert deleted.status_code == 204
    task = answer.json()["task"]
    assert (task["id"], task["attempt"]) == (held["id"], 2)


CLAIMERS, ROUNDS = 10, 3


async def claims_tried(bob, monkeypatch, limit):
    """The number of claims that ten waiting claimers try while `limit` tasks arrive three times."""
    # Only events wake claimers, because the next re-read is a minute away.
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    monkeypatch.setattr(reads, "DUE_SECONDS", 60)
    await sync_to_async(bob.register)()
    claim, tried = TaskManager.grant, []

    def count(self, *args, **kwargs):
        tried.append(args)
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(TaskManager, "grant", count)
    waiters = {asyncio.create_task(claiming(bob, limit=limit)) for _ in range(CLAIMERS)}
    hub = get_hub()
    while sum(len(queue) for queue in hub.work._lines.values()) < CLAIMERS:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    # Each has tried one claim before it waits.
    assert len(tried) == CLAIMERS
    granted = []
    path = "/rooms/open/tasks/open:modifiers:Rotate"
    for number in range(1, ROUNDS + 1):
        await sync_to_async(bob.send)("post", path, [{"payload": {}}] * limit)
        while len(granted) < limit * number:
            done, waiters = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            granted += [task["id"] for answer in done for task in answer.result().json()["tasks"]]
    # Claimers that were woken without need have tried their claims by then.
    await asyncio.sleep(0.3)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert len(set(granted)) == len(granted) == ROUNDS * limit
    return len(tried) - CLAIMERS


@pytest.mark.parametrize("limit", [1, 3])
async def test_one_claimer_is_woken_for_each_task(bob, monkeypatch, limit):
    assert await claims_tried(bob, monkeypatch, limit) <= ROUNDS * limit


@pytest.mark.parametrize("limit", [1, 3])
async def test_all_claimers_are_woken_for_each_task_without_the_line(bob, monkeypatch, limit):
    """Control: an event that wakes all claimers costs a claim of each in every round."""
    wake = WorkWaits.wake

    def wake_all(self, job, task):
        for _ in range(len(self._lines.get(job, ()))):
            wake(self, job, task)

    monkeypatch.setattr(WorkWaits, "wake", wake_all)
    tried = await claims_tried(bob, monkeypatch, limit)
    assert tried >= sum(CLAIMERS - granted for granted in range(ROUNDS))


async def test_a_wakeup_of_a_disconnected_claimer_is_passed_to_the_next(bob):
    await sync_to_async(bob.register)()
    hub = get_hub()
    first = asyncio.create_task(claiming(bob))
    await change_during_wait(lambda: None)
    second = asyncio.create_task(claiming(bob))
    while sum(len(queue) for queue in hub.work._lines.values()) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    wake = hub.work.wake

    def wake_and_leave(job, task):
        hub.work.wake = wake
        wake(job, task)
        first.cancel()

    hub.work.wake = wake_and_leave
    started = time.monotonic()
    submitted = await sync_to_async(bob.submit)()
    answer = await second
    assert answer.json()["task"]["id"] == submitted.json()["id"]
    assert time.monotonic() - started < reads.REREAD_SECONDS


async def test_a_claimer_whose_job_was_withdrawn_passes_its_wakeup_on(bob, monkeypatch):
    """Only the passed wakeup can wake the second, because the next re-read is a minute away.

    Control: failed while a claimer that was granted nothing kept the wakeup.
    """
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    monkeypatch.setattr(reads, "DUE_SECONDS", 60)
    await sync_to_async(bob.register)()
    worker = await sync_to_async(bob.worker)()
    await sync_to_async(bob.register)(worker_id=worker)
    first = asyncio.create_task(claiming(bob, worker_id=worker))
    await change_during_wait(lambda: None)
    second = asyncio.create_task(claiming(bob))
    while sum(len(queue) for queue in get_hub().work._lines.values()) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    path = f"/workers/{worker}/jobs/open:modifiers:Rotate"
    assert (await sync_to_async(bob.send)("delete", path)).status_code == 204
    started = time.monotonic()
    submitted = await sync_to_async(bob.submit)()
    assert (await second).json()["task"]["id"] == submitted.json()["id"]
    # It claims again, because its worker may offer other jobs by now.
    assert (await first).json() == {"task": None}
    assert time.monotonic() - started < LONG / 2


async def test_a_claim_by_a_deleted_worker_is_not_found(bob):
    worker = await sync_to_async(bob.worker)()
    await sync_to_async(bob.register)(worker_id=worker)

    await sync_to_async(Worker.objects.all().delete)()
    assert (await claiming(bob, 1, worker_id=worker)).status_code == 404


def test_a_publisher_without_a_server_uses_one_thread_and_works_after_a_fork(bob, running):
    publisher = publishers.Publisher()
    for _ in range(3):
        publisher.publish("joblib.test", "x", ["id"])
    publisher.flush()
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("joblib-publisher") >= 1
    before = threading.active_count()
    publisher.publish("joblib.test", "x", ["id"])
    publisher.flush()
    assert threading.active_count() == before
    publisher.reset()
    publisher.publish("joblib.test", "x", ["id"])
    publisher.flush()
    assert not publisher._unsent_count


def test_messages_that_a_loop_left_when_it_ended_are_sent_by_another(monkeypatch, caplog):
    """Control: `flush` waited in vain, and the messages were sent with the next one, if any."""
    sent = []

    class Layer:
        async def group_send(self, group, message):
            if not sent:
                sent.append("begun")
                await asyncio.Event().wait()
            sent.append(message["entries"])

    layer = Layer()
    monkeypatch.setattr(publishers, "get_channel_layer", lambda: layer)
    publisher = publishers.Publisher()

    async def publish():
        publisher.attach(asyncio.get_running_loop())
        publisher.publish("joblib.test", "x", ["first"])
        while not sent:
            await asyncio.sleep(0)
        publisher.publish("joblib.test", "x", ["second"])

    asyncio.run(publish())
    publisher.flush()
    assert sent == ["begun", ["second"]]
    assert not caplog.records


def test_the_number_of_unsent_events_is_bounded(monkeypatch, caplog):
    monkeypatch.setattr(publishers, "MAX_UNSENT", 0)
    publishers.Publisher().publish("joblib.test", "x", ["id"])
    assert "dropping" in caplog.text


async def test_throttles_count_a_waiting_request_once(bob, running, monkeypatch):
    from rest_framework.throttling import UserRateThrottle

    from zndraw_joblib.api.base import JobLibView

    class Once(UserRateThrottle):
        rate = "1/hour"
        scope = "once"

    monkeypatch.setattr(JobLibView, "throttle_classes", [Once])
    assert (await waiting(bob, running, 1)).status_code == 200
    assert (await waiting(bob, running, 1)).status_code == 429


async def test_hosts_with_atomic_requests_are_served(bob, running, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    assert (await waiting(bob, running, 1)).status_code == 200
    assert (await claiming(bob, 0)).status_code == 200
    answer = await sync_to_async(bob.report)(running, "completed")
    assert answer.status_code == 200


async def test_tasks_granted_to_a_disconnected_client_are_requeued_at_once(bob, monkeypatch):
    await sync_to_async(bob.register)()
    claim, calls, hold = TaskManager.grant, [], threading.Event()

    def slow(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            hold.wait(10)
        return claim(self, *args, **kwargs)

    monkeypatch.setattr(TaskManager, "grant", slow)
    leaving = asyncio.create_task(claiming(bob))
    await change_during_wait(lambda: None)
    await sync_to_async(bob.submit, thread_sensitive=False)()
    # The event has woken the second claim, and the client disconnects while the claim runs.
    while len(calls) < 2:
        await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.sleep(0.1)
    hold.set()
    for _ in range(500):
        task = await Task.objects.aget()
        if task.attempt == 1 and task.status == "pending":
            break
        await asyncio.sleep(0.01)
    assert (task.status, task.attempt, task.worker_id) == ("pending", 1, None)


def no_access(request, room_id, action):
    return False


async def test_access_is_checked_again_when_the_wait_ends(alice, bob, running, settings_of):
    def revoke_and_end():
        settings_of(room_access="tests.waiting.test_waits.no_access")
        return bob.report(running, "completed")

    owners, others, ended = await asyncio.gather(
        waiting(bob, running), waiting(alice, running), change_during_wait(revoke_and_end)
    )
    assert ended.status_code == 200
    assert owners.json()["status"] == "completed"
    assert (others.status_code, others.json()["type"]) == (404, "/v1/problems/task-not-found")
    assert "Preference-Applied" not in others


async def test_the_view_answers_when_the_read_after_the_wait_fails(bob, running, monkeypatch):
    def fail(batch):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(ends, "read_tasks", fail)
    answer = await waiting(bob, running, 1)
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


async def test_tasks_whose_waits_end_together_are_read_with_few_queries(bob, running, monkeypatch):
    read, sizes = queries.read_tasks, []

    def count(batch):
        sizes.append(len(batch))
        return read(batch)

    monkeypatch.setattr(ends, "read_tasks", count)
    waiters = [asyncio.create_task(waiting(bob, running)) for _ in range(30)]
    hub = get_hub()
    while sum(len(waiters) for waiters in hub.ends._waiters.values()) < 30:
        await asyncio.sleep(0.01)
    await sync_to_async(bob.report)(running, "completed")
    answers = await asyncio.gather(*waiters)
    assert {answer.json()["status"] for answer in answers} == {"completed"}
    assert sum(sizes) == 30
    assert len(sizes) < 15
