"""WebSockets: authentication, access, and the documents that they send."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.urls import path as route_to, re_path
from django.utils import timezone

from example_project.accounts.models import User
from tests.sockets import Socket, token
from zndraw_joblib import consumers
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.models import Task
from zndraw_joblib.routing import websocket_urlpatterns

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN_ID = "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"


async def test_the_task_is_sent_when_it_ends_and_the_socket_closes(bob, running):
    async with Socket(f"tasks/{running}", token(bob)) as socket:
        assert await socket.communicator.receive_nothing(0.3)
        await sync_to_async(bob.report)(running, "completed")
        sent = await socket.json()
        assert sent == (await sync_to_async(bob.get)(f"/tasks/{running}")).json()
        assert sent["status"] == "completed"
        assert await socket.code() == 1000


async def test_an_ended_task_is_sent_at_once(bob, running):
    await sync_to_async(bob.report)(running, "completed")
    async with Socket(f"tasks/{running}", token(bob)) as socket:
        assert (await socket.json())["status"] == "completed"
        assert await socket.code() == 1000


async def test_each_end_in_the_room_is_sent(bob, running):
    await sync_to_async(bob.submit)()
    old = await sync_to_async(bob.submit)()
    await sync_to_async(bob.report)(old.json()["id"], "cancelled")
    async with Socket("rooms/open", token(bob)) as socket:
        await asyncio.sleep(0.5)
        await sync_to_async(bob.report)(running, "completed")
        assert (await socket.json())["id"] == running
        other = await sync_to_async(bob.claim)()
        await sync_to_async(bob.report)(other["id"], "cancelled")
        assert (await socket.json())["id"] == other["id"]
        assert await socket.communicator.receive_nothing(0.3)


async def test_an_end_is_sent_at_once_where_a_sites_only_waiter_is_the_socket_of_a_room(
    bob, running, monkeypatch
):
    monkeypatch.setattr(consumers, "REREAD_SECONDS", 3600)
    publisher.reset()
    held, publish = [], publisher.publish
    monkeypatch.setattr(publisher, "publish", lambda *message: held.append(message))
    async with Socket("rooms/open", token(bob)) as socket:
        assert await socket.communicator.receive_nothing(0.3)
        await sync_to_async(bob.report)(running, "completed")
        # Sent while the loop sleeps, so that nothing but the message can wake it.
        timer = threading.Timer(0.3, lambda: [publish(*message) for message in held])
        timer.start()
        assert (await socket.json())["id"] == running
        timer.join()


async def test_ends_in_the_room_are_sent_after_the_databases_clock_went_back(bob, running):
    old = await sync_to_async(bob.submit)()
    await sync_to_async(bob.report)(old.json()["id"], "cancelled")
    ahead = timezone.now() + timedelta(hours=1)
    await Task.objects.filter(pk=old.json()["id"]).aupdate(completed_at=ahead, changed_at=ahead)
    async with Socket("rooms/open", token(bob)) as socket:
        await asyncio.sleep(0.5)
        await sync_to_async(bob.report)(running, "completed")
        assert (await socket.json())["id"] == running
        assert await socket.communicator.receive_nothing(0.3)


async def test_the_reread_sends_ends_in_a_room_when_events_are_lost(bob, running, monkeypatch):
    monkeypatch.setattr(consumers, "REREAD_SECONDS", 0.3)
    monkeypatch.setattr("zndraw_joblib.events.publisher.publisher.publish", lambda *args: None)
    async with Socket("rooms/open", token(bob)) as socket:
        await asyncio.sleep(0.5)
        await sync_to_async(bob.report)(running, "completed")
        assert (await socket.json())["id"] == running


@pytest.mark.parametrize("path", ["tasks/{}", "rooms/open"])
async def test_missing_and_wrong_credentials_are_refused(bob, running, path):
    for headers in ((), [(b"authorization", b"Token wrong")]):
        async with Socket(path.format(running), headers) as socket:
            assert await socket.code() == 4401


async def test_a_token_in_the_query_is_ignored(bob, running):
    async with Socket(f"tasks/{running}/?token={bob.token}") as socket:
        assert await socket.code() == 4401


async def test_a_token_is_accepted_as_a_subprotocol(bob, running):
    await sync_to_async(bob.report)(running, "completed")
    async with Socket(f"tasks/{running}", (), ["token", bob.token]) as socket:
        assert socket.subprotocol == "token"
        assert (await socket.json())["id"] == running


def session_cookie(user):
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = django_settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return (b"cookie", f"{django_settings.SESSION_COOKIE_NAME}={session.session_key}".encode())


async def test_a_session_is_accepted_from_this_site(bob, running):
    await sync_to_async(bob.report)(running, "completed")
    cookie = await sync_to_async(session_cookie)(bob.user)
    async with Socket(f"tasks/{running}", [cookie, (b"origin", b"http://testserver")]) as socket:
        assert (await socket.json())["id"] == running


def logged_out(user):
    SessionStore(Session.objects.get().session_key).flush()


def deactivated(user):
    User.objects.filter(pk=user.pk).update(is_active=False)


def with_another_password(user):
    user.set_password("another")
    user.save()


def without_permissions(user):
    User.objects.filter(pk=user.pk).update(is_superuser=False)


ENDS = [(logged_out, 4401), (deactivated, 4401), (with_another_password, 4401)]


@pytest.mark.parametrize(("change", "code"), [*ENDS, (without_permissions, 4404)])
async def test_a_session_is_checked_again_at_each_read(
    root, monkeypatch, settings_of, change, code
):
    settings_of(room_access="tests.api.test_access.no_access")
    monkeypatch.setattr(consumers, "REREAD_SECONDS", 0.3)
    async with Socket("rooms/open", [await sync_to_async(session_cookie)(root.user)]) as socket:
        assert await socket.communicator.receive_nothing(1)
        await sync_to_async(change)(root.user)
        assert await socket.code() == code


@pytest.mark.parametrize(("change", "code"), ENDS)
async def test_a_session_that_ended_closes_the_connection_without_the_task(
    bob, carol, running, change, code
):
    cookie = await sync_to_async(session_cookie)(carol.user)
    async with Socket(f"tasks/{running}", [cookie]) as socket:
        assert await socket.communicator.receive_nothing(0.5)
        await sync_to_async(change)(carol.user)
        await sync_to_async(bob.report)(running, "completed")
        assert await socket.code() == code


@pytest.mark.parametrize("other_session", [False, True])
async def test_the_user_in_the_scope_is_the_caller(bob, carol, settings_of, other_session):
    """A host may set it by its own authentication, even if the session is another user's."""
    settings_of(room_access="tests.factories.by_room")
    more = {"user": bob.user}
    if other_session:
        await sync_to_async(session_cookie)(carol.user)
        more["session"] = SessionStore((await Session.objects.aget()).session_key)
    for room, code in (("bobs", None), ("carols", 4404)):
        application = URLRouter(websocket_urlpatterns)
        async with Socket(f"rooms/{room}", application=application, **more) as socket:
            if code:
                assert await socket.code() == code
            else:
                assert await socket.communicator.receive_nothing(0.5)


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"http://[", b""])
async def test_other_origins_are_refused(bob, running, origin):
    for path in (f"tasks/{running}", "rooms/open"):
        async with Socket(path, [*token(bob), (b"origin", origin)]) as socket:
            assert await socket.code() == 4403


