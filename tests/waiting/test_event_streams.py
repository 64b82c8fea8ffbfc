"""The events of a room as Server-Sent Events, under ASGI with and without the lane, and WSGI."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from tests.factories import V1, problem
from zndraw_joblib.api import events as api_events
from zndraw_joblib.contrib.asgi import ApiLane

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/rooms/open/events"


@pytest.fixture(params=[True, False], ids=["lane", "django"])
def application(request):
    django = get_asgi_application()
    return ApiLane(django) if request.param else django


def parsed(text):
    """The messages of a stream; each has `event`, `id` and `data`, where it has them."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            fields["data"] = json.loads(fields["data"])
            assert fields["data"]["cursor"] == fields["id"]
            assert fields["data"]["type"] == fields["event"]
            found.append(fields["data"])
    return found


class Stream:
    """A request for the events of the room `open`, and the messages that it has sent."""

    def __init__(self, application, person, query="", method="GET", **headers):
        given = {"authorization": f"Token {person.token}", "host": "testserver"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": V1 + PATH,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        self.communicator = ApplicationCommunicator(application, scope)
        self.text = ""
        self.has_ended = False

    async def __aenter__(self):
        await self.communicator.send_input({"type": "http.request", "body": b""})
        start = await self.communicator.receive_output(10)
        self.status = start["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return self

    async def __aexit__(self, *exc):
        if not self.has_ended:
            await self.communicator.send_input({"type": "http.disconnect"})
        await self.communicator.wait(10)

    async def until(self, is_last):
        """The messages up to the first for which `is_last` is true."""
        while True:
            found = parsed(self.text)
            if any(map(is_last, found)):
                return found
            assert await self.more(), self.text

    async def more(self):
        """Whether the server has sent something before the end of the stream."""
        message = await self.communicator.receive_output(10)
        self.text += message.get("body", b"").decode()
        self.has_ended = not message.get("more_body")
        return not self.has_ended


def ended(message):
    return message["type"] == "task" and message["task"]["status"] == "completed"


def call(function, *args, **kwargs):
    return sync_to_async(function)(*args, **kwargs)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json", "*/*", "text/html"])
async def test_events_are_streamed_whatever_the_client_accepts(application, bob, running, accept):
    async with Stream(application, bob, accept=accept) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        first, *_ = await stream.until(lambda message: message["type"] == "ready")
        await call(bob.report, running, "completed", attempt=1)
        last = (await stream.until(ended))[-1]
        assert last["task"]["id"] == running
        assert "result" not in last["task"]
        cursor = last["cursor"]
    # A browser repeats its first address, and adds the header.
    query = f"cursor={first['cursor']}"
    async with Stream(application, bob, query, last_event_id=cursor) as stream:
        again, *_ = await stream.until(lambda message: message["type"] == "ready")
        assert again["cursor"] == cursor


async def test_only_the_chosen_tasks_are_streamed(application, bob, running):
    other = (await call(bob.submit)).json()["id"]
    async with Stream(application, bob, f"task={running}&task={running}") as stream:
        await stream.until(lambda message: message["type"] == "ready")
        await call(bob.report, other, "cancelled")
        await call(bob.report, running, "completed", attempt=1)
        sent = await stream.until(ended)
        assert {each["task"]["id"] for each in sent if each["type"] == "task"} == {running}


async def test_an_unknown_cursor_resets_the_stream(application, bob):
    async with Stream(application, bob, last_event_id="nonsense") as stream:
        await stream.until(lambda message: message["type"] == "reset")


async def test_a_stream_keeps_no_thread_between_reads(application, bob):
    threads = threading.active_count()
    streams = [Stream(application, bob) for _ in range(12)]
    for stream in streams:
        await stream.__aenter__()
        await stream.until(lambda message: message["type"] == "ready")
    # The threads of the lane, and of the reads for all streams.
    assert threading.active_count() - threads < 8
    for stream in streams:
        await stream.__aexit__()


async def test_a_silent_stream_sends_comments_from_which_a_client_resumes(
    application, bob, monkeypatch
):
    monkeypatch.setattr(api_events, "CHECK_SECONDS", 0.3)
    async with Stream(application, bob) as stream:
        while ": keep-alive\nid: " not in stream.text:
            assert await stream.more()


async def test_a_stream_ends_after_the_longest_wait(application, bob, settings_of):
    settings_of(long_poll_max_wait_seconds=1)
    async with Stream(application, bob) as stream:
        while await stream.more():
            pass
        assert stream.has_ended
        assert stream.text.startswith("retry: 2000\n\n")


async def test_a_client_without_rights_any_more_is_left(
    application, root, monkeypatch, settings_of
):
    monkeypatch.setattr(api_events, "CHECK_SECONDS", 0.3)
    settings_of(room_access="tests.api.test_access.no_access")
    async with Stream(application, root) as stream:
        await stream.until(lambda message: message["type"] == "ready")
        root.user.is_superuser = False
        await root.user.asave()
        while await stream.more():
            pass


async def test_a_token_that_was_revoked_ends_the_stream(application, bob, monkeypatch):
    monkeypatch.setattr(api_events, "CHECK_SECONDS", 0.3)
    async with Stream(application, bob) as stream:
        await stream.until(lambda message: message["type"] == "ready")
        await bob.user.auth_token.adelete()
        while await stream.more():
            pass


async def test_a_client_that_does_not_read_is_left(application, bob, running, monkeypatch):
    monkeypatch.setattr(api_events, "SEND_SECONDS", 0.3)
    sent, body = [], [{"type": "http.request", "body": b""}]
    stream = Stream(application, bob)

    async def receive():
        if not body:
            await asyncio.sleep(60)
        return body.pop()

    async def stand_still(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async with asyncio.timeout(5):
        await application(stream.communicator.scope, receive, stand_still)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("/rooms/carols/events", 404, "task-not-found"),
        ("/rooms/a:b/events", 400, "invalid-room-id"),
        ("/rooms/open/events?task=nope", 400, "validation-error"),
        ("/rooms/open/events?tasks=1", 400, "validation-error"),
        ("/rooms/open/events?cursor=a&cursor=b", 400, "validation-error"),
        ("/rooms/open/events?" + "&".join(["task=" + "0" * 32] * 501), 400, "validation-error"),
    ],
)
def test_errors_before_the_stream_are_problems(bob, path, status, slug, settings_of):
    settings_of(room_access="tests.factories.by_room")
    problem(bob.get(path), slug, status)


def test_head_has_the_headers_and_other_methods_are_refused(bob, client):
    answer = bob.client.head(V1 + PATH)
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/event-stream")
    problem(bob.send("post", PATH, {}), "method-not-allowed", 405)
    problem(bob.client.options(V1 + PATH), "method-not-allowed", 405)
    problem(client.get(V1 + PATH), "not-authenticated", 401)


def polled(person, cursor=None, query=""):
    """The messages of one request under WSGI, and the cursor for the next."""
    header = {} if cursor is None else {"headers": {"Last-Event-ID": cursor}}
    answer = person.get(PATH + query, **header)
    assert answer["Content-Type"] == "text/event-stream"
    text = answer.content.decode()
    assert text.startswith("retry: 2000\n\n")
    found = parsed(text)
    return found, found[-1]["cursor"]


def test_under_wsgi_each_request_gets_the_changes_since_the_last(bob, root, running):
    (ready,), cursor = polled(bob)
    assert ready["type"] == "ready"
    bob.report(running, "completed", attempt=1)
    bob.register(name="Other")
    found, cursor = polled(bob, cursor)
    assert [each["type"] for each in found[:2]] == ["ready", "task"]
    assert found[1]["task"]["status"] == "completed"
    jobs = {each["job"]["full_name"] for each in found[2:]}
    assert jobs == {"open:modifiers:Other", "open:modifiers:Rotate"}
    found, _ = polled(bob, cursor)
    assert {each["type"] for each in found} <= {"ready", "task"}
    (reset,), _ = polled(bob, "nonsense")
    assert reset["type"] == "reset"
    of_admin, cursor = polled(root)
    of_admin, _ = polled(root, cursor)
    assert of_admin[-1]["worker"]["id"] == bob.identity


def test_under_wsgi_a_filter_leaves_other_tasks_out(bob, running):
    _, cursor = polled(bob)
    bob.submit()
    bob.report(running, "completed", attempt=1)
    found, _ = polled(bob, cursor, f"?task={running}")
    assert [each["type"] for each in found] == ["ready", "task"]
    assert found[1]["task"]["id"] == running
