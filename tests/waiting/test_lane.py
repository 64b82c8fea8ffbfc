"""The lane past the host's middleware, on a real server and by its ASGI messages."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO

import httpx
import pytest
from asgiref.testing import ApplicationCommunicator
from zndraw_joblib.wsgi import ApiLane as WsgiLane

from tests.factories import V1
from tests.servers import server
from zndraw_joblib.contrib.asgi import ApiLane

pytestmark = pytest.mark.django_db(transaction=True)


class Host:
    """Stands for the host's application; notes what came to it."""

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


async def ask(host, request, *messages):
    """The answer's status, headers and body."""
    talk = ApplicationCommunicator(ApiLane(host), request)
    for message in messages or ({"type": "http.request", "body": b""},):
        await talk.send_input(message)
    start = await talk.receive_output(10)
    body = await talk.receive_output(10)
    return start["status"], dict(start["headers"]), body["body"]


def token(person):
    return {"authorization": f"Token {person.token}".encode()}


async def test_the_api_is_answered_without_the_host(bob):
    host = Host()
    status, headers, body = await ask(host, scope(f"{V1}/workers", **token(bob)))
    assert (status, json.loads(body), host.paths) == (200, [], [])
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"vary"] == b"Prefer"


@pytest.mark.parametrize(
    "request_",
    [
        scope("/", authorization=b"Token x"),
        scope("/admin/v1/joblib/x", authorization=b"Token x"),
        scope(f"{V1}/workers"),
        scope("/elsewhere/v1/joblib/x", host=b"evil.example", authorization=b"Token x"),
        scope(f"{V1}/workers", cookie=b"sessionid=x"),
    ],
    ids=["other", "other that looks like it", "no token", "other path and host", "session"],
)
async def test_everything_else_is_the_hosts(request_):
    host = Host()
    assert (await ask(host, request_))[0] == 299
    assert host.paths == [request_["path"]]


async def test_errors_are_problems_there_too(bob):
    host = Host()
    for path, method, status in (
        (f"{V1}/workers", "POST", 401),
        (f"{V1}/nothing", "GET", 404),
    ):
        got, headers, body = await ask(host, scope(path, method, authorization=b"Token x"))
        assert got == status, body
        assert headers[b"content-type"] == b"application/problem+json"
    got, headers, _ = await ask(host, scope(f"{V1}/workers", "PUT", **token(bob)))
    assert (got, set(headers[b"allow"].split(b", "))) == (405, {b"GET", b"HEAD", b"POST"})
    assert not host.paths


REFUSED = {
    "other host": (400, {"host": b"evil.example"}),
    "unknown charset of a parameter": (415, {"content_type": b"application/json; x*=bogus''a"}),
    "too many parts of a parameter": (415, {"content_type": b"application/json; x*=a'b'c'd"}),
}


