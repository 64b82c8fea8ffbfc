"""`ApiLane`, by its ASGI messages and in a server process."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core import signals

from tests.factories import V1
from tests.servers import server
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.events.hub import get_hub

pytestmark = pytest.mark.django_db(transaction=True)


class Host:
    """The host's ASGI application: answers 299 and records the paths of its requests."""

    def __init__(self):
        self.paths = []

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def scope(path, method="GET", host=b"localhost", **headers):
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", host),
            *((name.replace("_", "-").encode(), value) for name, value in headers.items()),
        ],
        "server": ("localhost", 80),
    }


async def answer(communicator):
    """The response's status, headers and body."""
    start = await communicator.receive_output(10)
    body = b""
    while True:
        message = await communicator.receive_output(10)
        body += message.get("body", b"")
        if not message.get("more_body"):
            # The application may still close a file.
            await communicator.wait(10)
            return start["status"], dict(start["headers"]), body


async def get_response(host, request, *messages):
    communicator = ApplicationCommunicator(ApiLane(host), request)
    for message in messages or ({"type": "http.request", "body": b""},):
        await communicator.send_input(message)
    return await answer(communicator)


def token(person):
    return {"authorization": f"Token {person.token}".encode()}


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


async def test_api_requests_do_not_reach_the_hosts_application(bob):
    host = Host()
    status, headers, body = await get_response(host, scope(f"{V1}/workers", **token(bob)))
    assert (status, json.loads(body), host.paths) == (200, [], [])
    headers = lower(headers)
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"Prefer" in headers[b"vary"]


@pytest.mark.parametrize(
    "request_",
    [
        scope("/", authorization=b"Token x"),
        scope("/admin/v1/joblib/x", authorization=b"Token x"),
        scope("/elsewhere/v1/joblib/x", host=b"evil.example", authorization=b"Token x"),
    ],
    ids=["other", "other with the prefix inside", "other path and host"],
)
async def test_other_requests_go_to_the_hosts_application(request_):
    host = Host()
    assert (await get_response(host, request_))[0] == 299
    assert host.paths == [request_["path"]]


async def test_errors_are_answered_with_problems(bob):
    host = Host()
    for path, method, status in (
        (f"{V1}/workers", "POST", 401),
        (f"{V1}/nothing", "GET", 404),
    ):
        got, headers, body = await get_response(host, scope(path, method, authorization=b"Token x"))
        assert got == status, body
        assert lower(headers)[b"content-type"] == b"application/problem+json"
    got, headers, _ = await get_response(host, scope(f"{V1}/workers", "PUT", **token(bob)))
    assert (got, set(lower(headers)[b"allow"].split(b", "))) == (405, {b"GET", b"HEAD", b"POST"})
    assert not host.paths


REFUSED = {
    "other host": (400, {"host": b"evil.example"}),
    "unknown charset of a parameter": (415, {"content_type": b"application/json; x*=bogus''a"}),
    "too many parts of a parameter": (415, {"content_type": b"application/json; x*=a'b'c'd"}),
}


