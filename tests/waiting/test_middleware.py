"""`ApiLane` runs the host's middleware, for waiting requests too."""

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
from tests.waiting.test_lane import Host, answer, get_response, lower, scope, token
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.events.hub import get_hub

pytestmark = pytest.mark.django_db(transaction=True)

REQUEST = {"type": "http.request", "body": b""}


@pytest.fixture
def with_middleware(settings):
    """A function that adds middleware of `tests.middleware`, at the end or at the beginning."""

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


async def wait_for_end(person, task_id, change=None, *, seconds=20, **headers):
    """Wait for a task's end and call `change` meanwhile; returns status, headers and JSON."""
    return await response_after(
        scope(
            f"{V1}/tasks/{task_id}", prefer=f"wait={seconds}".encode(), **headers, **token(person)
        ),
        change,
        lambda hub: hub.ends._waiters,
    )


async def response_after(request, change, is_waiting, body=b""):
    communicator = ApplicationCommunicator(ApiLane(Host()), request)
    await communicator.send_input({**REQUEST, "body": body})
    if change:
        while not is_waiting(get_hub()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await sync_to_async(change)()
    status, headers, content = await answer(communicator)
    return status, lower(headers), json.loads(content)


async def claim(person, change, seconds=20, **headers):
    request = scope(
        f"{V1}/tasks/claim", "POST", prefer=f"wait={seconds}".encode(), **headers, **token(person)
    )
    return await response_after(request, change, lambda hub: hub.work._lines)


@pytest.mark.parametrize("name", ["cors", "async_cors"])
async def test_middleware_adds_cors_headers_to_responses_errors_and_waits(
    bob, running, with_middleware, name
):
    """The middleware is sync-only or async-only."""
    with_middleware(name, first=True)
    origin = middleware.ORIGIN.encode()
    for request in (
        scope(f"{V1}/workers", **token(bob)),
        scope(f"{V1}/workers"),
        scope(f"{V1}/nothing", **token(bob)),
    ):
        assert (
            lower((await get_response(Host(), request))[1])[b"access-control-allow-origin"]
            == origin
        )
    status, headers, task = await wait_for_end(
        bob, running, lambda: bob.report(running, "completed")
    )
    assert (status, task["status"]) == (200, "completed")
    assert headers[b"preference-applied"] == b"wait=20"
    assert headers[b"access-control-allow-origin"] == origin


async def test_middleware_may_answer_a_preflight_request(with_middleware):
    with_middleware("cors", first=True)
    status, headers, _ = await get_response(Host(), scope(f"{V1}/tasks/claim", "OPTIONS"))
    assert status == 200
    assert lower(headers)[b"access-control-allow-origin"] == middleware.ORIGIN.encode()


async def test_requests_over_plain_http_are_redirected_to_tls(bob, running, settings):
    settings.SECURE_SSL_REDIRECT = True
    for headers in ({}, {"prefer": b"wait=20"}):
        request = scope(f"{V1}/tasks/{running}", **headers, **token(bob))
        status, headers, _ = await get_response(Host(), request)
        assert status == 301
        assert lower(headers)[b"location"] == f"https://localhost{V1}/tasks/{running}".encode()
    assert b"preference-applied" not in lower(headers)
    request = {**scope(f"{V1}/tasks/{running}", **token(bob)), "scheme": "https"}
    assert (await get_response(Host(), request))[0] == 200


async def test_middleware_logs_each_response_once_with_its_user(bob, running, audit):
    path = f"{V1}/tasks/{running}"
    await get_response(Host(), scope(path, **token(bob)))
    await get_response(Host(), scope(f"{V1}/workers"))
    assert audit == [
        ("GET", path, "bob", 200, False),
        ("GET", f"{V1}/workers", "AnonymousUser", 401, False),
    ]
    audit.clear()
    await wait_for_end(bob, running, seconds=1)
    assert audit == [("GET", path, "bob", 200, True)]


async def test_middleware_logs_a_waiting_claim_once(bob, audit):
    await sync_to_async(bob.register)()
    status, _, body = await claim(bob, bob.submit)
    audited = [line for line in audit if line[1].endswith("/claim")]
    assert (status, body["task"]["attempt"]) == (200, 1)
    assert audited == [("POST", f"{V1}/tasks/claim", "bob", 200, True)]
    audit.clear()
    assert (await claim(bob, None, seconds=1))[2] == {"task": None}
    assert audit == [("POST", f"{V1}/tasks/claim", "bob", 200, True)]


async def test_middleware_logs_the_error_at_the_end_of_a_wait(bob, running, audit, settings_of):
    from zndraw_joblib.models import Task

    status, headers, _ = await wait_for_end(bob, running, lambda: Task.objects.all().delete())
    assert status == 404
    assert b"preference-applied" not in headers
    assert audit == [("GET", f"{V1}/tasks/{running}", "bob", 404, False)]


async def test_a_task_is_granted_although_middleware_replaces_the_response(bob, with_middleware):
    with_middleware("replacing")
    await sync_to_async(bob.register)()
    assert (await claim(bob, bob.submit))[2]["task"]["attempt"] == 1


@pytest.fixture
def tenants(settings, with_middleware):
    with_middleware("ContextTenant", "ThreadTenant")
    settings.DATABASE_ROUTERS = ["tests.middleware.TenantRouter"]
    middleware.routed.clear()
    return middleware.routed


async def test_queries_go_to_the_tenant_of_their_request(bob, running, tenants, settings_of):
    """One thread serves requests of both tenants in turn."""
    settings_of(api_threads=1)
    lane = ApiLane(Host())
    for name in ("a", "b", "a"):
        tenants.clear()
        request = scope(f"{V1}/tasks/{running}", x_tenant=name.encode(), **token(bob))
        communicator = ApplicationCommunicator(lane, request)
        await communicator.send_input(REQUEST)
        assert (await answer(communicator))[0] == 200
        assert set(tenants) == {(name, name)}


async def test_a_tenant_does_not_leak_into_the_next_request(bob, tenants, settings_of):
    """The middleware does not reset its context variable."""
    settings_of(api_threads=1)
    lane = ApiLane(Host())
    for headers, expected in (({"x_tenant": b"a"}, "a"), ({}, None)):
        tenants.clear()
        communicator = ApplicationCommunicator(
            lane, scope(f"{V1}/workers", **headers, **token(bob))
        )
        await communicator.send_input(REQUEST)
        assert (await answer(communicator))[0] == 200
        assert set(tenants) == {(expected, expected)}


async def test_a_waiting_claim_queries_the_database_of_its_tenant(bob, tenants, settings_of):
    """The same thread answers a request of another tenant during the wait."""
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
    # The only thread is free during a wait, although the middleware is sync-only.
    assert (await answer(other))[0] == 200
    assert ("b", "b") in tenants
    tenants.clear()
    await sync_to_async(bob.submit)()
    assert json.loads((await answer(claiming))[2])["task"]["attempt"] == 1
    assert set(tenants) == {("a", "a")}


def logged_in(person):
    """The cookies of a logged-in browser, and its CSRF token."""
    session = SessionStore()
    session[SESSION_KEY] = str(person.user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = person.user.get_session_auth_hash()
    session.save()
    secret = _get_new_csrf_string()
    return f"sessionid={session.session_key}; csrftoken={secret}".encode(), secret.encode()


async def test_session_requests_are_answered_and_writes_need_a_csrf_token(bob, running):
    cookie, secret = await sync_to_async(logged_in)(bob)
    host = Host()
    status, _, body = await get_response(host, scope("/v1/me", cookie=cookie))
    assert (status, json.loads(body)) == (200, {"id": str(bob.user.pk)})
    request = scope(f"{V1}/workers", "POST", cookie=cookie)
    status, headers, _ = await get_response(host, request)
    assert (status, lower(headers)[b"content-type"]) == (403, b"application/problem+json")
    request = scope(f"{V1}/workers", "POST", cookie=cookie, x_csrftoken=secret)
    assert (await get_response(host, request))[0] == 201
    assert not host.paths


async def test_session_requests_may_wait(bob, running, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    cookie, _ = await sync_to_async(logged_in)(bob)
    request = scope(f"{V1}/tasks/{running}", cookie=cookie, prefer=b"wait=20")
    status, headers, task = await response_after(
        request, lambda: bob.report(running, "completed"), lambda hub: hub.ends._waiters
    )
    assert (status, task["status"]) == (200, "completed")
    assert b"sessionid=" in headers[b"set-cookie"]


async def test_middleware_may_answer_without_the_view(bob, running, with_middleware):
    with_middleware("maintenance")
    for headers in ({}, {"prefer": b"wait=20"}):
        request = scope(f"{V1}/tasks/{running}", **headers, **token(bob))
        assert (await get_response(Host(), request))[::2] == (503, b"closed for today")


async def test_middleware_may_set_another_urlconf(bob, with_middleware):
    with_middleware("moved")
    request = scope("/v1/me", "PUT", **token(bob))
    assert (await get_response(Host(), request, {**REQUEST, "body": b"abc"}))[2] == b"other 3"


async def test_a_view_of_another_urlconf_gets_the_whole_body_or_an_error(
    bob, with_middleware, settings_of
):
    with_middleware("moved")
    settings_of(max_body_bytes=10)
    request = scope("/v1/me", "PUT", **token(bob))
    assert (await get_response(Host(), request, {**REQUEST, "body": b"x" * 11}))[2] == b"other 11"
    parts = [{**REQUEST, "body": b"x" * 11, "more_body": True}, {**REQUEST, "body": b"x"}]
    assert (await get_response(Host(), request, *parts))[0] in {400, 413}


async def test_middleware_may_read_the_body(bob, with_middleware):
    with_middleware("body_reading")
    body = {"category": "modifiers", "name": "Rotate", "schema": {}}
    request = scope(f"{V1}/rooms/open/jobs", "PUT", content_type=b"application/json", **token(bob))
    status = (await get_response(Host(), request, {**REQUEST, "body": json.dumps(body).encode()}))[
        0
    ]
    assert status == 201


async def test_the_body_of_a_waiting_claim_is_used_at_each_attempt(bob):
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
    status, _, got = await response_after(request, bob.submit, lambda hub: hub.work._lines, body)
    assert (status, got["task"]["worker_id"], got["task"]["status"]) == (200, worker, "running")


@pytest.mark.parametrize("name", ["streaming", "async_streaming"])
async def test_middleware_may_stream_the_response(bob, running, with_middleware, name):
    with_middleware(name)
    status, _, body = await get_response(Host(), scope(f"{V1}/tasks/{running}", **token(bob)))
    assert (status, json.loads(body)["id"]) == (200, running)


async def test_an_exception_in_middleware_is_answered_with_the_hosts_error_page(
    bob, with_middleware
):
    with_middleware("failing")
    status, headers, _ = await get_response(Host(), scope(f"{V1}/workers", **token(bob)))
    assert (status, lower(headers)[b"content-type"]) == (500, b"text/html; charset=utf-8")


async def test_the_callers_language_is_active(bob, settings, settings_of):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    settings_of(identity="tests.waiting.test_middleware.language")
    request = scope("/v1/me", accept_language=b"de", **token(bob))
    _, headers, body = await get_response(Host(), request)
    assert json.loads(body) == {"id": "de"}
    assert lower(headers)[b"content-language"] == b"de"


def language(request):
    return get_language()


async def test_hosts_with_atomic_requests_are_served(bob, running, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    status, _, task = await wait_for_end(bob, running, lambda: bob.report(running, "completed"))
    assert (status, task["status"]) == (200, "completed")
    await sync_to_async(bob.register)()
    assert (await claim(bob, bob.submit))[2]["task"]["attempt"] == 1


async def test_throttles_count_a_waiting_request_once(bob, alice, monkeypatch):
    from rest_framework.throttling import UserRateThrottle

    from zndraw_joblib.api.base import JobLibView

    class Once(UserRateThrottle):
        rate = "1/hour"
        scope = "once-on-the-lane"

    await sync_to_async(bob.register)()
    monkeypatch.setattr(JobLibView, "throttle_classes", [Once])
    # The view runs twice: before the wait, and when the submit ends it.
    status, _, body = await claim(bob, alice.submit)
    assert (status, body["task"]["attempt"]) == (200, 1)
    assert (await claim(bob, None, seconds=1))[0] == 429


async def test_middleware_that_catches_every_exception_ends_the_wait(bob, running, with_middleware):
    """A request leaves the middleware by an exception when it begins to wait."""
    with_middleware("catching_all")
    request = scope(f"{V1}/tasks/{running}", prefer=b"wait=20", **token(bob))
    assert (await get_response(Host(), request))[::2] == (500, b"caught")
