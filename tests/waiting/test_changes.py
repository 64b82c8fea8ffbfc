"""Entity tags of tasks, and requests that wait for a task's next change."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from tests.factories import V1
from tests.waiting.asgi import Site
from zndraw_joblib.events import changes, publisher as publishers, reads
from zndraw_joblib.events.groups import Groups
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.models import Task
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage import waits
from zndraw_joblib.storage.clock import database_time

pytestmark = pytest.mark.django_db(transaction=True)

LONG = 20


@pytest.fixture(params=[False, True], ids=["plain", "lane"])
def site(request):
    return Site(request.param)


def tag_of(person, task_id):
    return person.get(f"/tasks/{task_id}")["ETag"]


@pytest.fixture
def only_events(monkeypatch):
    """Only events wake waiters, because the next re-read is a minute away."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    monkeypatch.setattr(reads, "DUE_SECONDS", 60)


async def watching(site, person, task_id, tag=None, wait=LONG):
    tag = tag or await sync_to_async(tag_of)(person, task_id)
    return await site.request(
        person, "GET", f"/tasks/{task_id}", if_none_match=tag, prefer=f"wait={wait}"
    )


@pytest.fixture
def tagging_middleware(settings):
    """Middleware of Django that makes and compares entity tags, and one that compresses."""
    settings.MIDDLEWARE = [
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        *settings.MIDDLEWARE,
    ]


async def change_during_wait(change, *args, **kwargs):
    hub = get_hub()
    while not hub.changes._waiters:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return await sync_to_async(change)(*args, **kwargs)


def test_every_task_has_a_weak_tag(bob, running):
    answer = bob.get(f"/tasks/{running}")
    assert answer["ETag"].startswith('W/"')
    assert bob.get(f"/tasks/{running}")["ETag"] == answer["ETag"]


def test_the_tag_does_not_depend_on_the_place_in_the_queue(bob):
    bob.register()
    bob.submit()
    second = bob.submit().json()["id"]
    before = bob.get(f"/tasks/{second}")
    bob.claim()
    after = bob.get(f"/tasks/{second}")
    assert (before.json()["queue_position"], after.json()["queue_position"]) == (2, 1)
    assert before["ETag"] == after["ETag"]


def change_sequence(bob, task_id):
    """Each kind of change of a task that a report, a sweep or an operator makes."""
    task = Task.objects.filter(pk=task_id)
    yield "claim", bob.claim
    yield "start", lambda: bob.report(task_id, "running", attempt=1)
    yield "progress", lambda: bob.report(task_id, "running", attempt=1, progress=0.5)
    yield "message", lambda: bob.report(task_id, "running", attempt=1, message="half")
    yield "retry", lambda: bob.report(task_id, "failed", attempt=1, error="e", retry_after=0)
    yield "second claim", bob.claim
    yield "requeue", task.requeue
    yield "third claim", bob.claim

    def expire():
        task.update(lease_expires_at="2020-01-01T00:00:00Z")
        sweep()

    yield "sweep", expire
    yield "fourth claim", bob.claim
    yield "restart", lambda: bob.report(task_id, "running", attempt=4)
    yield "end", lambda: bob.report(task_id, "completed", attempt=4, result=1)


def test_each_kind_of_change_changes_the_tag(bob):
    bob.register()
    path = "/rooms/open/tasks/open:modifiers:Rotate"
    task_id = bob.send("post", path, {"payload": {}, "retries": 3}).json()["id"]
    seen = [tag_of(bob, task_id)]
    for name, change in change_sequence(bob, task_id):
        change()
        tag = tag_of(bob, task_id)
        assert tag not in seen, name
        seen.append(tag)
    assert bob.get(f"/tasks/{task_id}").json()["status"] == "completed"


def test_an_error_that_is_added_to_an_ended_task_changes_its_tag(bob, running):
    task = Task.objects.read([Task.objects.get().pk])
    (row,) = task.values()
    before = tag_of(bob, running)
    assert Task.objects.replace_error(row, "later")
    assert tag_of(bob, running) != before


def test_a_renewal_does_not_change_the_tag(bob, running):
    before = tag_of(bob, running)
    bob.send("patch", f"/workers/{bob.identity}")
    assert tag_of(bob, running) == before


@pytest.mark.parametrize(
    "header",
    ["{tag}", "{strong}", '"x", {tag}', '{tag} , W/"y"', "*", " * "],
)
def test_a_known_tag_is_answered_304_without_a_body(bob, running, header):
    tag = tag_of(bob, running)
    given = header.format(tag=tag, strong=tag.removeprefix("W/"))
    answer = bob.get(f"/tasks/{running}", headers={"if-none-match": given})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer["ETag"] == tag
    assert "Prefer" in answer["Vary"]
    assert "Preference-Applied" not in answer