@pytest.mark.parametrize(("status", "invalid"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("credentials", [{}, {"authorization": b"Token x"}])
async def test_errors_that_django_raises_before_a_view_are_problems(credentials, status, invalid):
    host = Host()
    for path in (f"{V1}/rooms/a b/jobs", "/v1/joblib", "/v1/me", "/v1/problems/job-not-found"):
        got, headers, body = await get_response(host, scope(path, "PUT", **credentials, **invalid))
        assert (got, host.paths) == (status, []), body
        headers = lower(headers)
        assert headers[b"content-type"] == b"application/problem+json"
        assert headers[b"vary"] == b"Prefer"
        document = json.loads(body)
        assert (document["status"], document["instance"]) == (status, path.replace(" ", "%20"))


async def test_a_query_that_is_not_utf8_is_answered_with_a_problem():
    request = {**scope(f"{V1}/workers"), "query_string": b"\xff"}
    status, _, body = await get_response(Host(), request)
    assert (status, json.loads(body)["type"]) == (400, "/v1/problems/validation-error")


async def test_a_body_in_several_messages_is_read(bob):
    body = json.dumps({"category": "modifiers", "name": "Rotate", "schema": {}}).encode()
    parts = [
        {"type": "http.request", "body": body[:20], "more_body": True},
        {"type": "http.request", "body": body[20:]},
    ]
    headers = {"content_type": b"application/json", **token(bob)}
    request = scope(f"{V1}/rooms/open/jobs", "PUT", **headers)
    assert (await get_response(Host(), request, *parts))[0] == 201


@pytest.mark.parametrize("ends", [True, False])
async def test_a_body_that_is_too_large_is_refused(bob, settings_of, ends):
    settings_of(max_body_bytes=1000)
    headers = {"content_type": b"application/json", **token(bob)}
    # A body that never ends must be refused, too.
    parts = [{"type": "http.request", "body": b"x" * 900, "more_body": True}] * (3 if ends else 30)
    if ends:
        parts.append({"type": "http.request", "body": b"x"})
    request = scope(f"{V1}/rooms/open/jobs", "PUT", **headers)
    status, _, body = await get_response(Host(), request, *parts)
    assert (status, json.loads(body)["type"]) == (413, "/v1/problems/content-too-large")


async def test_urls_in_responses_begin_with_the_script_prefix(bob):
    await sync_to_async(bob.register)()
    path = f"/site{V1}/rooms/open/tasks/open:modifiers:Rotate"
    request = {**scope(path, "POST", content_type=b"application/json", **token(bob))}
    request["root_path"] = "/site"
    body = {"type": "http.request", "body": b'{"payload": {}}'}
    status, headers, got = await get_response(Host(), request, body)
    assert status == 202, got
    assert lower(headers)[b"location"].startswith(b"/site/v1/joblib/tasks/")


@pytest.fixture
def request_signals():
    """The names of the `request_started` and `request_finished` signals sent so far."""
    sent = []

    def started(**kwargs):
        sent.append("started")

    def finished(**kwargs):
        sent.append("finished")

    signals.request_started.connect(started)
    signals.request_finished.connect(finished)
    yield sent
    signals.request_started.disconnect(started)
    signals.request_finished.disconnect(finished)


async def test_each_request_sends_its_signals_once(bob, request_signals):
    await get_response(Host(), scope(f"{V1}/workers", **token(bob)))
    assert request_signals == ["started", "finished"]


async def test_each_request_that_waits_sends_its_signals_once(bob, running, request_signals):
    request_signals.clear()
    request = scope(f"{V1}/tasks/{running}", prefer=b"wait=1", **token(bob))
    status, headers, _ = await get_response(Host(), request)
    assert (status, lower(headers)[b"preference-applied"]) == (200, b"wait=1")
    assert request_signals == ["started", "finished"]


async def test_the_wait_of_a_disconnected_client_ends(bob, running, request_signals):
    request_signals.clear()
    request = scope(f"{V1}/tasks/{running}", prefer=b"wait=30", **token(bob))
    communicator = ApplicationCommunicator(ApiLane(Host()), request)
    await communicator.send_input({"type": "http.request", "body": b""})
    while not get_hub().ends._waiters:
        await asyncio.sleep(0.01)
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait(10)
    assert await communicator.receive_nothing()
    assert not get_hub().ends._waiters
    assert request_signals == ["started", "finished"]


def test_a_server_with_the_lane_keeps_few_connections(bob):
    """Sends 60 requests at once, and then requests for the host's own pages."""
    bob.register()
    with server(PGAPPNAME="joblib-lane", ZNDRAW_JOBLIB_API_THREADS="3") as url:
        headers = {"Authorization": f"Token {bob.token}"}

        async def submit_at_once():
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
                submit = f"{V1}/rooms/open/tasks/open:modifiers:Rotate"
                body = {"payload": {}}
                return await asyncio.gather(*(http.post(submit, json=body) for _ in range(60)))

        assert {answer.status_code for answer in asyncio.run(submit_at_once())} == {202}
        assert httpx.get(f"{url}{V1}/workers").status_code == 401
        assert httpx.get(url).status_code == 200
        from django.db import connection

        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'joblib-lane'"
                )
                assert 1 <= cursor.fetchone()[0] <= 8
        assert "ERROR" not in url.log.read_text()
