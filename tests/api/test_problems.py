from __future__ import annotations

import base64
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.signals import got_request_exception
from django.db import InternalError, OperationalError, connection, transaction
from django.middleware.csrf import _get_new_csrf_string
from django.test import AsyncClient
from psycopg import errors
from rest_framework.parsers import JSONParser
from rest_framework.test import APIClient

from tests.factories import V1, problem
from zndraw_joblib.api import parsing
from zndraw_joblib.exceptions import PROBLEM_TYPES
from zndraw_joblib.models import Job, Task, Worker

EXPECTED = {
    "job-not-found": 404,
    "worker-not-found": 404,
    "task-not-found": 404,
    "not-found": 404,
    "schema-conflict": 409,
    "invalid-task-transition": 409,
    "lease-lost": 409,
    "too-many-jobs": 409,
    "too-many-workers": 409,
    "too-many-pending": 429,
    "invalid-category": 400,
    "invalid-room-id": 400,
    "invalid-payload": 422,
    "idempotency-key-reused": 422,
    "validation-error": 400,
    "content-too-large": 413,
    "result-too-large": 413,
    "file-too-large": 413,
    "too-many-files": 409,
    "file-not-found": 404,
    "range-not-satisfiable": 416,
    "precondition-failed": 412,
    "storage-unavailable": 503,
    "length-required": 411,
    "not-authenticated": 401,
    "forbidden": 403,
    "method-not-allowed": 405,
    "unsupported-media-type": 415,
    "throttled": 429,
    "server-error": 500,
    "service-unavailable": 503,
    "database-not-migrated": 503,
}


def test_every_problem_type_has_the_status_of_the_contract():
    assert {slug: cls.status for slug, cls in PROBLEM_TYPES.items()} == EXPECTED


@pytest.mark.any_database
@pytest.mark.parametrize("slug", EXPECTED)
def test_problem_types_are_explained_in_html_and_json(client, slug):
    plain = client.get(f"/v1/problems/{slug}")
    assert plain.json() == {
        "type": f"/v1/problems/{slug}",
        "title": PROBLEM_TYPES[slug].title,
        "status": EXPECTED[slug],
        "description": PROBLEM_TYPES[slug].description(),
    }
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = client.get(f"/v1/problems/{slug}", headers={"accept": browser})
    assert page["Content-Type"].startswith("text/html")
    assert f"<h1>{PROBLEM_TYPES[slug].title}</h1>" in page.content.decode()
    assert "Accept" in page["Vary"]


DJANGO = "django.template.backends.django.DjangoTemplates"
ENGINES = {
    "none": [],
    "without the folders of apps": [{"BACKEND": DJANGO, "APP_DIRS": False}],
    "Jinja only": [{"BACKEND": "django.template.backends.jinja2.Jinja2", "APP_DIRS": True}],
    "a broken context processor": [
        {
            "BACKEND": DJANGO,
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["tests.nowhere.processor"]},
        }
    ],
}