@pytest.mark.parametrize("path", [f"tasks/{UNKNOWN_ID}", "tasks/nope", "rooms/a:b", "rooms/carols"])
async def test_tasks_and_rooms_that_the_caller_may_not_read_are_not_found(bob, path, settings_of):
    settings_of(room_access="tests.factories.by_room")
    async with Socket(path, token(bob)) as socket:
        assert await socket.code() == 4404


async def test_a_task_in_a_room_without_access_is_not_found(bob, carol, running, settings_of):
    settings_of(room_access="tests.factories.by_room")
    await sync_to_async(Task.objects.update)(room_id="bobs")
    async with Socket(f"tasks/{running}", token(carol)) as socket:
        assert await socket.code() == 4404


NOWHERE = ["", "/", "/x/", "/tasks", "/tasks//", "/tasks/a/b/", "/rooms/", "/rooms/a/b", "/\n/x"]


@pytest.mark.parametrize("headers", [(), [(b"authorization", b"Token wrong")]])
@pytest.mark.parametrize(
    "path", [*(f"/ws/v1/joblib{path}" for path in NOWHERE), "/", "/v1/joblib/workers", "/ws/v1/x"]
)
async def test_an_unknown_path_is_not_found(db, path, headers):
    async with Socket(path, headers, ["token", "wrong"]) as socket:
        # Accepted, because a browser fails a connection that selects none of its subprotocols.
        assert socket.subprotocol == "token"
        assert await socket.code() == 4404


async def test_the_trailing_slash_is_optional(bob, running):
    async with (
        Socket(f"/ws/v1/joblib/tasks/{running}", token(bob)) as task,
        Socket("/ws/v1/joblib/rooms/open", token(bob)) as room,
    ):
        await asyncio.sleep(0.5)
        await sync_to_async(bob.report)(running, "completed")
        assert (await task.json())["id"] == (await room.json())["id"] == running


async def hosts_own(scope, receive, send):
    await send({"type": "websocket.accept", "subprotocol": scope["path"][1:]})


async def test_a_host_may_mount_the_routes_under_a_prefix_and_add_its_own(bob, running):
    await sync_to_async(bob.report)(running, "completed")
    own = re_path("^ws/", hosts_own)
    mounted = URLRouter([route_to("site/", URLRouter(websocket_urlpatterns)), own])
    for application, prefix in ((URLRouter([*websocket_urlpatterns, own]), ""), (mounted, "/site")):
        path = f"{prefix}/ws/v1/joblib/tasks/{running}/"
        async with Socket(path, token(bob), application=application) as socket:
            assert (await socket.json())["id"] == running
        async with Socket(f"{prefix}/ws/v1/joblib/x", application=application) as socket:
            assert await socket.code() == 4404
        async with Socket("/ws/v1/joblibs", application=application) as socket:
            assert socket.subprotocol == "ws/v1/joblibs"


async def test_messages_of_clients_are_ignored(bob, running):
    async with Socket(f"tasks/{running}", token(bob)) as socket:
        await socket.send(text="{nonsense")
        await socket.send(bytes=b"\x00")
        await sync_to_async(bob.report)(running, "completed")
        assert (await socket.json())["id"] == running
