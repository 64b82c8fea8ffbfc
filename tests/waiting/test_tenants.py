"""Reads without the host's middleware go to the tenant that the host's hooks choose."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.management import CommandError, call_command
from django.db import DatabaseError

from tests.factories import V1
from tests.middleware import of_thread
from tests.sockets import Socket
from tests.waiting.test_lane import Host, answer, scope, token
from zndraw_joblib.contrib.asgi import ApiLane
from zndraw_joblib.events import reads
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task
from zndraw_joblib.services import sweep as sweeps
from zndraw_joblib.storage.rows import Report

pytestmark = pytest.mark.django_db(transaction=True)


def tenant_of(request):
    return request.headers.get("X-Tenant")


@contextmanager
def in_tenant(tenant):
    previous, of_thread.tenant = getattr(of_thread, "tenant", None), tenant
    try:
        yield
    finally:
        of_thread.tenant = previous


def all_tenants():
    return ["a", "b"]


#: (name of the thread, its tenant) for each choice of a database for this app.
routed: list[tuple[str, str | None]] = []


class Router:
    def db_for_write(self, model, **hints):
        if model._meta.app_label == "zndraw_joblib":
            thread = threading.current_thread().name
            routed.append((thread, getattr(of_thread, "tenant", None)))

    db_for_read = db_for_write


@pytest.fixture
def tenants(settings, settings_of):
    """The tenants that the queries of this app went to, since the last `clear()`."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.middleware.ThreadTenant"]
    settings.DATABASE_ROUTERS = ["tests.waiting.test_tenants.Router"]
    path = "tests.waiting.test_tenants"
    settings_of(
        tenant=f"{path}.tenant_of", in_tenant=f"{path}.in_tenant", tenants=f"{path}.all_tenants"
    )
    routed.clear()
    return routed


@pytest.fixture(params=["lane", "plain"])
def application(request):
    return ApiLane(Host()) if request.param == "lane" else get_asgi_application()


async def response_after(application, request, is_waiting, change, content=b""):
    """The JSON of a waiting request of the tenant `a`, with only the queries after its start."""
    communicator = ApplicationCommunicator(application, request)
    await communicator.send_input({"type": "http.request", "body": content})
    async with asyncio.timeout(10):
        while not is_waiting(get_hub("a")):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    routed.clear()

    def change_in_tenant():
        with in_tenant("a"):
            change()

    await sync_to_async(change_in_tenant)()
    body = (await answer(communicator))[2]
    await communicator.wait()
    return json.loads(body)


@pytest.mark.parametrize("is_lost", [False, True], ids=["message", "lost"])
async def test_a_wait_for_an_end_reads_the_rows_of_its_tenant(
    bob, running, tenants, application, monkeypatch, is_lost
):
    if is_lost:
        monkeypatch.setattr(publisher, "publish", lambda *args: None)
        monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    request = scope(f"{V1}/tasks/{running}", prefer=b"wait=20", x_tenant=b"a", **token(bob))
    task = await response_after(
        application,
        request,
        lambda hub: hub.ends._waiters,
        lambda: Task.objects.filter(pk=running).complete(),
    )
    assert task["status"] == "completed"
    assert any(thread.startswith("joblib-reads") for thread, _ in tenants)
    assert {tenant for _, tenant in tenants} == {"a"}


@pytest.mark.parametrize("is_lost", [False, True], ids=["message", "lost"])
async def test_a_waiting_claim_reads_and_claims_the_rows_of_its_tenant(
    bob, running, tenants, application, monkeypatch, is_lost
):
    if is_lost:
        monkeypatch.setattr(publisher, "publish", lambda *args: None)
        monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    request = scope(f"{V1}/tasks/claim", "POST", prefer=b"wait=20", x_tenant=b"a", **token(bob))
    claimed = await response_after(
        application,
        request,
        lambda hub: hub.work._lines,
        lambda: Job.objects.get().enqueue("open", {}, "alice"),
    )
    assert claimed["task"]["attempt"] == 1
    assert {tenant for _, tenant in tenants} == {"a"}


@pytest.mark.parametrize("is_lost", [False, True], ids=["message", "lost"])
async def test_a_wait_for_a_change_reads_and_watches_the_rows_of_its_tenant(
    bob, running, tenants, application, monkeypatch, is_lost
):
    if is_lost:
        monkeypatch.setattr(publisher, "publish", lambda *args: None)
        monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    known = await sync_to_async(lambda: bob.get(f"/tasks/{running}")["ETag"].encode())()
    path = f"{V1}/tasks/{running}"
    headers = {"if_none_match": known, "prefer": b"wait=20", "x_tenant": b"a"} | token(bob)
    task = await response_after(
        application,
        scope(path, **headers),
        lambda hub: hub.changes._waiters,
        lambda: Task.objects.move(
            [Report(UUID(running), TaskStatus.RUNNING, 1, progress=0.5)], bob.identity
        ),
    )
    assert task["progress"] == 0.5
    assert any(thread.startswith("joblib-reads") for thread, _ in tenants)
    assert {tenant for _, tenant in tenants} == {"a"}


