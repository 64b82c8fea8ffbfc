from __future__ import annotations

import socket

import pytest
from rest_framework.throttling import ScopedRateThrottle

from tests.factories import SCHEMA, problem
from zndraw_joblib.models import Job, Worker


def test_register_answers_201_then_200(bob):
    first = bob.register()
    assert first.status_code == 201
    assert first.json() == {
        "id": first.json()["id"],
        "room_id": "open",
        "category": "modifiers",
        "name": "Rotate",
        "full_name": "open:modifiers:Rotate",
        "schema": SCHEMA,
        "retry": None,
        "durable": False,
        "worker_count": 1,
        "worker_id": bob.identity,
    }
    again = bob.register()
    assert again.status_code == 200
    assert again.json() == first.json()


def test_json_schema_is_accepted_for_schema(bob):
    body = {"category": "modifiers", "name": "Rotate", "json_schema": SCHEMA}
    assert bob.send("put", "/rooms/open/jobs", body).status_code == 201


def test_a_registration_without_a_schema_accepts_every_payload(bob):
    answer = bob.send("put", "/rooms/open/jobs", {"category": "modifiers", "name": "Rotate"})
    assert answer.status_code == 201
    assert answer.json()["schema"] == {}
    assert bob.register(schema={}).status_code == 200
    assert bob.submit(anything=[1]).status_code == 202
    document = problem(bob.register(schema=None), "validation-error", 400)
    assert document["errors"][0]["pointer"] == "/schema"


def test_a_schema_keeps_the_order_of_its_keys(bob):
    schema = {"type": "object", "properties": {"z": {}, "a": {}, "m": {}}}
    bob.register(schema=schema)
    job = bob.get("/rooms/open/jobs/open:modifiers:Rotate").json()
    assert list(job["schema"]["properties"]) == ["z", "a", "m"]


def test_another_schema_conflicts_while_any_worker_is_live_the_callers_included(bob, carol):
    bob.register()
    for person in (bob, carol):
        problem(person.register(schema={"type": "object"}), "schema-conflict", 409)
    assert Job.objects.get().schema == SCHEMA
    # The refused registration has not created Carol's default worker.
    assert not Worker.objects.filter(identity=carol.identity).exists()


def test_another_schema_takes_over_when_no_live_worker_is_left(bob, carol):
    bob.register()
    Worker.objects.update(last_heartbeat="2020-01-01T00:00:00Z")
    other = {"type": "object", "title": "other"}
    answer = carol.register(schema=other)
    assert answer.status_code == 200
    assert answer.json()["schema"] == other
    assert answer.json()["worker_count"] == 1
    assert bob.claim() is None


def test_true_and_one_are_not_the_same_schema(bob):
    bob.register(schema={"const": True})
    problem(bob.register(schema={"const": 1}), "schema-conflict", 409)


def test_a_retired_job_is_not_found_and_revived_by_registering(bob):
    bob.register()
    Worker.objects.all().delete()
    assert Job.objects.retire() == 1
    problem(bob.get("/rooms/open/jobs/open:modifiers:Rotate"), "job-not-found", 404)
    problem(bob.submit(), "job-not-found", 404)
    assert bob.get("/rooms/open/jobs").json() == []
    assert bob.register().status_code == 201
    assert bob.submit().status_code == 202


@pytest.mark.parametrize("room", ["open", "@global"])
def test_addresses_of_accepted_tasks_stay_valid_after_their_job_is_retired(bob, root, room):
    root.register(room)
    full_name = f"{room}:modifiers:Rotate"
    payloads = [{"payload": {"angle": angle}} for angle in range(3)]
    many = bob.send("post", f"/rooms/open/tasks/{full_name}", payloads)
    one = bob.submit(job=full_name)
    ids = [task["id"] for task in (*many.json(), one.json())]
    first_page = bob.get(f"/rooms/open/jobs/{full_name}/tasks?limit=3")
    for task_id in ids:
        bob.report(task_id, "cancelled")
    Worker.objects.all().delete()
    assert Job.objects.retire() == 1
    listed = bob.client.get(many["Location"])
    assert [task["id"] for task in listed.json()] == ids[::-1]
    assert bob.client.get(one["Location"]).json()["id"] == ids[3]
    next_page = first_page["Link"].partition(">")[0].removeprefix("<")
    assert [task["id"] for task in bob.client.get(next_page).json()] == ids[:1]
    assert len(bob.get("/rooms/open/tasks").json()) == 4
    problem(bob.get(f"/rooms/open/jobs/{full_name}"), "job-not-found", 404)
    problem(bob.submit(job=full_name), "job-not-found", 404)
    # By room, as before: another room's list of a global job has none of them.
    other = bob.get(f"/rooms/open2/jobs/{full_name}/tasks")
    if room == "@global":
        assert other.json() == []
    else:
        problem(other, "job-not-found", 404)


