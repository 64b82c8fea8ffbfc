"""`ApiLane` runs the host's middleware, for waits too."""

from __future__ import annotations

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections
from django.middleware.csrf import _get_new_csrf_string
from django.utils.translation import get_language

from tests import middleware
from tests.factories import V1
from tests.waiting.test_lane import Host, answer, ask, lower, scope, token
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.events.hub import get_hub

pytestmark = pytest.mark.django_db(transaction=True)

REQUEST = {"type": "http.request", "body": b""}


@pytest.fixture
def with_middleware(settings):
    """Puts middleware of `tests.middleware` after the host's, or in front of it."""

    def add(*names, first=False):
        added = [f"tests.middleware.{name}" for name in names]
        shipped = settings.MIDDLEWARE
        settings.MIDDLEWARE = added + shipped if first else shipped + added

    return add


@pytest.fixture
def audit(with_middleware):
    with_middleware("Audit")
    middleware.audit_log.clear()
    return middleware.audit_log


async def waits(person, task_id, change=None, *, seconds=20, **headers):
    """The answer to a wait for a task's end, of a lane with one thread; `change` ends the wait."""
    return await waited(
        scope(
            f"{V1}/tasks/{task_id}", prefer=f"wait={seconds}".encode(), **headers, **token(person)
        ),
        change,
        lambda hub: hub.ends._waiters,
    )


