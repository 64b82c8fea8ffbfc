"""Requests through Django's WSGI handler: chunked bodies, and bodies that are not read."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from django.core.handlers.wsgi import WSGIHandler

from tests.factories import V1

# Not in a test's transaction, because the end of each request closes the database connection.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.any_database]

SUBMIT = f"{V1}/rooms/open/tasks/open:modifiers:Rotate"


def get_response(path, **more):
    """Send a request; returns the response's status, headers and body."""
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
    response = WSGIHandler()(environ, lambda *args: begun.extend(args))
    body = b"".join(response)
    response.close()
    return int(begun[0].split()[0]), dict(begun[1]), body


class SlowStream(BytesIO):
    """A stream that returns at most 7 bytes at a time."""

    def read(self, size=-1):
        return super().read(min(size, 7) if size >= 0 else 7)


def chunked(person, body, **more):
    return {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "HTTP_AUTHORIZATION": f"Token {person.token}",
        "wsgi.input": SlowStream(body),
        **more,
    }


#: A server sets this key when its stream ends with the chunked body.
TERMINATED = {"wsgi.input_terminated": True}


def test_a_chunked_body_is_read(bob):
    bob.register()
    status, _, answer = get_response(
        SUBMIT, **chunked(bob, b'{"payload": {"angle": 1}}', **TERMINATED)
    )
    assert status == 202, answer
    assert json.loads(answer)["payload"] == {"angle": 1}


def test_a_chunked_body_that_is_too_large_is_refused(bob, settings_of):
    bob.register()
    settings_of(max_body_bytes=100)
    status, _, answer = get_response(SUBMIT, **chunked(bob, b" " * 101, **TERMINATED))
    assert (status, json.loads(answer)["type"]) == (413, "/v1/problems/content-too-large")


def test_the_body_of_a_refused_request_is_discarded(bob):
    """A server closes the connection over an unread body, so a proxy would lose the response."""
    request = chunked(bob, b" " * 200, **TERMINATED, HTTP_AUTHORIZATION="Token x")
    status, headers, _ = get_response(SUBMIT, **request)
    assert (status, headers["WWW-Authenticate"]) == (401, "Token")
    assert not request["wsgi.input"].read()


def test_a_chunked_body_without_a_terminated_stream_is_refused(bob):
    bob.register()
    status, headers, answer = get_response(SUBMIT, **chunked(bob, b'{"payload": {}}'))
    assert status == 411, answer
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer)["type"] == "/v1/problems/length-required"


def test_responses_have_their_content_length(bob):
    status, headers, body = get_response(f"{V1}/workers", HTTP_AUTHORIZATION=f"Token {bob.token}")
    assert (status, json.loads(body)) == (200, [])
    assert headers["Content-Length"] == "2"
    status, headers, _ = get_response(f"{V1}/workers", HTTP_AUTHORIZATION="Token x")
    assert (status, headers["Content-Type"]) == (401, "application/problem+json")


def http2(person, method, body, **more):
    """A request over HTTP/2, whose body needs neither a length nor `Transfer-Encoding`."""
    request = chunked(person, body, SERVER_PROTOCOL="HTTP/2", REQUEST_METHOD=method, **more)
    del request["HTTP_TRANSFER_ENCODING"]
    return request


def test_a_body_without_a_length_is_read_over_http_2(bob):
    """It was taken for an empty one, and its payload for the default."""
    bob.register()
    request = http2(bob, "POST", b'{"payload": {"angle": 1}}', **TERMINATED)
    status, _, answer = get_response(SUBMIT, **request)
    assert (status, json.loads(answer)["payload"]) == (202, {"angle": 1})


def test_a_file_without_a_length_is_refused_over_http_2(alice, bob):
    """It was stored as an empty one."""
    bob.register()
    task = alice.submit().json()["id"]
    bob.claim()
    path = f"{V1}/tasks/{task}/files/a"
    request = http2(bob, "PUT", b"hello", QUERY_STRING="attempt=1", **TERMINATED)
    status, _, answer = get_response(path, **request)
    assert (status, json.loads(answer)["type"]) == (411, "/v1/problems/length-required")


def test_a_request_without_a_body_is_answered_over_http_2(bob):
    assert get_response(f"{V1}/workers", **http2(bob, "GET", b"", **TERMINATED))[0] == 200
    assert get_response(f"{V1}/workers", **http2(bob, "POST", b"", **TERMINATED))[0] == 201