def test_a_browser_does_not_store_a_task_and_send_its_tag_by_itself(bob, running):
    """Its repeated wait for the end would otherwise become a wait for any change."""
    answer = bob.get(f"/tasks/{running}")
    assert answer["Cache-Control"] == "private, no-store"
    answer = bob.get(f"/tasks/{running}", headers={"if-none-match": answer["ETag"]})
    assert answer["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize("header", ['W/"9999"', "nonsense", "", '"', "W/", '"x", "y"'])
def test_an_unknown_tag_is_answered_with_the_task(bob, running, header):
    answer = bob.get(f"/tasks/{running}", headers={"if-none-match": header})
    assert (answer.status_code, answer.json()["id"]) == (200, running)


def test_an_error_has_no_tag(carol, bob, running):
    unknown = "01a20c7d-1505-73c8-b9b4-1ae3b824bb1b"
    answer = bob.get(f"/tasks/{unknown}", headers={"if-none-match": "*"})
    assert answer.status_code == 404
    assert "ETag" not in answer


@pytest.mark.usefixtures("only_events")
async def test_progress_wakes_a_request_that_waits_for_a_change(site, bob, running):
    answer, report = await asyncio.gather(
        watching(site, bob, running),
        change_during_wait(bob.report, running, "running", attempt=1, progress=0.5),
    )
    assert (answer.status, answer.json()["progress"]) == (200, 0.5)
    assert answer.headers["preference-applied"] == f"wait={LONG}"
    assert answer.headers["etag"] == await sync_to_async(tag_of)(bob, running)
    assert answer.headers["content-type"] == "application/json"
    assert report.status_code == 200


@pytest.mark.usefixtures("only_events")
async def test_each_kind_of_change_wakes_a_request_that_waits_for_one(bob):
    site = Site(True)

    def submit():
        bob.register()
        path = "/rooms/open/tasks/open:modifiers:Rotate"
        return bob.send("post", path, {"payload": {}, "retries": 3}).json()["id"]

    task_id = await sync_to_async(submit)()
    for name, change in change_sequence(bob, task_id):
        answer, _ = await asyncio.wait_for(
            asyncio.gather(watching(site, bob, task_id), change_during_wait(change)), LONG / 2
        )
        assert answer.status == 200, name
        assert answer.headers["etag"] == await sync_to_async(tag_of)(bob, task_id), name


async def test_a_wait_that_runs_out_is_answered_304(site, bob, running):
    answer = await watching(site, bob, running, wait=1)
    assert (answer.status, answer.content) == (304, b"")
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.headers["etag"] == await sync_to_async(tag_of)(bob, running)


async def test_a_wait_for_a_change_of_an_ended_task_is_answered_304_at_once(site, bob, running):
    await sync_to_async(bob.report)(running, "completed")
    began = time.monotonic()
    answer = await watching(site, bob, running)
    assert answer.status == 304
    assert time.monotonic() - began < LONG / 2


@pytest.mark.usefixtures("only_events")
async def test_any_present_task_matches_the_star_and_its_next_change_ends_the_wait(bob, running):
    answer, _ = await asyncio.gather(
        watching(Site(True), bob, running, "*"),
        change_during_wait(bob.report, running, "running", attempt=1, progress=0.5),
    )
    assert (answer.status, answer.json()["progress"]) == (200, 0.5)


async def test_another_tag_than_the_present_one_is_answered_at_once(site, bob, running):
    began = time.monotonic()
    answer = await watching(site, bob, running, 'W/"0"')
    assert (answer.status, answer.json()["status"]) == (200, "running")
    assert time.monotonic() - began < LONG / 2


async def test_a_change_between_the_view_and_the_subscription_is_seen(bob, running, monkeypatch):
    """Control: without the query after joining the groups, the request waits for the re-read."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    join = Groups.join

    async def change_first(self, groups):
        monkeypatch.setattr(Groups, "join", join)
        await sync_to_async(bob.report)(running, "running", attempt=1, progress=0.5)
        await join(self, groups)

    tag = await sync_to_async(tag_of)(bob, running)
    monkeypatch.setattr(Groups, "join", change_first)
    answer = await asyncio.wait_for(watching(Site(True), bob, running, tag), LONG / 2)
    assert answer.json()["progress"] == 0.5


async def test_the_reread_wakes_a_waiter_whose_event_was_lost(bob, running, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.5)
    monkeypatch.setattr(publishers.publisher, "publish", lambda *args: None)
    began = time.monotonic()
    answer, _ = await asyncio.gather(
        watching(Site(True), bob, running),
        change_during_wait(bob.report, running, "running", attempt=1, progress=0.5),
    )
    assert answer.status == 200
    assert time.monotonic() - began < LONG / 2


@pytest.mark.usefixtures("only_events")
async def test_a_change_whose_event_was_lost_is_seen_at_the_deadline(bob, running, monkeypatch):
    monkeypatch.setattr(publishers.publisher, "publish", lambda *args: None)
    answer, _ = await asyncio.gather(
        watching(Site(True), bob, running, wait=1),
        change_during_wait(bob.report, running, "running", attempt=1, progress=0.5),
    )
    assert (answer.status, answer.json()["progress"]) == (200, 0.5)


async def test_a_deleted_task_ends_the_wait_for_a_change(bob, running, monkeypatch):
    monkeypatch.setattr(reads, "REREAD_SECONDS", 0.3)
    answer, _ = await asyncio.gather(
        watching(Site(True), bob, running),
        change_during_wait(lambda: Task.objects.all().delete()),
    )
    assert answer.status == 404


def no_access(request, room_id, action):
    return False


async def test_access_is_checked_again_at_a_change(alice, bob, running, settings_of):
    def revoke_and_change():
        settings_of(room_access="tests.waiting.test_changes.no_access")
        bob.report(running, "running", attempt=1, progress=0.5)

    answer, _ = await asyncio.gather(
        watching(Site(True), alice, running), change_during_wait(revoke_and_change)
    )
    assert answer.status == 404
    assert "etag" not in answer.headers


@pytest.mark.usefixtures("only_events")
async def test_progress_does_not_wake_a_request_that_waits_for_the_end(bob, running, monkeypatch):
    site, woken = Site(True), []
    ending = asyncio.create_task(
        site.request(bob, "GET", f"/tasks/{running}", prefer=f"wait={LONG}")
    )
    waiter = asyncio.create_task(watching(site, bob, running))
    hub = get_hub()
    while not (hub.ends._waiters and hub.changes._waiters):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    monkeypatch.setattr(hub.ends, "end", woken.append)
    await sync_to_async(bob.report)(running, "running", attempt=1, progress=0.5)
    assert (await waiter).status == 200
    await asyncio.sleep(0.1)
    assert not ending.done()
    assert woken == []
    monkeypatch.undo()
    await sync_to_async(bob.report)(running, "completed")
    answer = await ending
    assert answer.json()["status"] == "completed"
    assert answer.headers["etag"] == await sync_to_async(tag_of)(bob, running)


@pytest.mark.usefixtures("only_events")
async def test_an_upload_is_a_change(bob, running, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path

    def upload():
        path = f"{V1}/tasks/{running}/files/a.txt?attempt=1"
        return bob.client.put(path, data=b"x", content_type="text/plain")

    answer, uploaded = await asyncio.gather(
        watching(Site(True), bob, running), change_during_wait(upload)
    )
    assert uploaded.status_code == 201, uploaded.content
    assert answer.status == 200


@pytest.mark.usefixtures("only_events")
@pytest.mark.parametrize("gathers", [True, False])
async def test_frequent_progress_is_gathered_and_other_changes_are_not(
    bob, running, monkeypatch, gathers
):
    monkeypatch.setattr(changes, "GATHER_SECONDS", 1.0)

    def report():
        if gathers:
            bob.report(running, "running", attempt=1, progress=0.1)
            bob.report(running, "running", attempt=1, progress=0.2)
        else:
            bob.report(running, "completed", attempt=1)

    began = time.monotonic()
    answer, _ = await asyncio.gather(watching(Site(True), bob, running), change_during_wait(report))
    assert (time.monotonic() - began > 0.9) == gathers
    assert answer.json()["progress"] == (0.2 if gathers else None)
    assert answer.json()["status"] == ("running" if gathers else "completed")


@pytest.fixture
def published(monkeypatch):
    """The types of the messages that are published."""
    kinds = []
    monkeypatch.setattr(
        publishers.publisher, "publish", lambda group, kind, entries: kinds.append(kind)
    )
    return kinds


def test_changes_of_a_task_that_nobody_watches_are_not_published(bob, running, published):
    bob.report(running, "running", attempt=1, progress=0.5)
    assert published == []
    bob.report(running, "completed", attempt=1)
    assert published == ["tasks.ended"]


def test_changes_are_published_until_the_watch_is_over(bob, running, published):
    task = Task.objects.get()
    waits.watch(Task.objects.write_db, [task.pk])
    bob.report(running, "running", attempt=1, progress=0.1)
    assert published == ["tasks.changed"]
    Task.objects.update(watched_until="2020-01-01T00:00:00Z")
    bob.report(running, "running", attempt=1, progress=0.2)
    assert published == ["tasks.changed"]


def test_a_watch_is_written_only_when_little_of_it_is_left(bob, running, monkeypatch):
    task = Task.objects.get()
    using = Task.objects.write_db
    before = tag_of(bob, running)
    (first,) = waits.watch(using, [task.pk])
    assert (first.revision, first.is_watched) == (task.revision, True)
    until = Task.objects.get().watched_until
    waits.watch(using, [task.pk])
    assert Task.objects.get().watched_until == until
    soon = database_time(using) + timedelta(seconds=waits.LEAST_WATCH_SECONDS - 5)
    Task.objects.update(watched_until=soon)
    waits.watch(using, [task.pk])
    assert Task.objects.get().watched_until >= until
    assert tag_of(bob, running) == before


async def test_a_task_whose_row_is_locked_is_watched_soon_after(bob, running, monkeypatch):
    """Control: without the second read the change is seen only by the re-read, a minute later."""
    monkeypatch.setattr(reads, "REREAD_SECONDS", 60)
    watch, asked = waits.watch, []

    def locked_first(using, ids):
        asked.append(ids)
        if len(asked) == 1:
            return [one._replace(is_watched=False) for one in read_only(using, ids)]
        return watch(using, ids)

    def read_only(using, ids):
        return [
            waits.Revision(task.pk, task.revision, False)
            for task in Task.objects.using(using).filter(pk__in=ids)
        ]

    monkeypatch.setattr("zndraw_joblib.events.queries.watch", locked_first)
    answer, _ = await asyncio.wait_for(
        asyncio.gather(
            watching(Site(True), bob, running),
            change_during_wait(bob.report, running, "running", attempt=1, progress=0.5),
        ),
        LONG / 2,
    )
    assert answer.status == 200
    assert len(asked) >= 2
    assert changes.LOCKED_SECONDS < 1


def test_a_read_of_a_watched_task_waits_for_no_lock(bob, running):
    """A transaction of the site may hold the row for long."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no row locks")
    task = Task.objects.get()

    def watch():
        try:
            return waits.watch(Task.objects.write_db, [task.pk])
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            Task.objects.filter(pk=task.pk).select_for_update().get()
            (found,) = other.submit(watch).result(5)
        assert not found.is_watched
        (found,) = other.submit(watch).result(5)
        assert found.is_watched