async def waited(request, change, is_waiting, body=b""):
    talk = ApplicationCommunicator(ApiLane(Host()), request)
    await talk.send_input({**REQUEST, "body": body})
    if change:
        while not is_waiting(get_hub()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await sync_to_async(change)()
    status, headers, content = await answer(talk)
    return status, lower(headers), json.loads(content)


async def claims(person, change, seconds=20, **headers):
    request = scope(
        f"{V1}/tasks/claim", "POST", prefer=f"wait={seconds}".encode(), **headers, **token(person)
    )
    return await waited(request, change, lambda hub: hub.work._lines)


@pytest.mark.parametrize("name", ["cors", "async_cors"])
async def test_cors_headers_are_on_answers_errors_and_waits(bob, running, with_middleware, name):
    """Of a sync-only and of an async-only middleware."""
    with_middleware(name, first=True)
    origin = middleware.ORIGIN.encode()
    for request in (
        scope(f"{V1}/workers", **token(bob)),
        scope(f"{V1}/workers"),
        scope(f"{V1}/nothing", **token(bob)),
    ):
        assert lower((await ask(Host(), request))[1])[b"access-control-allow-origin"] == origin
    status, headers, task = await waits(bob, running, lambda: bob.report(running, "completed"))
    assert (status, task["status"]) == (200, "completed")
    assert headers[b"preference-applied"] == b"wait=20"
    assert headers[b"access-control-allow-origin"] == origin


async def test_middleware_may_answer_a_preflight_request(with_middleware):
    with_middleware("cors", first=True)
    status, headers, _ = await ask(Host(), scope(f"{V1}/tasks/claim", "OPTIONS"))
    assert status == 200
    assert lower(headers)[b"access-control-allow-origin"] == middleware.ORIGIN.encode()


async def test_the_redirect_to_tls_answers_tokens_over_plain_http(bob, running, settings):
    settings.SECURE_SSL_REDIRECT = True
    for headers in ({}, {"prefer": b"wait=20"}):
        request = scope(f"{V1}/tasks/{running}", **headers, **token(bob))
        status, headers, _ = await ask(Host(), request)
        assert status == 301
        assert lower(headers)[b"location"] == f"https://localhost{V1}/tasks/{running}".encode()
    assert b"preference-applied" not in lower(headers)
    request = {**scope(f"{V1}/tasks/{running}", **token(bob)), "scheme": "https"}
    assert (await ask(Host(), request))[0] == 200


async def test_the_audit_log_has_each_answer_once_with_its_user(bob, running, audit):
    path = f"{V1}/tasks/{running}"
    await ask(Host(), scope(path, **token(bob)))
    await ask(Host(), scope(f"{V1}/workers"))
    assert audit == [
        ("GET", path, "bob", 200, False),
        ("GET", f"{V1}/workers", "AnonymousUser", 401, False),
    ]
    audit.clear()
    await waits(bob, running, seconds=1)
    assert audit == [("GET", path, "bob", 200, True)]


async def test_the_audit_log_has_each_claim_that_waits_once(bob, audit):
    await sync_to_async(bob.register)()
    status, _, body = await claims(bob, bob.submit)
    audited = [line for line in audit if line[1].endswith("/claim")]
    assert (status, body["task"]["attempt"]) == (200, 1)
    assert audited == [("POST", f"{V1}/tasks/claim", "bob", 200, True)]
    audit.clear()
    assert (await claims(bob, None, seconds=1))[2] == {"task": None}
    assert audit == [("POST", f"{V1}/tasks/claim", "bob", 200, True)]


async def test_the_audit_log_has_the_error_that_a_wait_ends_with(bob, running, audit, settings_of):
    from zndraw_joblib.models import Task

    status, headers, _ = await waits(bob, running, lambda: Task.objects.all().delete())
    assert status == 404
    assert b"preference-applied" not in headers
    assert audit == [("GET", f"{V1}/tasks/{running}", "bob", 404, False)]


async def test_a_task_is_granted_although_middleware_replaces_the_response(bob, with_middleware):
    with_middleware("replacing")
    await sync_to_async(bob.register)()
    assert (await claims(bob, bob.submit))[2]["task"]["attempt"] == 1


@pytest.fixture
def tenants(settings, with_middleware):
    with_middleware("ContextTenant", "ThreadTenant")
    settings.DATABASE_ROUTERS = ["tests.middleware.TenantRouter"]
    middleware.routed.clear()
    return middleware.routed


async def test_queries_go_to_the_tenant_of_their_request(bob, running, tenants, settings_of):
    """With one thread, which serves requests of both tenants in turn."""
    settings_of(api_threads=1)
    lane = ApiLane(Host())
    for name in ("a", "b", "a"):
        tenants.clear()
        request = scope(f"{V1}/tasks/{running}", x_tenant=name.encode(), **token(bob))
        talk = ApplicationCommunicator(lane, request)
        await talk.send_input(REQUEST)
        assert (await answer(talk))[0] == 200
        assert set(tenants) == {(name, name)}


async def test_a_tenant_is_not_the_next_requests(bob, tenants, settings_of):
    """Though the middleware takes the context variable back from nobody."""
    settings_of(api_threads=1)
    lane = ApiLane(Host())
    for headers, expected in (({"x_tenant": b"a"}, "a"), ({}, None)):
        tenants.clear()
        talk = ApplicationCommunicator(lane, scope(f"{V1}/workers", **headers, **token(bob)))
        await talk.send_input(REQUEST)
        assert (await answer(talk))[0] == 200
        assert set(tenants) == {(expected, expected)}


async def test_a_wait_looks_into_the_database_of_its_tenant(bob, tenants, settings_of):
    """Another tenant's requests are answered by the same thread meanwhile."""
    settings_of(api_threads=1)
    await sync_to_async(bob.register)()
    lane = ApiLane(Host())
    request = scope(f"{V1}/tasks/claim", "POST", prefer=b"wait=20", x_tenant=b"a", **token(bob))
    claiming = ApplicationCommunicator(lane, request)
    await claiming.send_input(REQUEST)
    while not get_hub().work._lines:
        await asyncio.sleep(0.01)
    other = ApplicationCommunicator(lane, scope(f"{V1}/workers", x_tenant=b"b", **token(bob)))
    await other.send_input(REQUEST)
    # A wait holds no thread, though middleware is sync only.
    assert (await answer(other))[0] == 200
    assert ("b", "b") in tenants
    tenants.clear()
    await sync_to_async(bob.submit)()
    assert json.loads((await answer(claiming))[2])["task"]["attempt"] == 1
    assert set(tenants) == {("a", "a")}


def logged_in(person):
    """The cookies of a browser in which a person logged in, and its CSRF token."""
    session = SessionStore()
    session[SESSION_KEY] = str(person.user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = person.user.get_session_auth_hash()
    session.save()
    secret = _get_new_csrf_string()
    return f"sessionid={session.session_key}; csrftoken={secret}".encode(), secret.encode()


async def test_session_requests_are_answered_and_need_a_csrf_token(bob, running):
    cookie, secret = await sync_to_async(logged_in)(bob)
    host = Host()
    status, _, body = await ask(host, scope("/v1/me", cookie=cookie))
    assert (status, json.loads(body)) == (200, {"id": str(bob.user.pk)})
    request = scope(f"{V1}/workers", "POST", cookie=cookie)
    status, headers, _ = await ask(host, request)
    assert (status, lower(headers)[b"content-type"]) == (403, b"application/problem+json")
    request = scope(f"{V1}/workers", "POST", cookie=cookie, x_csrftoken=secret)
    assert (await ask(host, request))[0] == 201
    assert not host.paths


async def test_session_requests_may_wait(bob, running, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    cookie, _ = await sync_to_async(logged_in)(bob)
    request = scope(f"{V1}/tasks/{running}", cookie=cookie, prefer=b"wait=20")
    status, headers, task = await waited(
        request, lambda: bob.report(running, "completed"), lambda hub: hub.ends._waiters
    )
    assert (status, task["status"]) == (200, "completed")
    assert b"sessionid=" in headers[b"set-cookie"]


async def test_middleware_may_answer_by_itself(bob, running, with_middleware):
    with_middleware("maintenance")
    for headers in ({}, {"prefer": b"wait=20"}):
        request = scope(f"{V1}/tasks/{running}", **headers, **token(bob))
        assert (await ask(Host(), request))[::2] == (503, b"closed for today")


async def test_middleware_may_choose_other_urls(bob, with_middleware):
    with_middleware("moved")
    request = scope("/v1/me", "PUT", **token(bob))
    assert (await ask(Host(), request, {**REQUEST, "body": b"abc"}))[2] == b"other 3"


async def test_other_urls_get_no_part_of_a_body_for_the_whole(bob, with_middleware, settings_of):
    with_middleware("moved")
    settings_of(max_body_bytes=10)
    request = scope("/v1/me", "PUT", **token(bob))
    assert (await ask(Host(), request, {**REQUEST, "body": b"x" * 11}))[2] == b"other 11"
    parts = [{**REQUEST, "body": b"x" * 11, "more_body": True}, {**REQUEST, "body": b"x"}]
    assert (await ask(Host(), request, *parts))[0] in {400, 413}


async def test_middleware_may_read_the_body(bob, with_middleware):
    with_middleware("body_reading")
    body = {"category": "modifiers", "name": "Rotate", "schema": {}}
    request = scope(f"{V1}/rooms/open/jobs", "PUT", content_type=b"application/json", **token(bob))
    status = (await ask(Host(), request, {**REQUEST, "body": json.dumps(body).encode()}))[0]
    assert status == 201


async def test_the_body_of_a_claim_that_waits_is_read_at_each_look(bob):
    worker = await sync_to_async(bob.worker)()
    await sync_to_async(bob.register)(worker_id=worker)
    request = scope(
        f"{V1}/tasks/claim",
        "POST",
        prefer=b"wait=20",
        content_type=b"application/json",
        **token(bob),
    )
    body = json.dumps({"worker_id": worker, "start": True}).encode()
    status, _, got = await waited(request, bob.submit, lambda hub: hub.work._lines, body)
    assert (status, got["task"]["worker_id"], got["task"]["status"]) == (200, worker, "running")


@pytest.mark.parametrize("name", ["streaming", "async_streaming"])
async def test_middleware_may_stream_the_response(bob, running, with_middleware, name):
    with_middleware(name)
    status, _, body = await ask(Host(), scope(f"{V1}/tasks/{running}", **token(bob)))
    assert (status, json.loads(body)["id"]) == (200, running)


async def test_an_exception_of_middleware_is_the_hosts_error_page(bob, with_middleware):
    with_middleware("failing")
    status, headers, _ = await ask(Host(), scope(f"{V1}/workers", **token(bob)))
    assert (status, lower(headers)[b"content-type"]) == (500, b"text/html; charset=utf-8")


async def test_the_callers_language_is_active(bob, settings, settings_of):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    settings_of(identity="tests.waiting.test_middleware.language")
    request = scope("/v1/me", accept_language=b"de", **token(bob))
    _, headers, body = await ask(Host(), request)
    assert json.loads(body) == {"id": "de"}
    assert lower(headers)[b"content-language"] == b"de"


def language(request):
    return get_language()


async def test_hosts_with_atomic_requests_are_served(bob, running, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    status, _, task = await waits(bob, running, lambda: bob.report(running, "completed"))
    assert (status, task["status"]) == (200, "completed")
    await sync_to_async(bob.register)()
    assert (await claims(bob, bob.submit))[2]["task"]["attempt"] == 1


async def test_a_wait_counts_once_for_throttles(bob, alice, monkeypatch):
    from rest_framework.throttling import UserRateThrottle

    from zndraw_joblib.api.base import JobLibView

    class Once(UserRateThrottle):
        rate = "1/hour"
        scope = "once-on-the-lane"

    await sync_to_async(bob.register)()
    monkeypatch.setattr(JobLibView, "throttle_classes", [Once])
    # The view runs twice: before the wait, and when the submit ends it.
    status, _, body = await claims(bob, alice.submit)
    assert (status, body["task"]["attempt"]) == (200, 1)
    assert (await claims(bob, None, seconds=1))[0] == 429


async def test_middleware_that_catches_everything_ends_the_wait(bob, running, with_middleware):
    """It catches the exception by which a request leaves the middleware to wait."""
    with_middleware("catching_all")
    request = scope(f"{V1}/tasks/{running}", prefer=b"wait=20", **token(bob))
    assert (await ask(Host(), request))[::2] == (500, b"caught")