def test_tasks_of_a_retired_job_are_hidden_from_callers_who_may_not_read_the_room(
    bob, carol, settings_of
):
    settings_of(room_access="tests.factories.by_room")
    bob.register("bob-room")
    Worker.objects.all().delete()
    assert Job.objects.retire() == 1
    path = "/rooms/bob-room/jobs/bob-room:modifiers:Rotate/tasks"
    assert bob.get(path).json() == []
    problem(carol.get(path), "job-not-found", 404)


def test_only_admins_register_global_jobs(bob, root):
    problem(bob.register("@global"), "forbidden", 403)
    assert root.register("@global").status_code == 201


def test_list_shows_the_rooms_own_and_global_jobs(bob, root):
    bob.register("open")
    bob.register("open2")
    root.register("@global", name="Select")
    listed = bob.get("/rooms/open/jobs").json()
    assert [job["full_name"] for job in listed] == [
        "@global:modifiers:Select",
        "open:modifiers:Rotate",
    ]
    assert listed[0] == {
        "full_name": "@global:modifiers:Select",
        "category": "modifiers",
        "name": "Select",
        "worker_count": 1,
    }
    assert len(bob.get("/rooms/@global/jobs").json()) == 1


@pytest.mark.parametrize(
    "name", ["open2:modifiers:Rotate", "open:modifiers:Nope", "open:modifiers", "x", "a:b:c:d"]
)
def test_jobs_of_other_rooms_and_invalid_names_are_not_found(bob, name):
    bob.register("open")
    bob.register("open2")
    problem(bob.get(f"/rooms/open/jobs/{name}"), "job-not-found", 404)
    problem(bob.submit(job=name), "job-not-found", 404)


def test_percent_encoded_names_work(bob, root):
    root.register("@global")
    assert bob.get("/rooms/open/jobs/%40global%3Amodifiers%3ARotate").status_code == 200


@pytest.mark.parametrize("room", ["a@b", "a:b", "x" * 129, "@internal", "a%00b", "a%0Ab"])
def test_invalid_room_ids_are_refused_on_every_route(bob, room):
    for answer in (
        bob.register(room),
        bob.get(f"/rooms/{room}/jobs"),
        bob.get(f"/rooms/{room}/tasks"),
        bob.get(f"/rooms/{room}/workers"),
        bob.submit(room),
    ):
        problem(answer, "invalid-room-id", 400)


def test_the_length_of_room_ids_can_be_limited(bob, settings_of):
    settings_of(max_room_id_length=10)
    assert bob.register("x" * 10).status_code == 201
    assert "10" in problem(bob.register("x" * 11), "invalid-room-id", 400)["detail"]


def test_an_unknown_category_is_refused(bob, settings_of):
    body = {"category": "nonsense"}
    document = problem(bob.register(**body), "invalid-category", 400)
    assert "modifiers" in document["detail"]
    settings_of(allowed_categories=["nonsense"])
    assert bob.register(**body).status_code == 201


def test_only_a_workers_owner_registers_a_job_with_it(bob, carol):
    worker = bob.worker()
    assert bob.register(worker_id=worker).json()["worker_id"] == worker
    problem(carol.register("open3", worker_id=worker), "worker-not-found", 404)


@pytest.mark.parametrize("name", ["", "a:b", "a/b", "@x", "x" * 129, "a\nb", 0, None])
def test_invalid_job_names_are_refused(bob, name):
    document = problem(bob.register(name=name), "validation-error", 400)
    assert document["errors"][0]["pointer"] == "/name"
    assert not Job.objects.exists()


def test_a_remote_reference_in_a_schema_is_refused_and_not_fetched(bob, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    # Without a rate the throttle does not use the cache, which would open a socket too.
    monkeypatch.delitem(ScopedRateThrottle.THROTTLE_RATES, "joblib_register")
    monkeypatch.setattr(socket, "socket", refuse)
    answer = bob.register(schema={"properties": {"a": {"$ref": "http://127.0.0.1:1/"}}})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/schema/properties/a/$ref"


def test_a_pointer_leads_to_the_refused_part_of_a_schema(bob):
    answer = bob.register(schema={"properties": {"a": {"$ref": "http://127.0.0.1:1/"}}})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/schema/properties/a/$ref"
