"""Lookups that wait for the first of several tasks to end."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError
from django.test import AsyncClient

from tests.factories import V1
from zndraw_joblib.api.task_bodies import MAX_LOOKUP
from zndraw_joblib.events import ends, queries, reads
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.messages import END_GROUPS
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.models import Task
from zndraw_joblib.storage import lists
from zndraw_joblib.storage.rows import LEFT_OUT

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 20


@pytest.fixture
def ids(bob) -> list[str]:
    """Ids of three pending tasks."""
    bob.register()
    return [bob.submit().json()["id"] for _ in range(3)]


async def looking_up(person, ids, wait=LONG, **fields):
    return await AsyncClient().post(
        f"{V1}/tasks/lookup",
        {"ids": ids, **fields},
        content_type="application/json",
        headers={"authorization": f"Token {person.token}", "prefer": f"wait={wait}"},
    )


async def change_during_wait(change, *args, waiters=1):
    hub = get_hub()
    while sum(len(futures) for futures in hub.ends._waiters.values()) < waiters:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return await sync_to_async(change)(*args)


def statuses(answer):
    return [task["status"] for task in answer.json()]


async def test_the_first_end_of_a_task_is_answered_with_all_tasks(bob, ids):
    began = time.monotonic()
    answer, _ = await asyncio.gather(
        looking_up(bob, ids), change_during_wait(bob.report, ids[1], "cancelled")
    )
    assert [task["id"] for task in answer.json()] == ids
    assert statuses(answer) == ["pending", "cancelled", "pending"]
    assert [task.get("queue_position") for task in answer.json()] == [1, None, 2]
    assert answer["Preference-Applied"] == f"wait={LONG}"
    assert answer["Vary"] == "Prefer"
    # The event woke the lookup, not the re-read or the deadline.
    assert time.monotonic() - began < reads.REREAD_SECONDS
    assert not get_hub().ends._waiters


async def test_the_results_of_a_lookup_that_waited_come_with_its_answer(bob, ids):
    def complete():
        bob.claim()
        bob.report(ids[0], "running")
        bob.report(ids[0], "completed", result=[1])

    answer, _ = await asyncio.gather(
        looking_up(bob, ids, include=["result"]), change_during_wait(complete, waiters=3)
    )
    assert [task["result"] for task in answer.json()] == [[1], None, None]


def test_the_results_of_each_lookup_that_waited_are_bounded(bob, ids, monkeypatch):
    """Lookups whose waits end at once are read by one call. Control: three results for each."""
    monkeypatch.setattr(lists, "MAX_RESULT_BYTES", 100)
    for task_id, size in zip(ids, (60, 60, 30), strict=True):
        bob.claim()
        bob.report(task_id, "running")
        bob.report(task_id, "completed", result="x" * size)
    first, second, third = map(UUID, ids)
    orders = ((first, second, third), (second, first), (third,))
    answers: Any = queries.read_tasks([(order, list, True) for order in orders])
    found = [
        ["left out" if task.result is LEFT_OUT else len(task.result) for task in tasks]
        for tasks in answers
    ]
    assert found == [[60, "left out", "left out"], [60, "left out"], [30]]
    without: Any = queries.read_tasks([((first, second), list, False)])
    assert [task.result for task in without[0]] == [None, None]


async def test_a_lookup_with_an_ended_task_is_answered_at_once(bob, ids):
    await sync_to_async(bob.report)(ids[2], "cancelled")
    answer = await asyncio.wait_for(looking_up(bob, ids), LONG / 2)
    assert statuses(answer) == ["pending", "pending", "cancelled"]
    assert answer["Preference-Applied"] == f"wait={LONG}"


async def test_a_lookup_without_readable_tasks_is_answered_at_once(bob, carol, ids, settings_of):
    settings_of(room_access="tests.waiting.test_waits.no_access")
    answer = await asyncio.wait_for(looking_up(carol, ids), LONG / 2)
    assert answer.json() == []
    assert answer["Preference-Applied"] == f"wait={LONG}"


async def test_the_end_of_an_unreadable_task_does_not_end_the_wait(bob, carol, ids, settings_of):
    settings_of(room_access="tests.factories.by_room")
    job = "carols:modifiers:Rotate"
    await sync_to_async(carol.register)("carols")
    hidden = (await sync_to_async(carol.submit)("carols", job)).json()["id"]

    hub = get_hub()

    def end_both():
        carol.report(hidden, "cancelled")
        time.sleep(0.5)
        assert hub.ends._waiters
        bob.report(ids[0], "cancelled")

    answer, _ = await asyncio.gather(looking_up(bob, [hidden, *ids]), change_during_wait(end_both))
    assert [task["id"] for task in answer.json()] == ids
    assert statuses(answer) == ["cancelled", "pending", "pending"]


async def test_a_lookup_is_answered_with_the_stored_tasks_at_its_deadline(bob, ids):
    began = time.monotonic()
    answer, _ = await asyncio.gather(looking_up(bob, ids, 1), change_during_wait(bob.claim))
    assert time.monotonic() - began < 2
    assert statuses(answer) == ["claimed", "pending", "pending"]
    assert answer["Preference-Applied"] == "wait=1"


async def test_a_wait_of_zero_is_answered_at_once(bob, ids):
    answer = await asyncio.wait_for(looking_up(bob, ids, 0), 5)
    assert statuses(answer) == ["pending"] * 3
    assert answer["Preference-Applied"] == "wait=0"


def test_wsgi_does_not_honour_a_wait(bob, ids):
    answer = bob.send("post", "/tasks/lookup", {"ids": ids}, headers={"prefer": "wait=5"})
    assert statuses(answer) == ["pending"] * 3
    assert "Preference-Applied" not in answer


async def test_an_invalid_lookup_is_answered_at_once(bob):
    answer = await asyncio.wait_for(looking_up(bob, ["x"]), LONG / 2)
    assert answer.status_code == 400
    assert "Preference-Applied" not in answer


async def test_access_is_checked_again_when_the_wait_ends(alice, bob, ids, settings_of):
    """After the change only the worker's owner may read a task, and only the worker's task."""
    claimed = await sync_to_async(bob.claim)()

    def revoke_and_end():
        settings_of(room_access="tests.waiting.test_waits.no_access")
        bob.report(claimed["id"], "cancelled")

    owners, others, _ = await asyncio.gather(
        looking_up(bob, ids), looking_up(alice, ids), change_during_wait(revoke_and_end, waiters=6)
    )
    assert [task["id"] for task in owners.json()] == [claimed["id"]]
    assert others.json() == []


async def test_an_end_during_the_subscription_is_seen(bob, ids, monkeypatch):
    """Control: without the query after joining the groups, the lookup waits for the re-read."""
    join = Groups.join

    async def end_first(self, groups):
        monkeypatch.setattr(Groups, "join", join)
        await sync_to_async(bob.report)(ids[2], "cancelled")
        await join(self, groups)

    monkeypatch.setattr(Groups, "join", end_first)
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    answer = await asyncio.wait_for(looking_up(bob, ids), LONG / 2)
    assert statuses(answer) == ["pending", "pending", "cancelled"]


async def test_the_reread_answers_when_events_are_lost(bob, ids, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.5)
    monkeypatch.setattr(publisher, "publish", lambda *args: None)
    answer, _ = await asyncio.gather(
        looking_up(bob, ids), change_during_wait(bob.report, ids[0], "cancelled")
    )
    assert statuses(answer) == ["cancelled", "pending", "pending"]


async def test_the_reread_answers_while_the_layer_fails(bob, ids, monkeypatch):
    layer = get_channel_layer()

    async def refuse(*args):
        raise ConnectionError("the layer is down")

    for name in ("group_add", "group_send", "group_discard", "new_channel"):
        monkeypatch.setattr(layer, name, refuse)
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.5)
    answer, _ = await asyncio.gather(
        looking_up(bob, ids), change_during_wait(bob.report, ids[0], "cancelled")
    )
    assert statuses(answer) == ["cancelled", "pending", "pending"]


async def test_a_deleted_task_ends_the_wait_and_is_left_out(bob, ids, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    answer, _ = await asyncio.gather(
        looking_up(bob, ids), change_during_wait(Task.objects.filter(pk=ids[0]).delete)
    )
    assert [task["id"] for task in answer.json()] == ids[1:]


async def test_the_view_answers_when_the_read_after_the_wait_fails(bob, ids, monkeypatch):
    def fail(batch):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(ends, "read_tasks", fail)
    answer = await looking_up(bob, ids, 1)
    assert statuses(answer) == ["pending"] * 3


async def test_lookups_of_many_tasks_in_many_rooms_join_each_group_once(bob, root, monkeypatch):
    """500 tasks in 500 rooms belong to at most 256 groups."""

    def submit_to_many_rooms():
        root.register("@global")
        job = "@global:modifiers:Rotate"
        return [bob.submit(f"open-{n}", job).json()["id"] for n in range(MAX_LOOKUP)]

    ids = await sync_to_async(submit_to_many_rooms)()
    layer = get_channel_layer()
    added, group_add = [], layer.group_add

    async def record(group, channel):
        added.append(group)
        await group_add(group, channel)

    monkeypatch.setattr(layer, "group_add", record)
    answers = await asyncio.gather(
        *(looking_up(bob, ids) for _ in range(3)),
        change_during_wait(bob.report, ids[-1], "cancelled", waiters=3 * MAX_LOOKUP),
    )
    for answer in answers[:3]:
        assert statuses(answer) == ["pending"] * (MAX_LOOKUP - 1) + ["cancelled"]
    assert len(added) == len(set(added)) <= END_GROUPS
    assert not get_hub().ends._waiters


async def test_lookups_whose_waits_end_together_are_read_with_few_queries(bob, ids, monkeypatch):
    read, sizes = queries.read_tasks, []

    def count(batch):
        sizes.append(len(batch))
        return read(batch)

    monkeypatch.setattr(ends, "read_tasks", count)
    answers = await asyncio.gather(
        *(looking_up(bob, ids) for _ in range(30)),
        change_during_wait(bob.report, ids[1], "cancelled", waiters=90),
    )
    expected = ["pending", "cancelled", "pending"]
    assert [statuses(answer) for answer in answers[:30]] == [expected] * 30
    assert sum(sizes) == 30
    assert len(sizes) < 15


async def test_the_read_of_a_single_task_overtakes_queued_lookups(db, monkeypatch):
    """Control: with one queue for both, the single task is read last."""

    def read_slowly(keys):
        time.sleep(0.1)
        return [[]] * len(keys)

    monkeypatch.setattr(ends, "read_tasks", read_slowly)
    waits, order = get_hub().ends, []

    async def read(name, count):
        await waits.read([uuid4() for _ in range(count)], list)
        order.append(name)

    lookups = [asyncio.create_task(read("lookup", MAX_LOOKUP)) for _ in range(20)]
    await asyncio.gather(read("single", 1), *lookups)
    assert len(order) == 21
    assert order.index("single") <= 4


async def test_the_lookup_of_a_disconnected_client_leaves_no_waiter(bob, ids):
    leaving = asyncio.create_task(looking_up(bob, ids))
    await change_during_wait(leaving.cancel)
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert not get_hub().ends._waiters
