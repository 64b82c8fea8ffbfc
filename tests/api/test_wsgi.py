"""Requests as a WSGI server gives them to Django's own handler."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from django.core.handlers.wsgi import WSGIHandler

from tests.factories import V1

# Each request ends by closing its connection, which must not hold the transaction of a test.
pytestmark = pytest.mark.django_db(transaction=True)

SUBMIT = f"{V1}/rooms/open/tasks/open:modifiers:Rotate"


def ask(path, **more):
    """The answer's status, headers and body."""
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


#: Says that the server ends chunked bodies.
ENDS = {"wsgi.input_terminated": True}


def test_a_chunked_body_is_read(bob):
    bob.register()
    status, _, answer = ask(SUBMIT, **chunked(bob, b'{"payload": {"angle": 1}}', **ENDS))
    assert status == 202, answer
    assert json.loads(answer)["payload"] == {"angle": 1}


def test_a_chunked_body_that_is_too_large_is_refused(bob, settings_of):
    bob.register()
    settings_of(max_body_bytes=100)
    status, _, answer = ask(SUBMIT, **chunked(bob, b" " * 101, **ENDS))
    assert (status, json.loads(answer)["type"]) == (413, "/v1/problems/content-too-large")


def test_a_body_that_the_answer_does_not_need_is_discarded(bob):
    """A server that has not read it closes the connection, and a proxy sees that only."""
    request = chunked(bob, b" " * 200, **ENDS, HTTP_AUTHORIZATION="Token x")
    status, headers, _ = ask(SUBMIT, **request)
    assert (status, headers["WWW-Authenticate"]) == (401, "Token")
    assert not request["wsgi.input"].read()


def test_a_chunked_body_that_the_server_does_not_end_is_refused(bob):
    bob.register()
    status, headers, answer = ask(SUBMIT, **chunked(bob, b'{"payload": {}}'))
    assert status == 411, answer
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer)["type"] == "/v1/problems/length-required"


def test_answers_are_json_with_their_length(bob):
    status, headers, body = ask(f"{V1}/workers", HTTP_AUTHORIZATION=f"Token {bob.token}")
    assert (status, json.loads(body)) == (200, [])
    assert headers["Content-Length"] == "2"
    status, headers, _ = ask(f"{V1}/workers", HTTP_AUTHORIZATION="Token x")
    assert (status, headers["Content-Type"]) == (401, "application/problem+json")