@pytest.mark.usefixtures("tagging_middleware")
@pytest.mark.parametrize("on_the_lane", [False, True], ids=["plain", "lane"])
async def test_middleware_that_compares_tags_keeps_waits_for_changes(bob, running, on_the_lane):
    site = Site(on_the_lane)
    tag = await sync_to_async(tag_of)(bob, running)
    answer = await watching(site, bob, running, tag, wait=1)
    assert (answer.status, answer.headers["etag"]) == (304, tag)
    assert answer.headers["preference-applied"] == "wait=1"
    answer, _ = await asyncio.gather(
        watching(site, bob, running, tag),
        change_during_wait(bob.report, running, "running", attempt=1, progress=0.5),
    )
    assert (answer.status, answer.json()["progress"]) == (200, 0.5)
    assert answer.headers["preference-applied"] == f"wait={LONG}"
    assert answer.headers["etag"] == await sync_to_async(tag_of)(bob, running) != tag


@pytest.mark.usefixtures("tagging_middleware")
@pytest.mark.parametrize("on_the_lane", [False, True], ids=["plain", "lane"])
async def test_middleware_that_compares_tags_keeps_waits_for_ends(bob, running, on_the_lane):
    answer = await Site(on_the_lane).request(bob, "GET", f"/tasks/{running}", prefer="wait=1")
    assert (answer.status, answer.json()["status"]) == (200, "running")
    assert answer.headers["preference-applied"] == "wait=1"


async def test_progress_that_comes_often_sets_one_timer_for_each_waiter(monkeypatch):
    loop = asyncio.get_running_loop()
    due_times = []
    call_at = loop.call_at

    def counted(when, callback, *args, **kwargs):
        if callback == waiter.changed.set:
            due_times.append(when)
        return call_at(when, callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", counted)
    hub_waits = get_hub().changes
    task_id = UUID(int=1)
    waiter = changes.Waiter(0, loop.time() + 0.1)
    hub_waits._waiters[task_id] = {waiter}
    for revision in range(1, 50):
        hub_waits.change(task_id, revision, is_progress=True)
    assert due_times == [waiter.progress_at]
    assert not waiter.changed.is_set()
    async with asyncio.timeout(2):
        await waiter.changed.wait()
    del hub_waits._waiters[task_id]
