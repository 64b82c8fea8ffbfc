"""Requests that wait for more text in a log."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.layers import get_channel_layer
from django.core.asgi import get_asgi_application
from django.db import OperationalError

from tests.factories import V1
from tests.waiting.asgi import Site
from tests.waiting.test_lane import Host, answer, lower, scope, token
from tests.waiting.test_tenants import response_after, tenants  # noqa: F401
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.events import logs, queries
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.models import Task, TaskLogChunk

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 20


@pytest.fixture(autouse=True)
def fast_poll(monkeypatch):
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.2)


@pytest.fixture(params=["lane", "plain"])
def application(request):
    return ApiLane(Host()) if request.param == "lane" else get_asgi_application()


def write(person, task_id, text):
    body = {"attempt": 1, "text": text}
    assert person.send("post", f"/tasks/{task_id}/log", body).status_code == 204


def waiting(person, task_id, offset=0, wait=LONG, **headers):
    path = f"{V1}/tasks/{task_id}/log"
    request = scope(path, prefer=f"wait={wait}".encode(), **token(person), **headers)
    return {**request, "query_string": f"offset={offset}".encode()}


async def send(application, request):
    """The status, headers and JSON of the response, which must come within `LONG` / 2 seconds."""
    communicator = ApplicationCommunicator(application, request)
    await communicator.send_input({"type": "http.request", "body": b""})
    async with asyncio.timeout(LONG / 2):
        status, headers, body = await answer(communicator)
    await communicator.wait()
    return status, lower(headers), json.loads(body)


async def during_the_wait(change, *args, number=1):
    while sum(map(len, get_hub().logs._waiters.values())) < number:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return await sync_to_async(change)(*args)


async def test_more_text_ends_the_wait(bob, running, application):
    await sync_to_async(write)(bob, running, "one\n")
    (status, headers, part), _ = await asyncio.gather(
        send(application, waiting(bob, running, 4)),
        during_the_wait(write, bob, running, "two\n"),
    )
    assert (status, headers[b"preference-applied"]) == (200, b"wait=20")
    assert part == {"offset": 4, "text": "two\n", "next_offset": 8, "ended": False}


@pytest.mark.parametrize("status", ["completed", "cancelled"])
async def test_the_end_of_the_task_ends_the_wait(bob, running, application, status):
    (code, _, part), _ = await asyncio.gather(
        send(application, waiting(bob, running)),
        during_the_wait(bob.report, running, status),
    )
    assert code == 200
    assert part == {"offset": 0, "text": "", "next_offset": 0, "ended": True}


async def test_the_deletion_of_the_task_ends_the_wait(bob, running, application):
    (status, headers, part), _ = await asyncio.gather(
        send(application, waiting(bob, running)),
        during_the_wait(Task.objects.filter(pk=running).delete),
    )
    assert (status, part["type"]) == (404, "/v1/problems/task-not-found")
    assert b"preference-applied" not in headers


async def test_text_that_is_there_and_an_ended_task_are_answered_at_once(bob, running, application):
    await sync_to_async(write)(bob, running, "text")
    request = waiting(bob, running, 2)
    status, headers, part = await send(application, request)
    assert (status, part["text"], part["ended"]) == (200, "xt", False)
    assert headers[b"preference-applied"] == b"wait=20"
    await sync_to_async(bob.report)(running, "completed")
    _, _, part = await send(application, waiting(bob, running, 4))
    assert part == {"offset": 4, "text": "", "next_offset": 4, "ended": True}


@pytest.mark.parametrize("offset", [0, 10])
async def test_a_wait_without_more_text_ends_at_its_deadline(bob, running, application, offset):
    started = time.monotonic()
    status, headers, part = await send(application, waiting(bob, running, offset, wait=1))
    assert 0.7 <= time.monotonic() - started < 2
    assert (status, headers[b"preference-applied"]) == (200, b"wait=1")
    assert part == {"offset": offset, "text": "", "next_offset": offset, "ended": False}


async def test_text_before_the_offset_does_not_end_the_wait(bob, running, application):
    (_, _, part), _ = await asyncio.gather(
        send(application, waiting(bob, running, 10, wait=1)),
        during_the_wait(write, bob, running, "x" * 10),
    )
    assert (part["offset"], part["text"]) == (10, "")


async def test_a_change_of_the_task_does_not_end_the_wait(bob, running, application):
    (_, _, part), _ = await asyncio.gather(
        send(application, waiting(bob, running, wait=1)),
        during_the_wait(lambda: bob.report(running, "running", progress=0.5)),
    )
    assert (part["text"], part["ended"]) == ("", False)


async def test_the_wait_goes_on_over_attempts(bob, running, application):
    def again():
        Task.objects.filter(pk=running).requeue()
        assert bob.claim()["attempt"] == 2
        time.sleep(0.5)
        body = {"attempt": 2, "text": "again"}
        assert bob.send("post", f"/tasks/{running}/log", body).status_code == 204

    (_, _, part), _ = await asyncio.gather(
        send(application, waiting(bob, running)), during_the_wait(again)
    )
    assert (part["text"], part["ended"]) == ("again", False)


async def test_waits_need_no_channel_layer(bob, running, application, monkeypatch):
    layer = get_channel_layer()

    async def fail(*args):
        raise ConnectionError("the layer is away")

    for name in ("group_add", "group_send", "new_channel", "receive"):
        monkeypatch.setattr(layer, name, fail)
    (_, _, part), _ = await asyncio.gather(
        send(application, waiting(bob, running)),
        during_the_wait(write, bob, running, "x"),
    )
    assert part["text"] == "x"


async def test_waiters_share_reads_and_hold_no_threads(bob, running, application, monkeypatch):
    """Control: with a read for each waiter `longer_logs` ran 40 times in each interval."""
    await sync_to_async(write)(bob, running, "one\n")
    # Threads of earlier tests are not those of the waiters.
    threads_before = threading.active_count()
    looked, parts = [], []
    look, read = queries.longer_logs, TaskLogChunk.objects.read

    def counted(keys):
        looked.append(len(keys))
        return look(keys)

    def counted_read(*args):
        parts.append(args)
        return read(*args)

    monkeypatch.setattr(logs, "longer_logs", counted)
    waiters = [asyncio.create_task(send(application, waiting(bob, running, 4))) for _ in range(40)]

    def change():
        looked.clear()
        time.sleep(1)
        threads = threading.active_count()
        assert len(looked) <= 7, looked
        assert set(looked) <= {1}
        monkeypatch.setattr(
            type(TaskLogChunk.objects), "read", lambda _, *args: counted_read(*args)
        )
        write(bob, running, "two\n")
        return threads

    threads = await during_the_wait(change, number=40)
    assert {part["text"] for _, _, part in await asyncio.gather(*waiters)} == {"two\n"}
    # Some waiters may wake after a batch has begun.
    assert len(parts) <= 5
    assert threads - threads_before < 20


async def test_access_is_checked_again_at_the_end_of_the_wait(
    people, running, application, settings_of
):
    settings_of(room_access="tests.waiting.test_logs.may_read")
    reader = await sync_to_async(people)("reader")
    allowed.add("reader")
    (status, _, part), _ = await asyncio.gather(
        send(application, waiting(reader, running, wait=1)),
        during_the_wait(allowed.clear),
    )
    assert (status, part["type"]) == (404, "/v1/problems/task-not-found")


#: Names of the users who may read.
allowed: set[str] = set()


def may_read(request, room_id, action):
    return request.user.username in allowed


async def test_a_failed_read_of_the_sizes_ends_no_wait(bob, running, application, monkeypatch):
    look, failures = queries.longer_logs, iter(range(3))

    def failing(keys):
        if next(failures, None) is not None:
            raise OperationalError("the database is away")
        return look(keys)

    monkeypatch.setattr(logs, "longer_logs", failing)
    (_, _, part), _ = await asyncio.gather(
        send(application, waiting(bob, running)),
        during_the_wait(write, bob, running, "x"),
    )
    assert part["text"] == "x"


async def test_a_client_that_left_leaves_no_waiter(bob, running, application):
    communicator = ApplicationCommunicator(application, waiting(bob, running))
    await communicator.send_input({"type": "http.request", "body": b""})
    while not get_hub().logs._waiters:
        await asyncio.sleep(0.01)
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait(10)
    assert not get_hub().logs._waiters


async def test_a_wait_reads_the_rows_of_its_tenant(bob, running, application, tenants):  # noqa: F811
    part = await response_after(
        application,
        waiting(bob, running, x_tenant=b"a"),
        lambda hub: hub.logs._waiters,
        lambda: TaskLogChunk.objects.append(
            Task.objects.get().pk, 1, None, "text", timedelta(seconds=60), 100
        ),
    )
    assert part["text"] == "text"
    assert any(thread.startswith("joblib-reads") for thread, _ in tenants)
    assert {tenant for _, tenant in tenants} == {"a"}


@pytest.mark.parametrize("on_the_lane", [False, True], ids=["plain", "lane"])
async def test_a_write_does_not_wait(bob, running, on_the_lane):
    body = {"attempt": 1, "text": "text"}
    answer = await Site(on_the_lane).request(
        bob, "POST", f"/tasks/{running}/log", body, prefer="wait=20"
    )
    assert answer.status == 204
    assert "preference-applied" not in answer.headers


def test_wsgi_does_not_honour_the_wait(bob, running):
    answer = bob.get(f"/tasks/{running}/log", headers={"prefer": "wait=5"})
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer
