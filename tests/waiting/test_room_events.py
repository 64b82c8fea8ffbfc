"""The events of a room over WebSockets: the present state of everything that changes."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import connection, transaction

from example_project.asgi import application
from tests.sockets import Socket, token
from tests.waiting.test_websockets import ENDS, session_cookie, without_permissions
from zndraw_joblib import room_consumer
from zndraw_joblib.api import events as api_events
from zndraw_joblib.events import feeds, room_changes, watchers
from zndraw_joblib.events.cursors import Cursor, parse_cursor
from zndraw_joblib.events.room_events import Event
from zndraw_joblib.models import Task

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/ws/v1/joblib/rooms/open/events/"


class Events(Socket):
    """A connection to the events of the room `open`, whose first message was read."""

    def __init__(self, person, query="", path=PATH, **more):
        super().__init__(path + (f"?{query}" if query else ""), token(person), **more)

    async def __aenter__(self):
        await super().__aenter__()
        self.first = await self.json()
        self.cursor = self.first["cursor"]
        return self

    async def next(self, *types):
        """The next message of these types, or of any; notes its cursor."""
        while True:
            message = await self.json()
            self.cursor = message["cursor"]
            if not types or message["type"] in types:
                return message

    async def status(self, task_id, status):
        """The messages about a task until it has this status."""
        seen = []
        while not seen or seen[-1]["task"]["status"] != status:
            message = await self.next("task")
            if message["task"]["id"] == task_id:
                seen.append(message)
        return seen


def call(function, *args, **kwargs):
    return sync_to_async(function)(*args, **kwargs)


async def test_a_task_is_sent_at_each_change_until_its_end(bob):
    await call(bob.register)
    async with Events(bob) as events:
        assert events.first["type"] == "ready"
        task = (await call(bob.submit, angle=1)).json()
        sent = (await events.status(task["id"], "pending"))[-1]
        left_out = {"payload", "result"}
        assert sent["task"] == {key: task[key] for key in task.keys() - left_out}
        assert sent["task"]["queue_position"] == 1
        await call(bob.claim)
        claimed = (await events.status(task["id"], "claimed"))[-1]
        assert "queue_position" not in claimed["task"]
        await call(bob.report, task["id"], "running", progress=0.5, message="half", attempt=1)
        running = (await events.status(task["id"], "running"))[-1]
        assert (running["task"]["progress"], running["task"]["message"]) == (0.5, "half")
        await call(bob.report, task["id"], "completed", result={"a": 1}, attempt=1)
        ended = (await events.status(task["id"], "completed"))[-1]
        assert sent["revision"] < claimed["revision"] < running["revision"] < ended["revision"]
        assert not left_out & ended["task"].keys()


async def test_each_way_in_which_a_task_changes_is_an_event(bob, running):
    await call(bob.submit)
    other = await call(bob.claim)
    async with Events(bob) as events:
        await call(bob.report, running, "failed", error="broken", attempt=1)
        failed = (await events.status(running, "failed"))[-1]
        assert failed["task"]["error"] == "broken"
        await call(bob.report, other["id"], "cancelled")
        await events.status(other["id"], "cancelled")
        retried = (await call(bob.send, "post", f"/tasks/{running}/retry")).json()
        again = (await events.status(retried["id"], "pending"))[-1]
        assert again["task"]["retry_of"] == running


async def test_tasks_of_other_rooms_are_not_sent(bob, running):
    await call(bob.register, "open2")
    async with Events(bob) as events:
        await call(bob.submit, "open2", "open2:modifiers:Rotate")
        await call(bob.report, running, "completed")
        assert (await events.next("task"))["task"]["id"] == running


async def test_only_events_about_the_chosen_tasks_are_sent(bob, running):
    async with Events(bob, f"task={running}") as events:
        await call(bob.submit)
        await call(bob.register, name="Other")
        await call(bob.report, running, "completed")
        assert (await events.next())["task"]["id"] == running


async def test_a_task_is_sent_five_times_a_second_at_most_and_its_last_state_always(bob, running):
    loop = asyncio.get_running_loop()
    async with Events(bob) as events:
        began = loop.time()
        for step in range(40):
            await call(bob.report, running, "running", progress=step / 40, attempt=1)
        await call(bob.report, running, "completed", attempt=1)
        seen = await events.status(running, "completed")
        assert len(seen) <= 2 + (loop.time() - began) / 0.2
        assert await events.communicator.receive_nothing(0.5)


async def test_the_place_in_the_queue_is_sent_when_it_moves(bob, monkeypatch):
    monkeypatch.setattr(feeds, "QUEUES_SECONDS", 0.2)
    await call(bob.register)
    first = (await call(bob.submit)).json()["id"]
    second = (await call(bob.submit)).json()["id"]
    async with Events(bob) as events:
        await call(bob.report, first, "cancelled")
        while True:
            message = await events.next("task")
            if message["task"]["id"] == second and message["task"]["queue_position"] == 1:
                break


async def test_jobs_are_sent_when_they_come_and_go_and_when_their_workers_do(bob, monkeypatch):
    monkeypatch.setattr(feeds, "STATES_SECONDS", 0.2)
    async with Events(bob) as events:
        await call(bob.register)
        job = (await events.next())["job"]
        full_name = "open:modifiers:Rotate"
        assert job.pop("id")
        assert job == {
            "room_id": "open",
            "full_name": full_name,
            "category": "modifiers",
            "name": "Rotate",
            "worker_count": 1,
            "durable": False,
        }
        worker = await call(bob.worker)
        await call(bob.register, worker_id=worker)
        assert (await events.next("job"))["job"]["worker_count"] == 2
        await call(bob.send, "delete", f"/workers/{worker}")
        assert (await events.next("job"))["job"]["worker_count"] == 1
        await call(bob.send, "delete", f"/rooms/open/jobs/{full_name}")
        retired = await events.next()
        assert (retired["type"], retired["job"]) == ("job_retired", {"full_name": full_name})


async def test_a_job_that_is_registered_with_another_schema_is_sent(bob, monkeypatch):
    monkeypatch.setattr(feeds, "STATES_SECONDS", 0.2)
    await call(bob.register, durable=True)
    async with Events(bob) as events:
        await asyncio.sleep(0.5)
        cursor = events.cursor

        def register_again():
            with transaction.atomic():
                bob.send("delete", f"/workers/{bob.identity}")
                bob.register(durable=True, schema={"type": "object", "maxProperties": 2})

        await call(register_again)
        assert (await events.next("job"))["job"]["worker_count"] == 1
    async with Events(bob, f"cursor={cursor}") as events:
        await events.next("job")


async def test_global_jobs_are_sent_in_every_room(bob, root, monkeypatch):
    monkeypatch.setattr(feeds, "STATES_SECONDS", 0.2)
    async with Events(bob) as events:
        await call(root.register, "@global")
        assert (await events.next())["job"]["full_name"] == "@global:modifiers:Rotate"


async def test_workers_are_sent_to_administrators_only(bob, root, monkeypatch):
    monkeypatch.setattr(feeds, "STATES_SECONDS", 0.2)
    async with Events(bob) as events, Events(root) as of_admin:
        await call(bob.register)
        await call(bob.submit)
        worker = (await of_admin.next("worker"))["worker"]
        assert worker["id"] == bob.identity
        assert (worker["job_count"], worker["running"]) == (1, 0)
        await call(bob.claim)
        assert (await of_admin.next("worker"))["worker"]["running"] == 1
        await call(bob.send, "delete", f"/workers/{bob.identity}")
        left = await of_admin.next("worker_left")
        assert left["worker"] == {"id": bob.identity}
        types = set()
        while not await events.communicator.receive_nothing(0.5):
            types.add((await events.next())["type"])
        assert types == {"job", "task"}


async def test_a_client_that_comes_back_gets_the_state_of_all_that_changed(bob, running):
    gone = (await call(bob.submit)).json()["id"]
    async with Events(bob) as events:
        await call(bob.report, gone, "cancelled")
        await events.status(gone, "cancelled")
        cursor = events.cursor
    new = (await call(bob.submit)).json()["id"]
    await call(bob.report, running, "failed", error="x", attempt=1)
    retried = (await call(bob.send, "post", f"/tasks/{running}/retry")).json()["id"]
    await call(bob.register, name="Other")
    await call(bob.send, "delete", "/rooms/open/jobs/open:modifiers:Rotate")
    expected = {new: "pending", running: "failed", retried: "pending"}
    async with Events(bob, f"cursor={cursor}") as events:
        assert events.first == {"type": "ready", "cursor": cursor}
        seen, jobs = {}, {}
        while not expected.items() <= seen.items() or len(jobs) < 2:
            message = await events.next()
            if message["type"] == "task":
                seen[message["task"]["id"]] = message["task"]["status"]
            else:
                jobs[message["job"]["full_name"]] = message["type"]
        assert jobs == {"open:modifiers:Other": "job", "open:modifiers:Rotate": "job_retired"}


async def test_only_the_last_message_of_a_batch_moves_the_cursor(bob, running):
    async with Events(bob) as events:
        cursor = events.cursor
    await asyncio.sleep(0.3)
    await call(bob.submit)
    await call(bob.report, running, "completed", attempt=1)
    async with Events(bob, f"cursor={cursor}") as events:
        cursors = [(await events.json())["cursor"] for _ in range(2)]
        assert cursors[0] == cursor
        assert parse_cursor(cursors[-1]).since > parse_cursor(cursor).since


async def test_a_change_that_is_committed_late_is_sent(bob, running, monkeypatch):
    """Red with a `reserve` of zero and without `RoomChanges._writing`, on PostgreSQL."""
    if connection.vendor == "postgresql":
        monkeypatch.setattr("zndraw_joblib.storage.changes._UNSEEN", timedelta())
    began, go_on = threading.Event(), threading.Event()

    def cancel_late():
        with transaction.atomic():
            Task.objects.filter(pk=running).cancel("late")
            began.set()
            go_on.wait(10)

    async with Events(bob) as events:
        late = asyncio.create_task(sync_to_async(cancel_late, thread_sensitive=False)())
        await asyncio.to_thread(began.wait, 10)
        if connection.vendor == "postgresql":
            # SQLite has one writer.
            other = (await call(bob.submit)).json()["id"]
            await events.status(other, "pending")
        cursor = events.cursor
        await asyncio.sleep(0.5)
        go_on.set()
        await late
        await events.status(running, "cancelled")
    async with Events(bob, f"cursor={cursor}") as events:
        await events.status(running, "cancelled")


@pytest.mark.parametrize("cursor", ["nonsense", "0-12345678-", "ffffffffffffff-12345678-", "%00"])
async def test_an_unknown_cursor_resets_the_client(bob, cursor):
    async with Events(bob, f"cursor={cursor}") as events:
        assert events.first["type"] == "reset"
        await call(bob.register)
        await call(bob.submit)
        await events.next("task")


async def test_a_cursor_ahead_of_the_clock_resets_the_client(bob):
    async with Events(bob) as events:
        cursor = parse_cursor(events.cursor)
    ahead = Cursor(cursor.since.replace(year=cursor.since.year + 1), cursor.jobs)
    async with Events(bob, f"cursor={ahead}") as events:
        assert events.first["type"] == "reset"


async def test_too_many_changes_reset_the_client(bob, running, monkeypatch):
    async with Events(bob) as events:
        cursor = events.cursor
    monkeypatch.setattr("zndraw_joblib.events.resumes.MAX_RESUMED", 2)
    for _ in range(3):
        await call(bob.submit)
    async with Events(bob, f"cursor={cursor}") as events:
        assert events.first["type"] == "reset"


async def test_too_many_changes_at_once_reset_the_clients_that_are_there(bob, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.events.room_changes.MAX_READ", 2)
    await call(bob.register)
    async with Events(bob) as events:
        body = [{"payload": {}} for _ in range(3)]
        await call(bob.send, "post", "/rooms/open/tasks/open:modifiers:Rotate", body)
        await events.next("reset")
        task = (await call(bob.submit)).json()["id"]
        await events.status(task, "pending")


async def test_workers_that_left_reset_an_administrator_who_comes_back(root, bob, monkeypatch):
    await call(bob.register)
    async with Events(root) as events:
        cursor = events.cursor
    async with Events(root, f"cursor={cursor}") as events:
        assert events.first["type"] == "ready"
        assert (await events.next("worker"))["worker"]["id"] == bob.identity
    await call(bob.send, "delete", f"/workers/{bob.identity}")
    async with Events(root, f"cursor={cursor}") as events:
        assert events.first["type"] == "reset"


async def test_events_need_no_channel_layer(bob, running, monkeypatch):
    def fail(*args):
        raise ConnectionError("the layer is down")

    monkeypatch.setattr("zndraw_joblib.events.publisher.publisher.publish", fail)
    async with Events(bob) as events:
        await call(bob.report, running, "completed", attempt=1)
        await events.status(running, "completed")


async def test_a_client_connects_while_the_layer_is_down(bob, running, monkeypatch):
    class Down:
        async def new_channel(self):
            raise ConnectionError("the layer is down")

    monkeypatch.setattr(
        "channels.consumer.get_channel_layer",
        lambda alias: None if get_channel_layer(alias) is None else Down(),
    )
    async with Events(bob) as events, Socket(f"tasks/{running}", token(bob)) as task:
        await call(bob.report, running, "completed", attempt=1)
        await events.status(running, "completed")
        assert (await task.json())["status"] == "completed"


async def test_events_go_on_after_looks_that_failed(bob, running, monkeypatch):
    monkeypatch.setattr(feeds, "FAILED_SECONDS", 0.1)
    async with Events(bob) as events:
        look = room_changes.RoomChanges.look
        with monkeypatch.context() as broken:
            broken.setattr(room_changes.RoomChanges, "look", lambda *args, **kwargs: 1 / 0)
            await asyncio.sleep(0.3)
            await call(bob.report, running, "completed", attempt=1)
            await asyncio.sleep(0.3)
        assert room_changes.RoomChanges.look is look
        await events.status(running, "completed")


async def test_a_client_that_does_not_read_is_closed(bob, running, monkeypatch):
    monkeypatch.setattr(room_consumer, "SEND_SECONDS", 0.3)

    async def stands_still(scope, receive, send):
        async def send_others(message):
            if '"task"' in message.get("text", ""):
                await asyncio.sleep(60)
            await send(message)

        await application(scope, receive, send_others)

    async with Events(bob, application=stands_still) as events:
        await asyncio.sleep(0.5)
        await call(bob.report, running, "completed", attempt=1)
        assert await events.code() == 4408


async def test_a_client_may_have_arrays_of_documents(bob, monkeypatch):
    monkeypatch.setattr(room_consumer, "MAX_DOCUMENTS", 3)
    await call(bob.register)
    async with Events(bob) as events:
        cursor = events.cursor
    ids = [(await call(bob.submit)).json()["id"] for _ in range(4)]
    async with Socket(f"{PATH}?batch=true&cursor={cursor}", token(bob)) as events:
        first, second = await events.json(), await events.json()
        assert [each["type"] for each in first] == ["ready", "task", "task"]
        assert [each["task"]["id"] for each in [*first[1:], *second]] == ids
        assert {each["cursor"] for each in [*first, second[0]]} == {cursor}
        await call(bob.report, ids[0], "cancelled")
        status = ""
        while status != "cancelled":
            (message,) = await events.json()
            status = message["task"]["status"]


async def test_a_watcher_that_is_far_behind_keeps_no_more_than_a_reset(monkeypatch):
    monkeypatch.setattr(watchers, "MAX_PENDING", 3)
    watcher = watchers.Watcher(watchers.Room(cursor="now"), None, False)
    for number in range(3):
        watcher.put([Event("task", number, "x"), Event("task", number, "y")])
    assert [event.subject for event in (await watcher.batch()).events] == ["y", "y", "y"]
    watcher.put([Event("task", number, "x") for number in range(4)])
    batch = await watcher.batch()
    assert (batch.lead, batch.events, batch.after) == ("reset", [], "now")


@pytest.mark.parametrize(("change", "code"), [*ENDS, (without_permissions, 4404)])
async def test_rights_are_checked_again_while_connected(
    root, monkeypatch, settings_of, change, code
):
    settings_of(room_access="tests.api.test_access.no_access")
    monkeypatch.setattr(api_events, "CHECK_SECONDS", 0.3)
    async with Socket(PATH, [await call(session_cookie, root.user)]) as socket:
        assert (await socket.json())["type"] == "ready"
        assert await socket.communicator.receive_nothing(0.6)
        await call(change, root.user)
        assert await socket.code() == code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("rooms/a:b/events", 4404),
        ("rooms/carols/events", 4404),
        ("rooms/open/events/?task=nope", 4400),
        ("rooms/open/events/?batch=yes", 4400),
        ("rooms/open/events/x", 4404),
    ],
)
async def test_rooms_that_the_caller_may_not_read_are_not_found(bob, path, code, settings_of):
    settings_of(room_access="tests.factories.by_room")
    async with Socket(f"/ws/v1/joblib/{path}", token(bob)) as socket:
        assert await socket.code() == code


async def test_missing_credentials_are_refused(db):
    async with Socket(PATH) as socket:
        assert await socket.code() == 4401


async def test_many_watchers_share_one_read_and_one_encoding(bob, running, monkeypatch):
    looks, encoded = [], []
    look = room_changes.RoomChanges.look
    text = "zndraw_joblib.api.event_documents.json_text"

    def counted(self, rooms, clock, **more):
        looks.append(sorted(rooms))
        return look(self, rooms, clock, **more)

    def counted_text(document):
        encoded.append(document)
        return json.dumps(document, default=str).encode()

    monkeypatch.setattr(room_changes.RoomChanges, "look", counted)
    monkeypatch.setattr(text, counted_text)
    async with Events(bob) as one, Events(bob) as two, Events(bob) as three:
        looks.clear()
        await call(bob.report, running, "completed", attempt=1)
        for events in (one, two, three):
            await events.status(running, "completed")
        assert len(looks) <= 30
        assert set(map(tuple, looks)) == {("open",)}
        of_end = [each for each in encoded if each["task"]["status"] == "completed"]
        assert len(of_end) == 1