@pytest.mark.parametrize("is_lost", [False, True], ids=["message", "lost"])
async def test_a_waiting_heartbeat_reads_the_rows_of_its_tenant(
    bob, running, tenants, application, monkeypatch, is_lost
):
    if is_lost:
        monkeypatch.setattr(publisher, "publish", lambda *args: None)
        monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    content = json.dumps({"tasks": [{"id": running, "attempt": 1}]}).encode()
    headers = {"content_type": b"application/json", "content_length": str(len(content)).encode()}
    reply = await response_after(
        application,
        scope(
            f"{V1}/workers/{bob.identity}",
            "PATCH",
            prefer=b"wait=20",
            x_tenant=b"a",
            **headers,
            **token(bob),
        ),
        lambda hub: hub.stops._waiting,
        lambda: Task.objects.filter(pk=running).cancel(),
        content,
    )
    assert (reply["cancelled"], reply["lost"]) == ([running], [])
    assert any(thread.startswith("joblib-reads") for thread, _ in tenants)
    assert {tenant for _, tenant in tenants} == {"a"}


@pytest.mark.parametrize("path", ["tasks/{}", "rooms/open"])
async def test_a_websocket_reads_the_rows_of_its_tenant(bob, running, tenants, path):
    headers = [
        (b"authorization", f"Token {bob.token}".encode()),
        (b"x-tenant", b"a"),
    ]
    async with Socket(path.format(running), headers) as socket:
        async with asyncio.timeout(10):
            while not any(tenant == "a" for _, tenant in tenants):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)

        def complete():
            with in_tenant("a"):
                Task.objects.filter(pk=running).complete()

        await sync_to_async(complete)()
        assert (await socket.json())["id"] == running
    assert {tenant for _, tenant in tenants} == {"a"}


@pytest.mark.parametrize("path", ["rooms/open/events", "stream"])
async def test_the_events_of_a_room_are_read_from_the_rows_of_its_tenant(
    bob, running, tenants, application, path
):
    def complete():
        with in_tenant("a"):
            Task.objects.filter(pk=running).complete()

    if path == "stream":
        request = scope(f"{V1}/rooms/open/events", x_tenant=b"a", **token(bob))
        communicator = ApplicationCommunicator(application, request)
        await communicator.send_input({"type": "http.request", "body": b""})
        seen = b""
        while b"event: ready" not in seen:
            seen += (await communicator.receive_output(10)).get("body", b"")
        await sync_to_async(complete)()
        while b'"completed"' not in seen:
            seen += (await communicator.receive_output(10)).get("body", b"")
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait()
    else:
        headers = [(b"authorization", f"Token {bob.token}".encode()), (b"x-tenant", b"a")]
        async with Socket(path, headers) as socket:
            assert (await socket.json())["type"] == "ready"
            await sync_to_async(complete)()
            while (await socket.json())["task"]["status"] != "completed":
                pass
    assert any(thread.startswith("joblib-reads") for thread, _ in tenants)
    assert {tenant for _, tenant in tenants} == {"a"}


def test_the_sweeper_sweeps_for_each_tenant(tenants):
    call_command("run_sweeper", once=True)
    assert {tenant for _, tenant in tenants} == {"a", "b"}


def test_prune_tasks_deletes_tasks_of_each_tenant(tenants, capsys):
    job = Job.objects.create(room_id="open", category="modifiers", name="Rotate", schema={})
    job.enqueue("open", {}, "alice")
    Task.objects.all().cancel()
    tenants.clear()
    call_command("prune_tasks", "--older-than", "0m", "--dry-run")
    # Both tenants of this test have the same rows.
    assert capsys.readouterr().out == "2 tasks would be deleted\n"
    assert {tenant for _, tenant in tenants} == {"a", "b"}
    call_command("prune_tasks", "--older-than", "0m")
    assert capsys.readouterr().out == "deleted 1 task\n"


def test_a_tenant_whose_sweep_fails_does_not_keep_others_from_theirs(tenants, monkeypatch, caplog):
    swept = []

    def sweep():
        if of_thread.tenant == "a":
            raise DatabaseError("the schema is gone")
        swept.append(of_thread.tenant)
        return sweeps.SweepReport(failed=1)

    monkeypatch.setattr(sweeps, "sweep", sweep)
    call_command("run_sweeper", once=True)
    assert swept == ["b"]
    assert "could not sweep for the tenant a: the schema is gone" in caplog.text


def test_the_sweeper_fails_if_no_tenant_can_be_swept(tenants, monkeypatch):
    def sweep():
        raise DatabaseError("the database is gone")

    monkeypatch.setattr(sweeps, "sweep", sweep)
    with pytest.raises(CommandError, match="the database is gone"):
        call_command("run_sweeper", once=True)
