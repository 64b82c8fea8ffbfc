"""Requests that try to break a running server: malformed, huge and generated ones."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest
import schemathesis
from django.db import connection
from hypothesis import Phase, given, settings, strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.factories import SCHEMA, V1
from tests.servers import server
from zndraw_joblib.models import Task

pytestmark = pytest.mark.django_db(transaction=True)

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.yml"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
ROTATE = "open:modifiers:Rotate"
LONG = "x" * 32_000
MANY = "9" * 400
UNKNOWN = "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"


def raw(url, head, body=b"", token=None):
    """Send raw bytes; returns the status of the response and the bytes after the status line."""
    host, port = url.removeprefix("http://").split(":")
    lines = [head, b"Host: localhost", b"Connection: close"]
    if token:
        lines.append(f"Authorization: Token {token}".encode())
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(b"\r\n".join([*lines, b"", b""]) + body)
        answer = b""
        while data := client.recv(65536):
            answer += data
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), rest


def json_body(body, *more):
    head = [b"Content-Type: application/json", b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(head), body


def lines(method, path, *more):
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode("latin1"), *more])


HOSTILE = {
    "nul in a path": lines("GET", f"{V1}/tasks/%00"),
    "nul in a room": lines("GET", f"{V1}/rooms/a%00b/tasks"),
    "no utf-8 in a path": lines("GET", f"{V1}/rooms/%ff%fe/jobs"),
    "surrogate in a path": lines("GET", f"{V1}/rooms/%ed%a0%80/jobs"),
    "long id": lines("GET", f"{V1}/tasks/{LONG}"),
    "long room": lines("GET", f"{V1}/rooms/{LONG}/jobs"),
    "long job": lines("GET", f"{V1}/rooms/open/jobs/open:modifiers:{LONG}"),
    "long worker": lines("PATCH", f"{V1}/workers/{LONG}"),
    "dots": lines("GET", f"{V1}/rooms/../../etc/passwd"),
    "huge limit": lines("GET", f"{V1}/rooms/open/tasks?limit={MANY}"),
    "negative limit": lines("GET", f"{V1}/rooms/open/tasks?limit=-1"),
    "arabic limit": lines("GET", f"{V1}/rooms/open/tasks?limit=%D9%A1"),
    "nul in a cursor": lines("GET", f"{V1}/rooms/open/tasks?cursor=%00"),
    "odd cursor": lines("GET", f"{V1}/rooms/open/tasks?cursor=eyJhIjoxfQ=="),
    "nul in a status": lines("GET", f"{V1}/rooms/open/tasks?status=%00"),
    "nul in an offset": lines("GET", f"{V1}/tasks/{UNKNOWN}/log?offset=%00"),
    "huge offset": lines("GET", f"{V1}/tasks/{UNKNOWN}/log?offset={MANY}"),
    "negative offset": lines("GET", f"{V1}/tasks/{UNKNOWN}/log?offset=-1"),
    "log of a long id": lines("GET", f"{V1}/tasks/{LONG}/log"),
    "nul in a slug": lines("GET", "/v1/problems/%00"),
    "nul in a token": lines("GET", f"{V1}/workers", b"Authorization: Token a\x00b"),
    "latin-1 token": lines("GET", f"{V1}/workers", b"Authorization: Token \xff\xfe"),
    "long token": lines("GET", f"{V1}/workers", b"Authorization: Token " + b"x" * 20_000),
    "basic": lines("GET", f"{V1}/workers", b"Authorization: Basic \xff"),
    "other host": lines("GET", f"{V1}/workers", b"Host: evil.example"),
    "odd charset of a parameter": lines(
        "POST", f"{V1}/workers", b"Content-Type: application/json; x*=bogus''a"
    ),
    "odd parts of a parameter": lines(
        "POST", f"{V1}/workers", b"Content-Type: application/json; charset*=a'b'c'd"
    ),
    "no http": b"GET / HTTP/9.9",
    "length that is none": lines("POST", f"{V1}/workers", b"Content-Length: x"),
    "two lengths": lines("POST", f"{V1}/workers", b"Content-Length: 1\r\nContent-Length: 2"),
}


def test_hostile_requests_are_answered_4xx(bob, root):
    bob.register(schema=SCHEMA)
    with server(ZNDRAW_JOBLIB_LONG_POLL_MAX_WAIT_SECONDS="1") as url:
        for name, head in HOSTILE.items():
            for token in (None, root.token):
                status, rest = raw(url, head, token=token)
                assert 400 <= status < 500 or name in REPLACED, (name, status, rest)
                assert status < 500, (name, rest)
        submit = f"{V1}/rooms/open/tasks/{ROTATE}"
        for number, key in enumerate((b'""', b"\xff", b'"\x01"', b'"' + b"x" * 5000 + b'"')):
            head, body = json_body(b'{"payload":{}}', b"Idempotency-Key: " + key)
            status, rest = raw(url, lines("POST", submit, head), body, bob.token)
            assert status == 400, (number, status, rest)
        # The limit also applies to a chunked body, whose length is not known beforehand.
        chunk = b"x" * 65536
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for _ in range(40)) + b"0\r\n\r\n"
        head = b"Content-Type: application/json\r\nTransfer-Encoding: chunked"
        status, rest = raw(url, lines("POST", submit, head), body, bob.token)
        assert status == 413, rest
        # Malformed preferences are ignored (RFC 7240).
        for prefer in (b"wait=-1", b"wait=1e9", b"wait=" + MANY.encode(), b"\xff", b";;=,wait"):
            status, _ = raw(
                url, lines("GET", f"{V1}/workers", b"Prefer: " + prefer), b"", bob.token
            )
            assert status == 200, prefer
        assert "Traceback" not in url.log.read_text()
    assert not Task.objects.exists()


#: Requests that may succeed: the server decodes the bytes to U+FFFD, which a room id may have.
REPLACED = {"no utf-8 in a path", "surrogate in a path"}


@pytest.mark.timeout(3600)
def test_responses_to_generated_requests_conform_to_the_openapi_document(bob, root):
    """Sends 500 requests, or 10,000 with ``--hypothesis-profile=full``."""
    if connection.vendor != "postgresql":
        pytest.skip("runs once, on PostgreSQL")
    # The profiles have 50 and 500 examples.
    cases = 10_000 if settings().max_examples >= 500 else 500
    document = schemathesis.openapi.from_path(DOCUMENT)
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    bob.register(schema={}, worker_id=bob.worker())
    # Submitted beforehand, because a request may retire the job or change its schema.
    tasks = [str(bob.submit().json()["id"]) for _ in range(50)]
    known = {
        "room_id": ["open", "open", "open", "@global"],
        "full_name": [ROTATE],
        "worker_id": [bob.worker(), bob.identity],
    }
    seen: Counter[int] = Counter()
    with server(ZNDRAW_JOBLIB_LONG_POLL_MAX_WAIT_SECONDS="1") as url:

        def fuzz(operation):
            modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
            generated = st.one_of([operation.as_strategy(mode) for mode in modes])

            # More of submits, because few of their random requests are accepted.
            share = 4 if "202" in operation.definition.raw["responses"] else 1
            number = -(-cases // len(operations)) * share

            @settings(max_examples=number, phases=[Phase.generate])
            @given(case=generated, data=st.data())
            def send_one(case, data):
                # Mostly names that exist, because nearly all answers would be 404 otherwise.
                for name in case.path_parameters or {}:
                    real = known.get(name, tasks)
                    if data.draw(st.integers(0, 3)):
                        case.path_parameters[name] = data.draw(st.sampled_from(real))
                person = data.draw(st.sampled_from([bob, root]))
                headers = {"Authorization": f"Token {person.token}"}
                answer = case.call(base_url=url, headers=headers)
                seen[answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            send_one()

        for operation in operations:
            # Again each time, because a request of another operation may have retired the job.
            bob.register(schema={}, worker_id=bob.worker())
            fuzz(operation)
        assert "Traceback" not in url.log.read_text()
    assert seen.total() >= cases * 0.9
    # A run without these statuses has not reached the views.
    assert {200, 202, 400, 404} <= set(seen), seen