@pytest.mark.any_database
@pytest.mark.parametrize("engines", ENGINES.values(), ids=ENGINES)
def test_a_browser_gets_the_page_whatever_templates_the_host_has(client, settings, engines):
    """Control: each of these was a 500 when the host's engine rendered the page."""
    address = "/v1/problems/invalid-room-id"
    usual = client.get(address, headers={"accept": "text/html"}).content
    settings.TEMPLATES = engines
    page = client.get(address, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert page.content == usual


def test_an_unknown_problem_type_is_not_found(client):
    problem(client.get("/v1/problems/nonsense"), "not-found", 404)


NOWHERE = [
    *("", "/", "/nope", "/rooms/x/jobs/", "/tasks/a/b", "/workers/"),
    *("/a%0Ab", "/%0A", "/workers%0A", "/tasks/a/%0D%0Ab/%E2%80%A8"),
]


@pytest.mark.any_database
@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
@pytest.mark.parametrize("path", NOWHERE)
def test_an_unknown_url_is_answered_with_a_problem(client, method, path):
    problem(getattr(client, method)(f"{V1}{path}"), "not-found", 404)


def test_405_lists_the_allowed_methods(bob):
    answer = bob.send("delete", "/rooms/open/jobs")
    problem(answer, "method-not-allowed", 405)
    assert answer["Allow"] == "GET, HEAD, PUT"


def by_session(person):
    """A browser's client: a session, and a CSRF token with each request."""
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(person.user)
    client.cookies["csrftoken"] = token = _get_new_csrf_string()
    client.credentials(HTTP_X_CSRFTOKEN=token)
    return client


def without_csrf(person):
    """A forged request: a session without the CSRF token, as another site may cause it."""
    client = by_session(person)
    client.credentials()
    return client


CLIENTS = {"token": lambda person: person.client, "session": by_session, "no csrf": without_csrf}


@pytest.fixture(params=CLIENTS)
def client_of(request):
    """A client's factory, and whether its requests are refused before the body is read."""
    return CLIENTS[request.param], request.param == "no csrf"


@pytest.mark.any_database
@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
def test_a_body_that_is_not_json_is_415(bob, client_of, media_type):
    client, forged = client_of
    answer = client(bob).generic("POST", f"{V1}/workers", b"{}", content_type=media_type)
    if forged:
        problem(answer, "forbidden", 403)
    else:
        problem(answer, "unsupported-media-type", 415)
    assert not Worker.objects.exists()


def test_a_session_with_a_csrf_token_may_write(bob):
    answer = by_session(bob).put(
        f"{V1}/rooms/open/jobs",
        {"category": "modifiers", "name": "Rotate", "schema": {}},
        format="json",
    )
    assert answer.status_code == 201
    assert Job.objects.get().name == "Rotate"


@pytest.mark.django_db(transaction=True)
async def test_a_session_may_wait_for_work(bob):
    """The view runs twice, so the second run must not read the body again."""
    client = AsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(bob.user)
    client.cookies["csrftoken"] = token = _get_new_csrf_string()
    headers = {"X-CSRFToken": token, "Prefer": "wait=1"}
    claim = f"{V1}/tasks/claim"
    answer = await client.post(claim, {}, content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"task": None})
    assert answer["Preference-Applied"] == "wait=1"


def cursor(*texts):
    return base64.urlsafe_b64encode(json.dumps(texts).encode()).decode()


