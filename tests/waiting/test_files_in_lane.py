"""Uploads and downloads in `ApiLane`, by their ASGI messages."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator

from tests.factories import V1
from tests.waiting.test_lane import Host, answer, get_response, lower, scope, token
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.contrib.bodies import StreamedBody
from zndraw_joblib.models import FileToDelete, Task, TaskFile
from zndraw_joblib.storage.files import StoredPart

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    settings.STORAGES = {
        **settings.STORAGES,
        "zndraw_joblib": {
            "BACKEND": "tests.storages.Local",
            "OPTIONS": {"location": str(tmp_path)},
        },
    }
    return tmp_path


def stored(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def put(person, task, attempt=1, **headers):
    path = f"{V1}/tasks/{task}/files/a.txt"
    request = scope(path, "PUT", content_type=b"text/plain", **token(person), **headers)
    return {**request, "query_string": f"attempt={attempt}".encode()}


def get(person, task, **headers):
    return scope(f"{V1}/tasks/{task}/files/a.txt", **token(person), **headers)


async def test_a_chunked_body_is_stored_and_comes_back(bob, running):
    parts = [part(b"x" * 100_000) for _ in range(5)]
    status, _, body = await get_response(Host(), put(bob, running), *parts, part(b"end", False))
    assert status == 201, body
    assert json.loads(body)["size"] == 500_003
    status, headers, body = await get_response(Host(), get(bob, running))
    assert (status, body) == (200, b"x" * 500_000 + b"end")
    assert lower(headers)[b"content-length"] == b"500003"
    status, _, body = await get_response(Host(), get(bob, running, range=b"bytes=-3"))
    assert (status, body) == (206, b"end")


async def test_the_rest_of_a_refused_body_is_discarded_before_the_answer(bob, running):
    lane = ApplicationCommunicator(ApiLane(Host()), put(bob, running, attempt=7))
    await lane.send_input(part(b"x"))
    await asyncio.sleep(0.3)
    assert lane.output_queue.empty()
    await lane.send_input(part(b"x", False))
    status, _, body = await answer(lane)
    assert (status, json.loads(body)["type"]) == (409, "/v1/problems/lease-lost")


async def test_a_body_that_never_ends_is_refused(bob, running, settings_of, folder):
    settings_of(max_file_bytes=1000, max_body_bytes=1000)
    status, _, body = await get_response(Host(), put(bob, running), *[part(b"x" * 900)] * 30)
    assert (status, json.loads(body)["type"]) == (413, "/v1/problems/file-too-large")
    assert stored(folder) == []


async def test_a_client_that_leaves_midway_leaves_nothing(bob, running, folder):
    for length in ({}, {"content_length": b"200"}):
        messages = part(b"x" * 100), {"type": "http.disconnect"}
        await get_response(Host(), put(bob, running, **length), *messages)
    assert stored(folder) == []
    assert not await sync_to_async(TaskFile.objects.exists)()
    assert not await sync_to_async(FileToDelete.objects.exists)()


async def test_the_lease_is_renewed_before_the_body_has_arrived(bob, running):
    past = "2020-01-01T00:00Z"
    await sync_to_async(Task.objects.update)(lease_expires_at=past)
    lane = ApplicationCommunicator(ApiLane(Host()), put(bob, running))
    await lane.send_input(part(b"x"))
    for _ in range(100):
        await asyncio.sleep(0.05)
        task = await sync_to_async(Task.objects.get)(pk=running)
        if task.lease_expires_at.year > 2020:
            break
    else:
        raise AssertionError("the lease was not renewed")
    await lane.send_input(part(b"x", False))
    assert (await answer(lane))[0] == 201


async def test_slow_uploads_leave_the_threads_of_other_requests_alone(bob, running, settings_of):
    settings_of(api_threads=1)
    lane = ApiLane(Host())
    slow = ApplicationCommunicator(lane, put(bob, running))
    await slow.send_input(part(b"x"))
    await asyncio.sleep(0.1)
    quick = ApplicationCommunicator(lane, scope(f"{V1}/workers", **token(bob)))
    await quick.send_input(part(b"", False))
    assert (await answer(quick))[0] == 200
    await slow.send_input(part(b"y", False))
    assert (await answer(slow))[0] == 201


async def test_the_thread_of_an_upload_ends_when_the_server_cancels_it(bob, running, folder):
    """Control: without `abort` the thread waited for ever, and the process with it."""
    lane = ApplicationCommunicator(ApiLane(Host()), put(bob, running))
    await lane.send_input(part(b"x"))
    await asyncio.sleep(0.3)
    assert uploads()
    lane.future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lane.future
    for _ in range(100):
        await asyncio.sleep(0.05)
        if not any(is_busy(thread) for thread in uploads()):
            break
    else:
        raise AssertionError("the thread still waits")
    assert stored(folder) == []


def uploads():
    return [each for each in threading.enumerate() if each.name.startswith("joblib-upload")]


def is_busy(thread):
    """Whether a thread of a pool works, rather than waits for work."""
    frame = sys._current_frames().get(thread.ident)
    names = []
    while frame:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return "respond" in names


async def test_a_download_ends_when_the_client_leaves(bob, running, monkeypatch):
    closed = threading.Event()
    whole = part(b"x" * 3_000_000, False)
    assert (await get_response(Host(), put(bob, running), whole))[0] == 201
    close = StoredPart.close

    def record(self):
        close(self)
        closed.set()

    monkeypatch.setattr(StoredPart, "close", record)
    sent = []

    async def receive():
        return await incoming.get()

    async def send(message):
        sent.append(message)
        await asyncio.sleep(0.05)

    incoming = asyncio.Queue()
    await incoming.put(part(b"", False))
    download = asyncio.ensure_future(ApiLane(Host())(get(bob, running), receive, send))
    while len(sent) < 3:
        await asyncio.sleep(0.01)
    await incoming.put({"type": "http.disconnect"})
    await asyncio.wait_for(download, 2)
    assert closed.is_set()
    assert sum(len(message.get("body", b"")) for message in sent) < 3_000_000


async def test_a_body_that_the_server_cancelled_is_not_read_on():
    """Control: a thread that wrote to the storage at the time of the cancel read on after it."""

    async def receive():
        return part(b"more")

    body = StreamedBody(receive)
    assert await asyncio.to_thread(body.read, 10) == b"more"
    body.abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(body.read, 10)


@pytest.mark.parametrize("name", [b"%ff", b"\xff", b"%C0%AE", b"%ED%A0%80"])
async def test_a_name_that_is_not_utf_8_is_refused(bob, running, folder, name):
    """Control: `%fe` replaced the file `%ff`, because servers decode both as U+FFFD."""
    request = put(bob, running)
    request["path"] = request["path"].replace("a.txt", "\ufffd")
    for raw, expected in ((name, 400), (b"%EF%BF%BD", 201)):
        request["raw_path"] = request["raw_path"].rpartition(b"/")[0] + b"/" + raw
        status, _, body = await get_response(Host(), request, part(b"x", False))
        assert status == expected, body
