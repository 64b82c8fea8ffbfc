"""Exceptions that a site's hooks, permissions, authenticators and throttles raise."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from django.core.signals import got_request_exception
from django.test import AsyncClient
from django.urls import path as route_to

from tests import host
from tests.factories import V1
from tests.sockets import Socket, token as socket_token
from tests.waiting.test_lane import Host, get_response, lower, scope, token
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.models import Task
from zndraw_joblib.routing import websocket_urlpatterns

pytestmark = pytest.mark.any_database

#: Where the site raises: a setting of its hooks, or a class of each request.
HOOKS = ("identity", "is_admin", "room_access")
CLASSES = {
    "authenticator": ("authentication_classes", host.Authentication),
    "permission": ("permission_classes", host.Permission),
    "throttle": ("throttle_classes", host.Throttle),
}


@pytest.fixture
def raising(monkeypatch):
    """A function that makes the site raise an exception from now on."""
    monkeypatch.setattr(host, "raised", [])

    def begin(error):
        host.raised[:] = [error]

    return begin


@pytest.fixture(params=(*HOOKS, *CLASSES))
def place(request, settings_of, monkeypatch):
    if request.param in HOOKS:
        settings_of(**{request.param: f"tests.host.{request.param}"})
    else:
        name, cls = CLASSES[request.param]
        monkeypatch.setattr(JobLibView, name, [cls, *getattr(JobLibView, name)])
    return request.param


def check(answer, status, type_, text, members, headers, detail=None):
    """Assert that a response or a document of a batch is this refusal."""
    document = answer.json()
    assert answer.status_code == status, document
    assert answer["Content-Type"] == "application/problem+json"
    assert document["type"] == (type_ if ":" in type_ else f"/v1/problems/{type_}")
    assert (document["status"], document["detail"]) == (status, text)
    assert {name: document.get(name) for name in members} == members
    assert {"type", "title", "status", "detail", "instance"} <= set(document)
    assert {name: answer.get(name) for name in headers} == headers
    assert "ErrorDetail" not in answer.content.decode()
    if "errors" not in members:
        assert "errors" not in document


@pytest.mark.parametrize("refusal", host.REFUSALS)
def test_an_exception_of_the_site_keeps_its_status_and_text(bob, place, raising, refusal):
    bob.register()
    error, *expected = host.REFUSALS[refusal]
    raising(error)
    # Each hook is asked only where the answer depends on it.
    if place != "is_admin":
        check(bob.submit(), *expected)
    if place != "room_access":
        check(bob.get("/workers"), *expected)
    assert not Task.objects.exists()


@pytest.mark.parametrize("error", [RuntimeError("a bug"), host.Redirect()], ids=["bug", "302"])
def test_other_exceptions_of_the_site_are_500_and_logged(bob, place, raising, error, caplog):
    failed = []

    def note(**kwargs):
        failed.append(kwargs)

    got_request_exception.connect(note)
    raising(error)
    # The test client would raise the exception.
    bob.client.raise_request_exception = False
    try:
        answer = bob.get("/rooms/open/tasks" if place == "room_access" else "/workers")
    finally:
        got_request_exception.disconnect(note)
    assert (answer.status_code, answer.json()["type"]) == (500, "/v1/problems/server-error")
    assert failed
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_a_problem_of_a_401_by_any_exception_has_a_challenge(bob, settings_of, raising):
    class Expired(host.Locked):
        status_code = 401

    settings_of(identity="tests.host.identity")
    raising(Expired("Sign in again."))
    answer = bob.get("/workers")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Token")
    assert answer.json()["detail"] == "Sign in again."


def test_a_refusal_of_one_room_is_the_result_of_its_own_reports(bob, alice, settings_of, raising):
    """The other reports of the batch are carried out, and have their own results."""
    settings_of(room_access="tests.host.locked_room")
    for room in ("locked", "open"):
        bob.register(room)
    locked, mine = (
        alice.submit(room, f"{room}:modifiers:Rotate").json()["id"] for room in ("locked", "open")
    )
    raising(host.Locked())
    reports = [{"id": task, "status": "cancelled"} for task in (locked, mine)]
    first, second = alice.report_many(reports)
    assert (first["status"], first["problem"]["type"]) == (423, "about:blank")
    assert first["problem"]["detail"] == "The room is locked."
    assert (second["status"], second["task"]["status"]) == (200, "cancelled")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("refusal", ["423", "503", "401 of simplejwt", "Http404"])
async def test_refusals_of_a_wait_are_the_same_under_asgi_and_in_the_lane(
    bob, settings_of, raising, refusal
):
    settings_of(identity="tests.host.identity")
    error, status, type_, text, _, headers = host.REFUSALS[refusal]
    raising(error)
    claim = f"{V1}/tasks/claim"
    sent = {"Authorization": f"Token {bob.token}", "Prefer": "wait=20"}
    answer = await AsyncClient().post(claim, {}, "application/json", headers=sent)
    more = {"prefer": b"wait=20", "content_type": b"application/json", **token(bob)}
    lane_status, lane_headers, body = await get_response(Host(), scope(claim, "POST", **more))
    assert (lane_status, json.loads(body)) == (answer.status_code, answer.json())
    assert (answer.status_code, answer.json()["detail"]) == (status, text)
    for name, value in headers.items():
        assert answer[name] == lower(lane_headers)[name.lower().encode()].decode() == value
    assert answer.json()["type"].endswith(type_)


@pytest.mark.django_db(transaction=True)
def test_a_refusal_after_a_wait_is_only_the_callers_own(bob):
    """The hub asks the hooks of several callers in one read."""
    from zndraw_joblib.events.queries import TasksKey, read_tasks

    bob.register()
    task_id = UUID(bob.submit().json()["id"])

    def refuse(tasks):
        raise host.Locked

    keys: list[TasksKey] = [((task_id,), refuse, True), ((task_id,), list, True)]
    refused, found = read_tasks(keys)
    assert isinstance(refused, host.Locked)
    assert isinstance(found, list)
    assert [task.id for task in found] == [task_id]


CLOSED = {"401": 4401, "403": 4403, "Http404": 4404, "423": 4423, "402": 4402, "503": 4503}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["tasks/{task}", "rooms/open"])
@pytest.mark.parametrize("refusal", CLOSED)
async def test_a_refusal_closes_a_websocket_with_its_status(
    bob, alice, settings_of, raising, path, refusal, caplog
):
    settings_of(room_access="tests.host.room_access")
    await sync_to_async(bob.register)()
    task = (await sync_to_async(bob.submit)()).json()["id"]
    raising(host.REFUSALS[refusal][0])
    async with Socket(path.format(task=task), socket_token(alice)) as socket:
        assert await socket.code() == CLOSED[refusal]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("error", "code"), [(host.Locked(), 4423), (RuntimeError(), 1011)])
async def test_an_authenticators_exception_closes_a_websocket(bob, settings, raising, error, code):
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_AUTHENTICATION_CLASSES": ["tests.host.Authentication"],
    }
    raising(error)
    async with Socket("rooms/open", socket_token(bob)) as socket:
        assert await socket.code() == code


@pytest.mark.django_db(transaction=True)
async def test_hooks_of_a_websocket_see_the_variables_of_the_sites_prefix(alice, settings_of):
    settings_of(room_access="tests.host.of_tenant")
    site = URLRouter([route_to("t/<slug:tenant>/", URLRouter(websocket_urlpatterns))])
    room = "/t/{}/ws/v1/joblib/rooms/open/"
    async with Socket(room.format("other"), socket_token(alice), application=site) as socket:
        assert await socket.code() == 4404
    async with Socket(room.format("acme"), socket_token(alice), application=site) as socket:
        assert await socket.communicator.receive_nothing(0.2)


def test_a_sites_own_view_gets_the_hooks_own_exception(bob, settings_of, raising, rf):
    """A host's view that asks a `Caller` has a handler of its own for DRF's exceptions."""
    from zndraw_joblib.access import Caller

    settings_of(room_access="tests.host.room_access")
    raising(host.Locked())
    request = rf.get("/")
    request.user = bob.user
    with pytest.raises(host.Locked):
        Caller(request).may("read", "open")
