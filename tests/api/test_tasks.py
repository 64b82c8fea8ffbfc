from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone

from tests.factories import V1, problem
from zndraw_joblib.lifecycle import TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.models import Job, Task

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def test_submit_answers_202_with_the_task(bob, alice):
    bob.register()
    answer = alice.submit(angle=3)
    assert answer.status_code == 202
    task = dict(answer.json())
    assert answer["Location"] == f"/v1/joblib/tasks/{task['id']}"
    assert answer["Retry-After"] == "1"
    assert TIME.match(task.pop("created_at"))
    assert uuid.UUID(task.pop("id")).version == 7
    assert task == {
        "job_name": "open:modifiers:Rotate",
        "room_id": "open",
        "status": "pending",
        "payload": {"angle": 3},
        "error": None,
        "started_at": None,
        "completed_at": None,
        "worker_id": None,
        "attempt": 0,
        "queue_position": 1,
        "progress": None,
        "message": None,
        "run_at": None,
        "retries_left": 0,
        "retry_of": None,
        "timeout_seconds": None,
        "traceparent": None,
        "result": None,
    }
    assert alice.client.get(answer["Location"]).json()["id"] == answer.json()["id"]


def test_each_error_of_a_payload_has_its_pointer(bob):
    bob.register(
        schema={
            "type": "object",
            "properties": {"a": {"type": "number"}, "b/c": {"items": {"type": "string"}}},
            "required": ["d"],
        }
    )
    document = problem(bob.submit(a="x", **{"b/c": ["y", 1]}), "invalid-payload", 422)
    assert [error["pointer"] for error in document["errors"]] == [
        "/payload",
        "/payload/a",
        "/payload/b~1c/1",
    ]
    assert not Task.objects.exists()


def test_unicode_payloads_are_returned_unchanged(bob):
    bob.register(schema={})
    payload = {"name": "Übergrößenträger 🧪", "nested": [{"x": 1.5}, None, True]}
    task = bob.submit(**payload).json()
    assert bob.get(f"/tasks/{task['id']}").json()["payload"] == payload


def test_queue_position_counts_the_jobs_own_pending_tasks(bob):
    bob.register()
    bob.register(name="Other")
    tasks = [bob.submit().json() for _ in range(3)]
    assert bob.submit(job="open:modifiers:Other").json()["queue_position"] == 1
    assert [task["queue_position"] for task in tasks] == [1, 2, 3]
    bob.claim()
    assert bob.get(f"/tasks/{tasks[2]['id']}").json()["queue_position"] == 2
    assert "queue_position" not in bob.get(f"/tasks/{tasks[0]['id']}").json()


def test_queue_position_stops_at_a_thousand(bob):
    bob.register()
    first = Task.objects.get(pk=bob.submit().json()["id"])
    Task.objects.bulk_create(
        [Task(job=first.job, room_id="open", created_by="x", payload={}) for _ in range(1100)]
    )
    assert bob.submit().json()["queue_position"] == 1000


def test_lists_are_newest_first_and_filtered_by_status(bob, root):
    bob.register()
    root.register("@global")
    ids = [bob.submit().json()["id"] for _ in range(2)]
    ids.append(bob.submit(job="@global:modifiers:Rotate").json()["id"])
    bob.submit("open2", "@global:modifiers:Rotate")
    assert [task["id"] for task in bob.get("/rooms/open/tasks").json()] == ids[::-1]
    of_job = bob.get("/rooms/open/jobs/open:modifiers:Rotate/tasks").json()
    assert [task["id"] for task in of_job] == [ids[1], ids[0]]
    of_global = bob.get("/rooms/open/jobs/@global:modifiers:Rotate/tasks").json()
    assert [task["id"] for task in of_global] == [ids[2]]
    bob.claim()
    for status, expected in (("pending", [ids[2], ids[1]]), ("claimed", [ids[0]]), ("failed", [])):
        listed = bob.get(f"/rooms/open/tasks?status={status}").json()
        assert [task["id"] for task in listed] == expected
    problem(bob.get("/rooms/open/tasks?status=nope"), "validation-error", 400)
    problem(bob.get("/rooms/open/jobs/open:modifiers:No/tasks"), "job-not-found", 404)


@pytest.mark.parametrize("task_id", [str(uuid.uuid4()), "nope", "%00", "x" * 32_000, "1"])
def test_unknown_and_malformed_ids_are_not_found(bob, task_id):
    problem(bob.get(f"/tasks/{task_id}"), "task-not-found", 404)
    problem(bob.report(task_id, "cancelled"), "task-not-found", 404)


