"""Times of documents and cursors, in a site whose time zone has summer time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections

from zndraw_joblib.models import Task, Worker

connection: Any = connections["default"]

#: The local time of these two is the same, 02:30, with different offsets.
BEFORE = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
AFTER = BEFORE + timedelta(hours=1)


@pytest.fixture(params=["TIME_ZONE", "TIME_ZONE of the database"])
def zone(request, settings, monkeypatch, db):
    """Europe/Berlin is the zone of the site, or of its PostgreSQL alone."""
    if request.param == "TIME_ZONE":
        settings.TIME_ZONE = "Europe/Berlin"
        yield
        return
    if connection.vendor != "postgresql":
        pytest.skip("refused by zndraw_joblib.E015")

    def forget() -> None:
        for name in ("timezone", "timezone_name"):
            vars(connection).pop(name, None)
        with connection.cursor() as cursor:
            cursor.execute(connection.ops.set_time_zone_sql(), [connection.timezone_name])

    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "TIME_ZONE", "Europe/Berlin")
        forget()
        yield
    forget()


def pages(person: Any, path: str) -> list[dict[str, Any]]:
    """The entries of all pages of one entry each, by their `Link` headers."""
    found: list[dict[str, Any]] = []
    url: Any = f"/v1/joblib{path}?limit=1"
    while url:
        answer = person.client.get(url)
        assert answer.status_code == 200, answer.content
        found += answer.json()
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        url = link and link[1]
    return found


@pytest.mark.parametrize(
    "path", ["/rooms/open/tasks", "/rooms/open/jobs/open:modifiers:Rotate/tasks"]
)
def test_tasks_of_the_hour_that_comes_twice_are_paged_in_order_with_times_in_utc(bob, zone, path):
    bob.register()
    ids = [bob.submit().json()["id"] for _ in range(2)]
    for task_id, created in zip(ids, (BEFORE, AFTER), strict=True):
        Task.objects.filter(pk=task_id).update(created_at=created)
    tasks = sorted(pages(bob, path), key=lambda task: task["created_at"])
    assert [task["id"] for task in tasks] == ids
    assert [task["created_at"] for task in tasks] == [
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:30:00Z",
    ]
    assert bob.get(f"/tasks/{ids[1]}").json()["created_at"] == "2026-10-25T01:30:00Z"


def test_workers_of_the_hour_that_comes_twice_are_paged_in_order_with_times_in_utc(bob, zone):
    ids = [bob.worker() for _ in range(2)]
    for worker_id, created in zip(ids, (BEFORE, AFTER), strict=True):
        Worker.objects.filter(pk=worker_id).update(created_at=created, last_heartbeat=created)
    workers = sorted(pages(bob, "/workers"), key=lambda worker: worker["created_at"])
    assert [worker["id"] for worker in workers] == ids
    assert workers[1]["last_heartbeat"] == "2026-10-25T01:30:00Z"


def test_a_claim_a_heartbeat_and_a_sweep_agree_on_the_time(bob, zone):
    worker_id = bob.register().json()["worker_id"]
    bob.submit()
    bob.claim()
    beat = datetime.fromisoformat(
        bob.send("patch", f"/workers/{worker_id}").json()["last_heartbeat"]
    )
    assert abs(datetime.now(UTC) - beat) < timedelta(minutes=1)
    assert Task.objects.recover_expired("timed out") == []
    assert not Worker.objects.stale(timedelta(seconds=60)).exists()
    assert Worker.objects.get().is_alive(60)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no zone of a session")
def test_times_are_read_after_the_zone_of_a_session_changed(bob):
    """Control: the end of the calendar in UTC was read in the zone of before, which gave 500."""
    bob.register()
    # As a new session, whose cursors are opened in the first zone.
    vars(connection.connection).pop("joblib_cursors", None)
    times = {"Europe/Berlin": "2100-01-31T12:00:00Z", "UTC": "9999-12-31T23:59:59Z"}
    for zone, run_at in times.items():
        with connection.cursor() as cursor:
            cursor.execute(connection.ops.set_time_zone_sql(), [zone])
        body = {"payload": {}, "run_at": run_at}
        answer = bob.send("post", "/rooms/open/tasks/open:modifiers:Rotate", body)
        assert (answer.status_code, answer.json().get("run_at")) == (202, run_at)