TASK_ID = "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"
CURSORS = {
    "lone surrogate": ("/rooms/open/jobs", ("open", "modifiers", "\ud800")),
    "nul": ("/rooms/open/jobs", ("open", "modifiers", "\0")),
    "before all times": ("/rooms/open/tasks", ("0001-01-01T00:00:00+23:59", TASK_ID)),
    "after all times": ("/rooms/open/tasks", ("9999-12-31T23:59:59-23:59", TASK_ID)),
    "no zone": ("/rooms/open/tasks", ("2026-01-01T00:00:00", TASK_ID)),
    "a date": ("/workers", ("2026-01-01", TASK_ID)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("path", "texts"), CURSORS.values(), ids=CURSORS)
def test_malformed_cursors_are_refused(bob, path, texts):
    answer = bob.get(path, data={"cursor": cursor(*texts)})
    document = problem(answer, "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/cursor"]


def test_too_many_query_fields_are_refused(bob):
    problem(bob.get("/workers?" + "a&" * 1001), "validation-error", 400)


def test_a_foreign_host_is_refused(bob, settings):
    """Without CommonMiddleware, which refuses the host first, as a site may leave it out."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Common" not in name]
    for _ in range(2):
        bob.worker()
    answer = bob.get("/workers?limit=1", headers={"host": "evil.example"})
    problem(answer, "validation-error", 400)
    assert bob.get("/workers?limit=1").status_code == 200


def test_responses_are_json_for_every_accept_header(bob):
    answer = bob.get("/workers", headers={"accept": "text/html, image/png;q=0.5"})
    assert answer["Content-Type"] == "application/json"


def test_429_has_the_seconds_of_the_throttle_in_retry_after(bob, settings, monkeypatch):
    from rest_framework.throttling import UserRateThrottle

    from zndraw_joblib.api.base import JobLibView

    class Once(UserRateThrottle):
        rate = "1/hour"

    monkeypatch.setattr(JobLibView, "throttle_classes", [Once])
    bob.get("/workers")
    answer = bob.get("/workers")
    problem(answer, "throttled", 429)
    assert 0 < int(answer["Retry-After"]) <= 3600


@pytest.mark.parametrize(("wait", "seconds"), [(None, "1"), (0, "1"), (-3.5, "1"), (1.2, "2")])
def test_429_has_a_retry_after_of_at_least_a_second(bob, monkeypatch, wait, seconds):
    """A throttle of DRF's returns None when it does not know the time."""
    from rest_framework.throttling import BaseThrottle

    from zndraw_joblib.api.base import JobLibView

    class Never(BaseThrottle):
        def allow_request(self, request, view):
            return False

        def wait(self):
            return wait

    monkeypatch.setattr(JobLibView, "throttle_classes", [Never])
    answer = bob.get("/workers")
    problem(answer, "throttled", 429)
    assert answer["Retry-After"] == seconds


def broken(request, room_id, action):
    Job.objects.create(room_id="left", category="behind", name="x", schema={})
    raise RuntimeError("secret")


def test_500_hides_the_error_and_sends_the_signal(bob, settings_of, caplog):
    settings_of(room_access="tests.api.test_problems.broken")
    seen = []

    def record(sender, request, **kwargs):
        seen.append(request.path)

    bob.client.raise_request_exception = False
    got_request_exception.connect(record)
    try:
        answer = bob.get("/rooms/open/tasks")
    finally:
        got_request_exception.disconnect(record)
    document = problem(answer, "server-error", 500)
    assert "secret" not in json.dumps(document)
    assert seen == [f"{V1}/rooms/open/tasks"]
    assert "secret" in caplog.text


def unreachable(request, room_id, action):
    raise OperationalError("the connection is closed: secret")


def test_an_unreachable_database_is_503(bob, settings_of, caplog):
    settings_of(room_access="tests.api.test_problems.unreachable")
    bob.client.raise_request_exception = False
    answer = bob.get("/rooms/open/tasks")
    document = problem(answer, "service-unavailable", 503)
    assert answer["Retry-After"] == "1"
    assert "secret" not in json.dumps(document)
    assert "secret" in caplog.text


def idle_too_long(request, room_id, action):
    """Raise Django's error for a connection that the server ended in an idle transaction."""
    try:
        raise errors.IdleInTransactionSessionTimeout("terminating connection: secret")
    except errors.InternalError as error:
        raise InternalError("terminating connection: secret") from error


def internal_error(request, room_id, action):
    raise InternalError("something else") from errors.InternalError("XX000")


def test_an_idle_transaction_that_the_database_ended_is_503(bob, settings_of):
    bob.client.raise_request_exception = False
    settings_of(room_access="tests.api.test_problems.idle_too_long")
    answer = bob.get("/rooms/open/tasks")
    assert "secret" not in json.dumps(problem(answer, "service-unavailable", 503))
    assert answer["Retry-After"] == "1"
    settings_of(room_access="tests.api.test_problems.internal_error")
    problem(bob.get("/rooms/open/tasks"), "server-error", 500)


def sleeps_in_a_transaction(request, room_id, action):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '20ms'")
        time.sleep(0.2)
        cursor.execute("SELECT 1")


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no such timeout")
def test_an_idle_transaction_that_postgresql_ended_is_503(bob, settings_of):
    bob.client.raise_request_exception = False
    settings_of(room_access="tests.api.test_problems.sleeps_in_a_transaction")
    problem(bob.get("/rooms/open/tasks"), "service-unavailable", 503)
    connection.close()


def test_errors_of_the_hosts_views_keep_their_form(client):
    answer = client.post("/v1/auth/token", {}, content_type="application/json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/json"


BAD_BODIES = {
    "no json": b"{",
    "an array": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "deep": b'{"payload":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "very deep": b"[" * 100_000,
    "deep objects": b'{"payload":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
    "infinite": b'{"payload":{"a":1e400}}',
    "minus infinite": b'{"payload":{"a":-1e999}}',
    "nan": b'{"payload":{"a":NaN}}',
    "infinity": b'{"payload":{"a":Infinity}}',
    "nul": b'{"payload":{"a":"\\u0000"}}',
    "nul in a key": b'{"payload":{"\\u0000":1}}',
    "lone surrogate": b'{"payload":{"a":"\\ud800"}}',
    "reversed surrogates": b'{"payload":{"a":"\\udc00\\ud800"}}',
    "many digits": b'{"payload":{"a":' + b"9" * 5000 + b"}}",
    "not utf-8": b'{"payload":{"a":"\xff"}}',
    "bom": b"\xef\xbb\xbf{}",
    "unknown field": b'{"payload":{},"more":1}',
    "payload is a list": b'{"payload":[]}',
    "payload is null": b'{"payload":null}',
    "comment": b'{"payload":{}/**/}',
}


@pytest.mark.any_database
@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_invalid_bodies_are_refused_and_change_nothing(bob, client_of, body):
    client, forged = client_of
    client = client(bob)
    bob.register(schema={})
    before = (Job.objects.count(), Worker.objects.count())
    for method, path in (
        ("POST", "/rooms/open/tasks/open:modifiers:Rotate"),
        ("POST", "/tasks/claim"),
        ("POST", "/workers"),
        ("PUT", "/rooms/open/jobs"),
        ("PATCH", f"/workers/{bob.identity}"),
        ("PATCH", "/tasks/01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"),
    ):
        answer = client.generic(method, f"{V1}{path}", body, content_type="application/json")
        if forged:
            problem(answer, "forbidden", 403)
        else:
            problem(answer, "validation-error", 400)
    assert (Job.objects.count(), Worker.objects.count()) == before
    assert not Task.objects.exists()


class UnreadableBody:
    """A request body whose `read` fails the test."""

    def read(self, *args):
        raise AssertionError("the body was read")

    readline = read


def test_too_large_bodies_are_refused_without_reading_them(
    bob, client_of, settings_of, monkeypatch
):
    client, forged = client_of
    # Not under test: after the refusal the body is discarded, so that the client gets the answer.
    monkeypatch.setattr("zndraw_joblib.api.base.discard_body", lambda request: None)
    bob.register(schema={})
    settings_of(max_body_bytes=100)
    problem(bob.submit(x="y" * 100), "content-too-large", 413)
    sent = {
        "wsgi.input": UnreadableBody(),
        "CONTENT_LENGTH": "101",
        "CONTENT_TYPE": "application/json",
    }
    answer = client(bob).generic("POST", f"{V1}/workers", **sent)
    if forged:
        problem(answer, "forbidden", 403)
    else:
        problem(answer, "content-too-large", 413)
    with pytest.raises(AssertionError, match="was read"):
        bob.client.generic("POST", f"{V1}/workers", **sent | {"CONTENT_LENGTH": "100"})
    settings_of(max_body_bytes=1_000_000)
    assert bob.submit(x="y" * 100).status_code == 202


def test_too_deep_json_is_refused_before_it_is_parsed(bob, client_of, monkeypatch):
    client, forged = client_of

    def parse(*args, **kwargs):
        raise AssertionError("the body was parsed")

    client = client(bob)
    for name in ("json", "orjson"):
        monkeypatch.setattr(parsing, name, SimpleNamespace(loads=parse))
    monkeypatch.setattr(JSONParser, "parse", parse)
    for body in (b"[" * 65 + b"]" * 65, b'{"a":' * 65, b"[" * 100_000):
        answer = client.generic("POST", f"{V1}/workers", body, content_type="application/json")
        if forged:
            assert answer.status_code == 403
        else:
            assert answer.status_code == 400
            assert b"deeper than 64" in answer.content
    with pytest.raises(AssertionError, match="was parsed"):
        bob.client.generic("POST", f"{V1}/workers", b"[[]]", content_type="application/json")


INVALID_FIELDS: dict[str, dict[str, Any]] = {
    "/category": {"category": 0},
    "/schema": {"schema": []},
    "/worker_id": {"worker_id": 0},
    "/more~1or~0less": {"more/or~less": 1},
}


@pytest.mark.any_database
@pytest.mark.parametrize("pointer", INVALID_FIELDS)
def test_errors_point_to_the_invalid_field(bob, pointer):
    document = problem(bob.register(**INVALID_FIELDS[pointer]), "validation-error", 400)
    assert pointer in [error["pointer"] for error in document["errors"]]
    assert pointer in document["detail"]


def unknown_fields(number):
    return {f"field {index}": 1 for index in range(number)}


TOO_MANY = {
    "fields": ("post", "/workers", unknown_fields(60_000), "59000 more"),
    "1001 fields": ("post", "/workers", unknown_fields(1001), None),
    "1002 fields": ("post", "/workers", unknown_fields(1002), "2 more"),
    "fields beside a wrong one": (
        "post",
        "/tasks/claim",
        {**unknown_fields(2000), "limit": 0},
        "more",
    ),
    "items": ("patch", "/tasks", [unknown_fields(3)] * 500, "1500 more"),
    "fields of items": ("patch", "/tasks", [unknown_fields(300)] * 100, "more"),
    "grants": (
        "patch",
        "/workers/w",
        {"tasks": [{"id": TASK_ID, "attempt": 1, **unknown_fields(200)}] * 300},
        "more",
    ),
}


@pytest.mark.any_database
@pytest.mark.parametrize(("method", "path", "body", "message"), TOO_MANY.values(), ids=TOO_MANY)
def test_at_most_1000_errors_are_listed(bob, method, path, body, message):
    answer = bob.send(method, path, body)
    document = problem(answer, "validation-error", 400)
    assert len(answer.content) < 200_000
    assert len(document["errors"]) == 1001
    if message:
        assert message in document["errors"][-1]["detail"]
    else:
        assert document["errors"][-1]["pointer"] == "/field 1000"


def test_at_most_1000_errors_of_many_payloads_are_listed(bob):
    bob.register()
    body = [{"payload": {"angle": "x", "y": 1, "z": 1}}] * 400
    answer = bob.send("post", "/rooms/open/tasks/open:modifiers:Rotate", body)
    document = problem(answer, "invalid-payload", 422)
    assert len(document["errors"]) == 1001
    assert "200 more" in document["errors"][-1]["detail"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/status"),
        ({"status": "done"}, "/status"),
        ({"status": 1}, "/status"),
        ({"status": "running", "attempt": "1"}, "/attempt"),
        ({"status": "running", "attempt": True}, "/attempt"),
        ({"status": "running", "attempt": -1}, "/attempt"),
        ({"status": "running", "attempt": 10**20}, "/attempt"),
        ({"status": "failed", "error": 5}, "/error"),
    ],
)
def test_errors_of_reports_point_to_the_invalid_field(bob, body, pointer):
    bob.register()
    task = bob.submit().json()
    document = problem(bob.send("patch", f"/tasks/{task['id']}", body), "validation-error", 400)
    assert document["errors"][0]["pointer"] == pointer


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("tasks", "pointer"),
    [
        ({}, "/tasks"),
        ([1], "/tasks/0"),
        ([{"id": "x", "attempt": 1}], "/tasks/0/id"),
        ([{"id": "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"}], "/tasks/0/attempt"),
    ],
)
def test_errors_of_heartbeats_point_to_the_invalid_field(bob, tasks, pointer):
    worker = bob.worker()
    answer = bob.send("patch", f"/workers/{worker}", {"tasks": tasks})
    document = problem(answer, "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == [pointer]


def test_every_response_has_vary_prefer(bob):
    for answer in (bob.get("/workers"), bob.get("/nope"), bob.send("post", "/tasks/claim")):
        assert "Prefer" in answer["Vary"]