@pytest.mark.parametrize("path", ["/rooms/open/tasks", "/workers", "/rooms/open/jobs"])
def test_pages_by_link_headers_have_every_row_once(bob, path):
    for number in range(7):
        bob.register(name=f"Job{number}")
        bob.submit(job=f"open:modifiers:Job{number}")
        bob.worker()
    everything = bob.get(path).json()
    seen, url = [], f"/v1/joblib{path}?limit=3"
    while url:
        answer = bob.client.get(url)
        assert len(answer.json()) <= 3
        seen += answer.json()
        link = answer.headers.get("Link")
        url = link and re.fullmatch(r'<(.+)>; rel="next"', link)[1]
    assert seen == everything
    assert len(seen) >= 7


@pytest.mark.parametrize("room", ["a?b", "a#b", "a%41", "ä b"])
def test_links_quote_special_characters_of_room_ids(root, room):
    path = f"/rooms/{quote(room)}"
    root.send("put", f"{path}/jobs", {"category": "modifiers", "name": "Rotate", "schema": {}})
    for _ in range(3):
        submitted = root.send("post", f"{path}/tasks/{quote(room)}:modifiers:Rotate", {})
        assert submitted.status_code == 202, submitted.content
    seen, url = [], f"/v1/joblib{path}/tasks?limit=2"
    while url:
        answer = root.client.get(url)
        seen += answer.json()
        link = answer.headers.get("Link")
        url = link and re.fullmatch(r'<http://testserver(.+)>; rel="next"', link)[1]
    assert [task["room_id"] for task in seen] == [room] * 3
    instance = problem(root.get(f"{path}/jobs/nope"), "job-not-found", 404)["instance"]
    assert instance == f"/v1/joblib{path}/jobs/nope"


def test_a_list_of_all_statuses_is_in_order_across_pages(bob):
    bob.register()
    tasks = [bob.submit().json()["id"] for _ in range(24)]
    job = Job.objects.get()
    other = Task.objects.create(job=job, room_id="other", created_by="x", payload={})
    for number, task_id in enumerate(tasks):
        status = list(TaskStatus)[number % 6]
        # Four tasks each have the same time of creation, so that their ids decide the order.
        created = timezone.now() - timedelta(seconds=number // 4)
        ended = created if status in TERMINAL_STATUSES else None
        Task.objects.filter(pk=task_id).update(
            status=status, created_at=created, completed_at=ended
        )
    for chunk in range(0, 24, 4):
        same = Task.objects.get(pk=tasks[chunk]).created_at
        Task.objects.filter(pk__in=tasks[chunk : chunk + 4]).update(created_at=same)
    expected = [task_id for chunk in range(0, 24, 4) for task_id in tasks[chunk : chunk + 4][::-1]]
    for limit in (1, 2, 7, 24, 500):
        seen, url = [], f"/v1/joblib/rooms/open/tasks?limit={limit}"
        while url:
            answer = bob.client.get(url)
            seen += [task["id"] for task in answer.json()]
            link = answer.headers.get("Link")
            url = link and re.fullmatch(r'<(.+)>; rel="next"', link)[1]
        assert seen == expected
    assert str(other.pk) not in seen


@pytest.mark.parametrize("path", ["/rooms/open/tasks", "/workers", "/rooms/open/workers"])
@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=501", "limit=-1", "limit=x", "limit=1.5", "limit=", "limit=٣"),
        "limit=99999999999999999999",
        "limit=" + "9" * 5000,
        *("cursor=x", "cursor=%00", "cursor=WyJ4Il0", "cursor=WzFd", "cursor=W10"),
    ],
)
def test_invalid_limits_and_cursors_are_refused(bob, path, query):
    problem(bob.get(f"{path}?{query}"), "validation-error", 400)


def test_too_large_payloads_are_refused(bob, settings_of):
    bob.register(schema={})
    settings_of(max_payload_bytes=20)
    assert bob.submit(a="é").status_code == 202
    document = problem(bob.submit(a="é" * 10), "invalid-payload", 422)
    assert document["errors"] == [
        {"detail": "The payload must have at most 20 bytes of JSON.", "pointer": "/payload"}
    ]
    assert Task.objects.count() == 1


def test_a_payload_comes_back_as_it_was_sent(bob):
    """Control: ``jsonb`` sorts keys, drops the sign of zero and makes 1e22 an integer."""
    bob.register(schema={})
    sent = '{"z":1,"a":{"y":-0.0,"b":[1e22,1.0,12345678901234567890123]},"":""}'
    body = f'{{"payload":{sent}}}'
    path = V1 + "/rooms/open/tasks/open:modifiers:Rotate"
    submitted = bob.client.generic("POST", path, body, "application/json").json()
    claimed = bob.claim()
    read = bob.get(f"/tasks/{submitted['id']}").json()
    listed = bob.get("/rooms/open/tasks").json()[0]
    for task in (submitted, claimed, read, listed):
        assert repr(task["payload"]) == repr(json.loads(sent))
    assert list(Task.objects.get().payload) == ["z", "a", ""]
