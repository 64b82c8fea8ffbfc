"""Scheduled tasks: `run_at` and `delay` of a submit, their queue places and their order."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from django.db import connections
from django.utils import timezone

from tests.api.test_time_zones import zone  # noqa: F401
from tests.factories import ROTATE, problem
from zndraw_joblib.models import Task
from zndraw_joblib.services.sweep import sweep
from zndraw_joblib.storage.clock import Now

JOB = f"open:{ROTATE}"


@pytest.fixture(autouse=True)
def offered(bob):
    bob.register()


def send(person, **body):
    return person.send("post", f"/rooms/open/tasks/{JOB}", {"payload": {}, **body})


def submit(person, **body):
    answer = send(person, **body)
    assert answer.status_code == 202, answer.content
    return answer.json()


def moment(text):
    return datetime.fromisoformat(text)


def make_due(task_id):
    """Let the time of a scheduled task come now."""
    # After all tasks so far, because the clock of SQLite has milliseconds.
    time.sleep(0.002)
    Task.objects.filter(pk=task_id).update(run_at=Now())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2100-01-31T12:00:00Z", "2100-01-31T12:00:00Z"),
        ("2100-01-31t12:00:00z", "2100-01-31T12:00:00Z"),
        ("2100-01-31T12:00:00+00:00", "2100-01-31T12:00:00Z"),
        ("2100-01-31T12:00:00-00:00", "2100-01-31T12:00:00Z"),
        ("2100-01-31T12:00:00+05:45", "2100-01-31T06:15:00Z"),
        ("2100-01-31T22:00:00-02:30", "2100-02-01T00:30:00Z"),
        ("2100-01-31T12:00:00.5Z", "2100-01-31T12:00:00.500000Z"),
        ("2100-01-31T12:00:00.123456Z", "2100-01-31T12:00:00.123456Z"),
        ("2100-01-31T12:00:00.123456789Z", "2100-01-31T12:00:00.123456Z"),
        ("2096-02-29T23:59:59Z", "2096-02-29T23:59:59Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_task_is_scheduled_at_a_time_with_an_offset(alice, bob, text, shown):
    task = submit(alice, run_at=text)
    assert task["run_at"] == shown
    assert task["status"] == "pending"
    assert "queue_position" not in task
    for path in (f"/tasks/{task['id']}", "/tasks", "/rooms/open/tasks"):
        found = alice.get(path).json()
        (found,) = found if isinstance(found, list) else [found]
        assert found["run_at"] == shown
        assert "queue_position" not in found
    assert bob.claim() is None


@pytest.mark.any_database
@pytest.mark.parametrize(
    "value",
    [
        "2100-01-31T12:00:00",
        "2100-01-31",
        "2100-01-31 12:00:00Z",
        "2100-01-31T12:00Z",
        "2100-01-31T12:00:00+0200",
        "2100-01-31T12:00:00+02",
        "2100-02-30T12:00:00Z",
        "2100-01-31T24:00:00Z",
        "2100-01-31T24:00:01Z",
        "2100-01-31T12:00:00+05:60",
        "2100-01-31T12:00:00-05:99",
        "2100-01-31T12:00:00+24:00",
        "2016-12-31T23:59:60Z",
        "2100-01-31T12:00:00,5Z",
        "2100-W05-7T12:00:00Z",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z",
        "\u0662100-01-31T12:00:00Z",
        "2100-01-31T12:00:00Z\n",
        "now",
        "",
        4105080000,
        41050.5,
        True,
        [],
        {},
    ],
)
def test_a_time_of_another_form_is_refused(alice, value):
    document = problem(send(alice, run_at=value), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/run_at"]
    assert not Task.objects.exists()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("run_at", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_at_the_end_of_the_calendar_is_kept_or_refused_in_any_time_zone(alice, run_at):
    """Control: psycopg could not read the time in the zone of the database, which gave 500."""
    answer = send(alice, run_at=run_at)
    kept = connections["default"].settings_dict["TIME_ZONE"] is None or run_at < "1"
    assert answer.status_code == (202 if kept else 400)
    assert len(alice.get("/tasks").json()) == kept


@pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 1e-5, 0.25, 1, 3600, 31_536_000, 31_535_999.5])
def test_a_delay_counts_from_the_submit(alice, seconds):
    task = submit(alice, delay=seconds)
    delay = moment(task["run_at"]) - moment(task["created_at"])
    assert abs(delay - timedelta(seconds=seconds)) < timedelta(milliseconds=50)


@pytest.mark.parametrize("value", [-1, -1e-9, 31_536_000.5, 31_536_001, 1e300, "1", True, [], {}])
def test_a_delay_beyond_its_limits_is_refused(alice, value):
    document = problem(send(alice, delay=value), "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/delay"]


@pytest.mark.parametrize("delay", [0, 1])
def test_a_time_beside_a_delay_is_refused(alice, delay):
    answer = send(alice, delay=delay, run_at="2100-01-31T12:00:00Z")
    document = problem(answer, "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/delay"]
    # In a list too, which is refused as a whole.
    path = f"/rooms/open/tasks/{JOB}"
    answer = alice.send("post", path, [{}, {"delay": delay, "run_at": "2100-01-31T12:00:00Z"}])
    document = problem(answer, "validation-error", 400)
    assert [error["pointer"] for error in document["errors"]] == ["/1/delay"]
    assert not Task.objects.exists()


def test_null_is_as_if_left_out(alice, bob):
    task = submit(alice, run_at=None, delay=None, timeout_seconds=None, retries=None)
    assert (task["run_at"], task["timeout_seconds"], task["queue_position"]) == (None, None, 1)
    assert submit(alice, run_at="2100-01-31T12:00:00Z", delay=None)["run_at"]
    assert submit(alice, run_at=None, delay=60)["run_at"]
    assert bob.claim()["id"] == task["id"]


def test_a_delay_of_nothing_is_due_at_once(alice, bob):
    task = submit(alice, delay=0)
    assert bob.claim()["id"] == task["id"]


@pytest.mark.parametrize("limit", [None, 5])
def test_a_time_in_the_past_is_due_at_once_and_overtakes_no_earlier_task(alice, bob, limit):
    first = submit(alice)
    late = submit(alice, run_at="2020-01-01T00:00:00Z")
    third = submit(alice)
    assert [task["queue_position"] for task in (first, late, third)] == [1, 2, 3]
    assert alice.get(f"/tasks/{late['id']}").json()["queue_position"] == 2
    assert claim_all(bob, limit) == [first["id"], late["id"], third["id"]]


def claim_all(person, limit, **body):
    """Ids of all tasks that are due, in the order of their grants."""
    if limit is None:
        found = []
        while task := person.claim():
            found.append(task["id"])
        return found
    answer = person.send("post", "/tasks/claim", {"limit": limit, **body})
    return [task["id"] for task in answer.json()["tasks"]]


@pytest.mark.parametrize("limit", [None, 5])
def test_tasks_are_granted_in_the_order_in_which_they_became_due(alice, bob, limit):
    """Of two jobs, because the heads of the jobs are compared."""
    bob.register(name="Other")
    other = "open:modifiers:Other"
    now = timezone.now()
    later = submit(alice, delay=60)["id"]
    sooner = alice.send("post", f"/rooms/open/tasks/{other}", {"delay": 60}).json()["id"]
    plain = submit(alice)["id"]
    future = submit(alice, delay=60)["id"]
    # Time goes by.
    Task.objects.update(created_at=now - timedelta(hours=1))
    Task.objects.filter(pk=sooner).update(run_at=now - timedelta(minutes=30))
    Task.objects.filter(pk=later).update(run_at=now - timedelta(minutes=20))
    assert claim_all(bob, limit) == [plain, sooner, later]
    assert Task.objects.get(pk=future).status == "pending"


def test_a_scheduled_task_has_no_queue_place_until_it_is_due(alice, bob):
    scheduled = submit(alice, delay=60)["id"]
    plain = [submit(alice) for _ in range(2)]
    assert [task["queue_position"] for task in plain] == [1, 2]
    assert "queue_position" not in alice.get(f"/tasks/{scheduled}").json()
    make_due(scheduled)
    # Behind those that were due before it.
    assert alice.get(f"/tasks/{scheduled}").json()["queue_position"] == 3
    ids = [task["id"] for task in plain]
    places = alice.send("post", "/tasks/lookup", {"ids": [scheduled, *ids]}).json()
    assert [task["queue_position"] for task in places] == [3, 1, 2]
    assert submit(alice)["queue_position"] == 4
    assert claim_all(bob, None)[:3] == [*ids, scheduled]


def test_the_tasks_of_a_list_may_have_times_of_their_own(alice, bob):
    path = f"/rooms/open/tasks/{JOB}"
    body = [
        {"delay": 60},
        {},
        {"run_at": "2020-01-01T00:00:00Z"},
        {"run_at": "2100-01-01T00:00:00Z"},
    ]
    tasks = alice.send("post", path, body).json()
    assert [task.get("queue_position") for task in tasks] == [None, 1, 2, None]
    assert tasks[3]["run_at"] == "2100-01-01T00:00:00Z"
    assert claim_all(bob, 10) == [tasks[1]["id"], tasks[2]["id"]]


def test_a_scheduled_task_can_be_cancelled_and_is_counted_as_pending(alice, bob, settings_of):
    settings_of(max_pending_per_room=1)
    task = submit(alice, delay=60)["id"]
    problem(send(alice), "too-many-pending", 429)
    assert alice.report(task, "cancelled").json()["status"] == "cancelled"
    assert bob.claim() is None


def test_a_scheduled_task_keeps_its_job_from_being_retired(alice, bob):
    submit(alice, delay=60)
    bob.send("delete", f"/workers/{quote(bob.identity)}")
    assert sweep().jobs == 0
    assert send(alice).status_code == 202


def test_a_task_starts_when_its_time_comes(alice, bob):
    task = submit(alice, delay=0.3)
    assert bob.claim() is None
    deadline = time.monotonic() + 5
    while (granted := bob.claim()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert granted["id"] == task["id"]
    row = Task.objects.get()
    assert row.run_at <= row.claimed_at <= row.run_at + timedelta(seconds=1)


def test_the_time_of_a_task_is_part_of_an_idempotent_request(alice):
    path, headers = f"/rooms/open/tasks/{JOB}", {"idempotency-key": '"k"'}
    body = {"payload": {}, "run_at": "2100-01-31T12:00:00Z"}
    first = alice.send("post", path, body, headers=headers).json()
    assert alice.send("post", path, body, headers=headers).json() == first
    for change in (
        {"run_at": "2100-01-31T12:00:01Z"},
        {"run_at": None, "delay": 5},
        {"retries": 1},
    ):
        answer = alice.send("post", path, body | change, headers=headers)
        problem(answer, "idempotency-key-reused", 422)


def test_a_claim_of_many_starts_tasks_that_were_scheduled(alice, bob):
    task = submit(alice, delay=60, timeout_seconds=30)["id"]
    make_due(task)
    (granted,) = claim_all(bob, 2, start=True)
    row = Task.objects.get()
    assert (str(row.pk), row.status) == (granted, "running")
    assert row.lease_expires_at - row.started_at <= timedelta(seconds=30.001)
    assert row.started_at.astimezone(UTC) == row.claimed_at