@pytest.mark.parametrize(("status", "odd"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("credentials", [{}, {"authorization": b"Token x"}])
async def test_what_django_would_refuse_without_a_view_is_a_problem(credentials, status, odd):
    host = Host()
    for path in (f"{V1}/rooms/a b/jobs", "/v1/joblib", "/v1/me", "/v1/problems/job-not-found"):
        got, headers, body = await ask(host, scope(path, "PUT", **credentials, **odd))
        assert (got, host.paths) == (status, []), body
        assert headers[b"content-type"] == b"application/problem+json"
        assert headers[b"vary"] == b"Prefer"
        document = json.loads(body)
        assert (document["status"], document["instance"]) == (status, path.replace(" ", "%20"))


async def test_a_body_comes_in_parts_and_may_be_too_large(bob, settings_of):
    settings_of(max_body_bytes=1000)
    body = json.dumps({"category": "modifiers", "name": "Rotate", "schema": {}}).encode()
    parts = [
        {"type": "http.request", "body": body[:20], "more_body": True},
        {"type": "http.request", "body": body[20:]},
    ]
    headers = {"content_type": b"application/json", **token(bob)}
    path = f"{V1}/rooms/open/jobs"
    assert (await ask(Host(), scope(path, "PUT", **headers), *parts))[0] == 201
    parts = [{"type": "http.request", "body": b"x" * 900, "more_body": True}] * 3
    parts.append({"type": "http.request", "body": b"x"})
    assert (await ask(Host(), scope(path, "PUT", **headers), *parts))[0] == 413
    # One that never ends is answered all the same.
    parts = [{"type": "http.request", "body": b"x" * 900, "more_body": True}] * 30
    assert (await ask(Host(), scope(path, "PUT", **headers), *parts))[0] == 413


async def test_a_site_below_a_prefix_says_so_in_its_addresses(bob):
    from asgiref.sync import sync_to_async

    await sync_to_async(bob.register)()
    path = f"/site{V1}/rooms/open/tasks/open:modifiers:Rotate"
    request = {**scope(path, "POST", content_type=b"application/json", **token(bob))}
    request["root_path"] = "/site"
    body = {"type": "http.request", "body": b'{"payload": {}}'}
    status, headers, answer = await ask(Host(), request, body)
    assert status == 202, answer
    assert headers[b"location"].startswith(b"/site/v1/joblib/tasks/")


async def test_who_leaves_while_waiting_is_let_go(bob):
    from asgiref.sync import sync_to_async

    from zndraw_joblib.events.hub import get_hub

    await sync_to_async(bob.register)()
    task = (await sync_to_async(bob.submit)()).json()
    request = scope(f"{V1}/tasks/{task['id']}", prefer=b"wait=30", **token(bob))
    talk = ApplicationCommunicator(ApiLane(Host()), request)
    await talk.send_input({"type": "http.request", "body": b""})
    while not get_hub().ends._waiters:
        await asyncio.sleep(0.01)
    await talk.send_input({"type": "http.disconnect"})
    await talk.wait(10)
    assert await talk.receive_nothing()
    assert not get_hub().ends._waiters


passed_on = []


def wsgi_host(environ, start_response):
    passed_on.append(environ["PATH_INFO"])
    start_response("299 Host", [])
    return [b""]


def ask_wsgi(path, **more):
    """The answer's status line, headers and body."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "wsgi.input": BytesIO(),
        "wsgi.url_scheme": "http",
        **more,
    }
    begun = []
    body = b"".join(WsgiLane(wsgi_host)(environ, lambda *args: begun.extend(args)))
    return begun[0], dict(begun[1]), body


class Parts(BytesIO):
    """A stream that gives little at a time."""

    def read(self, size=-1):
        return super().read(min(size, 7) if size >= 0 else 7)


def chunked(person, body, **more):
    return {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "HTTP_AUTHORIZATION": f"Token {person.token}",
        "wsgi.input": Parts(body),
        **more,
    }


def test_a_chunked_body_is_read_under_wsgi(bob, settings_of):
    bob.register()
    path = f"{V1}/rooms/open/tasks/open:modifiers:Rotate"
    ends = {"wsgi.input_terminated": True}
    status, _, answer = ask_wsgi(path, **chunked(bob, b'{"payload": {"angle": 1}}', **ends))
    assert status.startswith("202 "), answer
    assert json.loads(answer)["payload"] == {"angle": 1}
    settings_of(max_body_bytes=100)
    status, _, answer = ask_wsgi(path, **chunked(bob, b" " * 101, **ends))
    assert status.startswith("413 "), answer
    # What is not needed for the answer is passed over.
    rest = chunked(bob, b" " * 200, **ends, HTTP_AUTHORIZATION="Token x")
    assert ask_wsgi(path, **rest)[0].startswith("401 ")
    assert not rest["wsgi.input"].read()


def test_a_chunked_body_that_a_server_does_not_end_is_refused(bob):
    bob.register()
    path = f"{V1}/rooms/open/tasks/open:modifiers:Rotate"
    status, headers, answer = ask_wsgi(path, **chunked(bob, b'{"payload": {}}'))
    assert status.startswith("411 "), answer
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer)["type"] == "/v1/problems/length-required"


def test_the_host_gets_paths_under_wsgi_as_they_came():
    passed_on.clear()
    path = f"{V1}/rooms/ä€/jobs".encode().decode("latin1")
    assert ask_wsgi(path)[0] == "299 Host"
    assert passed_on == [path]


def test_under_wsgi_too(bob):
    passed_on.clear()
    credentials = {"HTTP_AUTHORIZATION": f"Token {bob.token}"}
    status, headers, body = ask_wsgi(f"{V1}/workers", **credentials)
    assert (status, json.loads(body)) == ("200 OK", [])
    assert headers["Content-Length"] == "2"
    status, headers, body = ask_wsgi(f"{V1}/workers", HTTP_AUTHORIZATION="Token x")
    assert status.startswith("401 ")
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["WWW-Authenticate"] == "Token"
    assert not passed_on
    for path, more in (
        (f"{V1}/workers", {}),
        ("/admin/", credentials),
        ("/elsewhere/v1/joblib/x", credentials | {"HTTP_HOST": "evil.example"}),
    ):
        assert ask_wsgi(path, **more)[0] == "299 Host"
    assert len(passed_on) == 3
    for odd in ({"HTTP_HOST": "evil.example"}, {"CONTENT_TYPE": "application/json; x*=bogus''a"}):
        for more in ({}, credentials):
            status, headers, _ = ask_wsgi(f"{V1}/workers", **more, **odd)
            assert status[:4] in {"400 ", "415 "}
            assert headers["Content-Type"] == "application/problem+json"
    assert len(passed_on) == 3


def test_a_server_with_the_lane_keeps_few_connections(bob):
    """Many requests at once, from the lane's threads; the browser's way works beside it."""
    bob.register()
    with server(PGAPPNAME="joblib-lane", ZNDRAW_JOBLIB_API_THREADS="3") as url:
        headers = {"Authorization": f"Token {bob.token}"}

        async def many():
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
                submit = f"{V1}/rooms/open/tasks/open:modifiers:Rotate"
                body = {"payload": {}}
                return await asyncio.gather(*(http.post(submit, json=body) for _ in range(60)))

        assert {answer.status_code for answer in asyncio.run(many())} == {202}
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
