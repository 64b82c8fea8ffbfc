"""Who may do what: the table of the design, 6 roles by every action."""

from __future__ import annotations

import pytest

from tests.factories import V1, Person, problem
from zndraw_joblib.models import Task

ROLES = ("anonymous", "submitter", "stranger", "owner", "other", "admin")
ROOM = "open-lab"


@pytest.fixture
def scene(people, settings_of, root):
    """A task of the submitter's, claimed by the owner's worker, in a room the stranger lacks."""
    settings_of(room_access="tests.api.test_access.not_the_stranger")
    cast = {name: people(name) for name in ("submitter", "stranger", "owner", "other")}
    cast["admin"] = root
    owner = cast["owner"]
    worker = owner.worker()
    owner.register(ROOM, worker_id=worker)
    root.register("@global", name="Global")
    task = cast["submitter"].submit(ROOM, f"{ROOM}:modifiers:Rotate").json()
    owner.claim(worker)
    cast["anonymous"] = Person(None, "", type(root.client)())
    return cast, worker, task["id"]


def not_the_stranger(request, room_id, action):
    return request.user.username != "stranger"


def check(answer, expected):
    if expected >= 400:
        slug = {401: "not-authenticated", 403: "forbidden"}.get(expected)
        assert answer.status_code == expected, answer.content
        assert answer["Content-Type"] == "application/problem+json"
        if slug:
            problem(answer, slug, expected)
        if expected == 401:
            assert answer["WWW-Authenticate"] == "Token"
    else:
        assert answer.status_code == expected, answer.content


def table(*codes):
    return list(zip(ROLES, codes, strict=True))


@pytest.mark.parametrize(("role", "code"), table(401, 200, 404, 200, 200, 200))
@pytest.mark.parametrize(
    "path",
    [
        f"/rooms/{ROOM}/jobs",
        f"/rooms/{ROOM}/jobs/{ROOM}:modifiers:Rotate",
        f"/rooms/{ROOM}/jobs/{ROOM}:modifiers:Rotate/tasks",
        f"/rooms/{ROOM}/tasks",
        f"/rooms/{ROOM}/workers",
    ],
)
def test_look_into_a_room(scene, path, role, code):
    check(scene[0][role].get(path), code)


@pytest.mark.parametrize(("role", "code"), table(401, 200, 200, 200, 200, 200))
@pytest.mark.parametrize(
    "path", ["/rooms/@global/jobs", "/rooms/@global/jobs/@global:modifiers:Global", "/workers"]
)
def test_what_everybody_sees(scene, path, role, code):
    check(scene[0][role].get(path), code)


@pytest.mark.parametrize(("role", "code"), table(401, 201, 403, 201, 201, 201))
def test_register_in_a_room(scene, role, code):
    check(scene[0][role].register(ROOM, name="New"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 403, 403, 403, 403, 201))
def test_register_a_global_job(scene, role, code):
    check(scene[0][role].register("@global", name="New"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 202, 403, 202, 202, 202))
def test_submit(scene, role, code):
    check(scene[0][role].submit(ROOM, f"{ROOM}:modifiers:Rotate"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 200, 404, 200, 200, 200))
def test_get_a_task(scene, role, code):
    check(scene[0][role].get(f"/tasks/{scene[2]}"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 404, 404, 200, 404, 404))
def test_claim_with_and_beat_a_worker(scene, role, code):
    check(scene[0][role].send("post", "/tasks/claim", {"worker_id": scene[1]}), code)
    check(scene[0][role].send("patch", f"/workers/{scene[1]}"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 403, 404, 200, 403, 200))
def test_report(scene, role, code):
    cast, _, task_id = scene
    check(cast[role].report(task_id, "running", attempt=1), code)
    for status in ("completed", "failed"):
        Task.objects.filter(pk=task_id).update(status="running")
        check(cast[role].report(task_id, status), code)


@pytest.mark.parametrize(("role", "code"), table(401, 200, 404, 200, 403, 200))
def test_cancel(scene, role, code):
    check(scene[0][role].report(scene[2], "cancelled"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 404, 404, 204, 404, 204))
def test_delete_a_worker(scene, role, code):
    check(scene[0][role].send("delete", f"/workers/{scene[1]}"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 201, 201, 201, 201, 201))
def test_make_a_worker(scene, role, code):
    check(scene[0][role].send("post", "/workers"), code)


@pytest.mark.parametrize(("role", "code"), table(401, 200, 200, 200, 200, 200))
def test_me(scene, role, code):
    person = scene[0][role]
    answer = person.client.get("/v1/me")
    check(answer, code)
    if code == 200:
        assert answer.json() == {"id": person.identity}


def test_the_owner_of_the_worker_sees_its_task_without_access_to_the_room(scene, settings_of):
    cast, _, task_id = scene
    settings_of(room_access="tests.api.test_access.nobody")
    assert cast["owner"].get(f"/tasks/{task_id}").status_code == 200
    assert cast["owner"].report(task_id, "running").status_code == 200
    problem(cast["submitter"].get(f"/tasks/{task_id}"), "task-not-found", 404)
    problem(cast["submitter"].report(task_id, "cancelled"), "task-not-found", 404)
    assert cast["admin"].get(f"/tasks/{task_id}").status_code == 200


def nobody(request, room_id, action):
    return False


def test_the_host_says_who_is_who(scene, settings_of, people):
    settings_of(
        identity="tests.api.test_access.by_name", is_admin="tests.api.test_access.stranger_rules"
    )
    assert people("other").client.get("/v1/me").json() == {"id": "user:other"}
    assert people("stranger").register("@global", name="New").status_code == 201
    problem(scene[0]["admin"].register("@global", name="Newer"), "forbidden", 403)


def by_name(request):
    return f"user:{request.user.username}"


def stranger_rules(request):
    return request.user.username == "stranger"


def test_the_permission_administer_makes_an_admin(people, bob):
    from django.contrib.auth.models import Permission

    problem(bob.register("@global"), "forbidden", 403)
    bob.user.user_permissions.add(
        Permission.objects.get(codename="administer", content_type__app_label="zndraw_joblib")
    )
    assert bob.register("@global").status_code == 201


def test_every_route_is_in_this_file():
    """A route added without a row above fails here."""
    from zndraw_joblib.api.urls import urlpatterns

    assert {pattern.name for pattern in urlpatterns} == {
        *("jobs", "job", "job-tasks", "room-tasks", "submit", "room-workers", "claim", "task"),
        *("workers", "worker", "me", "problem", "unknown"),
    }
    assert V1 == "/v1/joblib"
