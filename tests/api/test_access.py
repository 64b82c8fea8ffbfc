"""Permissions: the table of the design, 6 roles by every action."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connection, transaction
from django.test import AsyncClient
from django.urls import path as route_to

from tests.factories import V1, Person, problem
from tests.sockets import Socket, token
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.urls import urlpatterns
from zndraw_joblib.exceptions import PROBLEM_TYPES, WorkerNotFound
from zndraw_joblib.models import Task, TaskFile
from zndraw_joblib.routing import websocket_urlpatterns
from zndraw_joblib.services.workers import checked_worker_id

ROLES = ("anonymous", "submitter", "stranger", "owner", "other", "admin")
ROOM = "open-lab"


@pytest.fixture
def scene(people, settings_of, root):
    """The cast, the owner's worker and the id of a task.

    The submitter submitted the task, the owner's worker claimed it, the worker of `other` is
    registered for the same job, and the stranger has no access to the room.
    """
    settings_of(room_access="tests.api.test_access.not_the_stranger")
    cast = {name: people(name) for name in ("submitter", "stranger", "owner", "other")}
    cast["admin"] = root
    owner = cast["owner"]
    worker = owner.worker()
    owner.register(ROOM, worker_id=worker)
    cast["other"].register(ROOM, worker_id=cast["other"].worker())
    root.register("@global", name="Global")
    task = cast["submitter"].submit(ROOM, f"{ROOM}:modifiers:Rotate").json()
    owner.claim(worker)
    cast["anonymous"] = Person(None, "", type(root.client)())
    return cast, worker, task["id"]


def not_the_stranger(request, room_id, action):
    return request.user.username != "stranger"


def check(answer, expected):
    """Assert the expected status, or the problem where a slug is expected; returns the status."""
    slug = {401: "not-authenticated", 403: "forbidden"}.get(expected)
    if isinstance(expected, str):
        slug, expected = expected, PROBLEM_TYPES[expected].status
    if isinstance(answer, list):
        # A batch of one report: the status is in the report's result.
        (result,) = answer
        assert result["status"] == expected, result
        assert ("task" in result) == (expected == 200)
        assert ("problem" in result) == (expected != 200)
        assert not slug or result["problem"]["type"].endswith(f"/{slug}")
        return expected
    assert answer.status_code == expected, answer.content
    if expected >= 400:
        assert answer["Content-Type"] == "application/problem+json"
        if slug:
            problem(answer, slug, expected)
        if expected == 401:
            assert answer["WWW-Authenticate"] == "Token"
    return expected


@dataclass(frozen=True)
class Row:
    """The statuses or problem slugs that a route returns, in the order of `ROLES`.

    `prepare` changes the task before the request; it takes the cast and a queryset of the task.
    `send` sends the request; it takes a person, the worker's id and the task's id.
    """

    route: str
    method: str
    codes: tuple[int | str, ...]
    send: Callable[[Person, str, str], Any]
    about: str = ""
    prepare: Callable[[dict[str, Person], Any], Any] = lambda cast, task: None

    def __str__(self):
        return f"{self.method} {self.route} {self.about}".strip()


IN_ROOM = (401, 200, 404, 200, 200, 200)
FOR_ALL = (401, 200, 200, 200, 200, 200)
JOB = f"{ROOM}:modifiers:Rotate"
NO_FILE = "file-not-found"
MOVED = "invalid-task-transition"
GLOBAL = "@global:modifiers:Global"


def getting(path):
    return lambda person, worker, task: person.get(path.format(worker=worker, task=task))


def reporting(status, **body):
    return lambda person, worker, task: person.report(task, status, **body)


def reporting_in_batch(status, **body):
    return lambda person, _, task: person.report_many([{"id": task, "status": status, **body}])


def unchanged(cast, task):
    """The owner's worker has claimed it."""


def cancelled(cast, task):
    task.cancel()


def running(cast, task):
    task.start()


def never_granted(cast, task):
    task.requeue()
    task.update(attempt=0, worker_identity="")


def requeued(cast, task):
    task.requeue()


def granted_again(cast, task):
    """The same worker has the next attempt."""
    task.update(attempt=2)


def granted_to_the_other(cast, task):
    task.update(attempt=2, worker_identity=cast["other"].identity)


def reports():
    """Rows of reports in every state of the task on which the answer depends."""
    attempts: tuple[int | None, ...]
    codes: tuple[int | str, ...]
    moved, lost = "invalid-task-transition", "lease-lost"
    for status in ("running", "completed", "failed"):
        for prepare, attempts, codes in (
            (never_granted, (None, 0), (401, 403, 404, 403, 403, moved)),
            (never_granted, (1,), (401, 403, 404, 403, 403, lost)),
            (requeued, (None, 1), (401, 403, 404, moved, 403, moved)),
            (granted_again, (1, 3), (401, 403, 404, lost, 403, lost)),
            (granted_to_the_other, (1,), (401, 403, 404, 403, lost, lost)),
        ):
            for attempt in attempts:
                about = f"{status} {prepare.__name__} {attempt}"
                body = {"attempt": attempt}
                yield Row("task", "patch", codes, reporting(status, **body), about, prepare)
                if status == "completed":
                    yield Row(
                        "tasks", "patch", codes, reporting_in_batch(status, **body), about, prepare
                    )
    for prepare, attempts, codes in (
        (never_granted, (None, 0), (401, 200, 404, 403, 403, 200)),
        (requeued, (None, 1), (401, 200, 404, 403, 403, 200)),
        (requeued, (0,), (401, lost, 404, lost, 403, lost)),
        (running, (None, 1), (401, 200, 404, 200, 403, 200)),
        (granted_again, (1,), (401, lost, 404, lost, 403, lost)),
        (granted_to_the_other, (1,), (401, lost, 404, 403, lost, lost)),
        (granted_to_the_other, (None,), (401, 200, 404, 403, 200, 200)),
    ):
        for attempt in attempts:
            about = f"cancel {prepare.__name__} {attempt}"
            body = {"attempt": attempt}
            yield Row("task", "patch", codes, reporting("cancelled", **body), about, prepare)
            yield Row(
                "tasks", "patch", codes, reporting_in_batch("cancelled", **body), about, prepare
            )


def looking_up(person, worker, task):
    return person.send("post", "/tasks/lookup", {"ids": [task]})


def logging(attempt):
    body = {"attempt": attempt, "text": "x"}
    return lambda person, _, task: person.send("post", f"/tasks/{task}/log", body)


def log_writes():
    """Rows of writes to a log in every state of the task on which the answer depends."""
    ended, lost = "invalid-task-transition", "lease-lost"
    codes: tuple[int | str, ...]
    for prepare, attempt, codes in (
        (unchanged, 1, (401, 403, 404, 204, 403, 204)),
        (running, 1, (401, 403, 404, 204, 403, 204)),
        (never_granted, 0, (401, 403, 404, 403, 403, ended)),
        (requeued, 1, (401, 403, 404, ended, 403, ended)),
        (cancelled, 1, (401, 403, 404, ended, 403, ended)),
        (unchanged, 2, (401, 403, 404, lost, 403, lost)),
        (granted_again, 1, (401, 403, 404, lost, 403, lost)),
        (granted_to_the_other, 1, (401, 403, 404, 403, lost, lost)),
    ):
        yield Row("log", "post", codes, logging(attempt), f"{prepare.__name__} {attempt}", prepare)


def claiming(person, worker, task):
    return person.send("post", "/tasks/claim", {"worker_id": worker})


def uploading(person, worker, task, attempt=1):
    path = f"{V1}/tasks/{task}/files/a.txt?attempt={attempt}"
    return person.client.generic("PUT", path, b"hello", content_type="text/plain")


def downloading(person, worker, task):
    etag = {"If-None-Match": f'"{"0" * 64}"'}
    return person.get(f"/tasks/{task}/files/a.txt", headers=etag)


def with_file(cast, task):
    TaskFile.objects.create(
        task=task.get(), attempt=1, name="a.txt", size=0, sha256="0" * 64, path="none"
    )


MATRIX = [
    Row("jobs", "get", IN_ROOM, getting(f"/rooms/{ROOM}/jobs")),
    Row("jobs", "get", FOR_ALL, getting("/rooms/@global/jobs"), "@global"),
    Row(
        "jobs",
        "put",
        (401, 201, 403, 201, 201, 201),
        lambda person, *_: person.register(ROOM, name="New"),
    ),
    Row(
        "jobs",
        "put",
        (401, 403, 403, 403, 403, 201),
        lambda person, *_: person.register("@global", name="New"),
        "@global",
    ),
    Row("job", "get", IN_ROOM, getting(f"/rooms/{ROOM}/jobs/{JOB}")),
    Row("job", "get", FOR_ALL, getting(f"/rooms/@global/jobs/{GLOBAL}"), "@global"),
    Row(
        "job",
        "delete",
        (401, 204, 403, 204, 204, 204),
        lambda person, *_: person.send("delete", f"/rooms/{ROOM}/jobs/{JOB}"),
    ),
    Row(
        "job",
        "delete",
        (401, 403, 403, 403, 403, 204),
        lambda person, *_: person.send("delete", f"/rooms/@global/jobs/{GLOBAL}"),
        "@global",
    ),
    Row("job-tasks", "get", IN_ROOM, getting(f"/rooms/{ROOM}/jobs/{JOB}/tasks")),
    Row("room-events", "get", IN_ROOM, getting(f"/rooms/{ROOM}/events")),
    Row("room-tasks", "get", IN_ROOM, getting(f"/rooms/{ROOM}/tasks")),
    Row("room-workers", "get", IN_ROOM, getting(f"/rooms/{ROOM}/workers")),
    Row(
        "submit",
        "post",
        (401, 202, 403, 202, 202, 202),
        lambda person, *_: person.submit(ROOM, JOB),
    ),
    Row("tasks", "get", FOR_ALL, getting("/tasks")),
    Row(
        "tasks",
        "get",
        (401, 403, 403, 403, 403, 200),
        getting("/tasks?created_by=somebody"),
        "of somebody",
    ),
    Row("task", "get", IN_ROOM, getting("/tasks/{task}")),
    Row("task", "patch", (401, 403, 404, 200, 403, 200), reporting("running", attempt=1), "start"),
    Row(
        "task",
        "patch",
        (401, 403, 404, 200, 403, 200),
        reporting("completed"),
        "complete",
        running,
    ),
    Row("task", "patch", (401, 403, 404, 200, 403, 200), reporting("failed"), "fail", running),
    Row("task", "patch", (401, 200, 404, 200, 403, 200), reporting("cancelled"), "cancel"),
    Row("tasks", "patch", (401, 403, 404, 200, 403, 200), reporting_in_batch("running"), "start"),
    *reports(),
    Row("files", "get", IN_ROOM, getting("/tasks/{task}/files")),
    Row(
        "file",
        "get",
        (401, NO_FILE, 404, NO_FILE, NO_FILE, NO_FILE),
        getting("/tasks/{task}/files/a.txt"),
    ),
    Row("file", "get", (401, 304, 404, 304, 304, 304), downloading, "known", with_file),
    *(
        Row("file", "put", codes, uploading, prepare.__name__, prepare)
        for prepare, codes in (
            (unchanged, (401, 403, 404, 201, 403, 201)),
            (running, (401, 403, 404, 201, 403, 201)),
            (never_granted, (401, 403, 404, 403, 403, "lease-lost")),
            (requeued, (401, 403, 404, MOVED, 403, MOVED)),
            (granted_again, (401, 403, 404, "lease-lost", 403, "lease-lost")),
            (granted_to_the_other, (401, 403, 404, 403, "lease-lost", "lease-lost")),
        )
    ),
    Row("log", "get", IN_ROOM, getting("/tasks/{task}/log")),
    *log_writes(),
    Row("task-attempts", "get", IN_ROOM, getting("/tasks/{task}/attempts")),
    Row(
        "task-retry",
        "post",
        (401, 202, 404, 202, 202, 202),
        lambda person, _, task: person.send("post", f"/tasks/{task}/retry"),
        prepare=lambda cast, task: task.cancel(),
    ),
    Row(
        "task-retry",
        "post",
        (401, "invalid-task-transition", 404, *["invalid-task-transition"] * 3),
        lambda person, _, task: person.send("post", f"/tasks/{task}/retry"),
        "of a task that has not ended",
    ),
    Row("claim", "post", (401, 404, 404, 200, 404, 404), claiming),
    Row("lookup", "post", FOR_ALL, looking_up),
    Row("workers", "get", FOR_ALL, getting("/workers")),
    Row(
        "workers",
        "post",
        (401, 201, 201, 201, 201, 201),
        lambda person, *_: person.send("post", "/workers"),
    ),
    Row(
        "worker",
        "patch",
        (401, 404, 404, 200, 404, 404),
        lambda person, worker, _: person.send("patch", f"/workers/{worker}"),
    ),
    Row(
        "worker",
        "delete",
        (401, 404, 404, 204, 404, 204),
        lambda person, worker, _: person.send("delete", f"/workers/{worker}"),
    ),
    Row(
        "worker-job",
        "delete",
        (401, 404, 404, 204, 404, 204),
        lambda person, worker, _: person.send("delete", f"/workers/{worker}/jobs/{JOB}"),
    ),
    Row("me", "get", FOR_ALL, lambda person, *_: person.client.get("/v1/me")),
    Row(
        "problem",
        "get",
        (200, 200, 200, 200, 200, 200),
        lambda person, *_: person.client.get("/v1/problems/job-not-found"),
    ),
]


@contextmanager
def undone(about):
    """Rolls back what a block changes; a failure of the block says what it was about."""
    with transaction.atomic():
        try:
            yield
        except Exception as error:
            error.add_note(f"in the matrix: {about}")
            raise
        transaction.set_rollback(True)


@pytest.mark.parametrize("route", dict.fromkeys(row.route for row in MATRIX))
def test_each_role_gets_the_answer_of_the_matrix(scene, route):
    """One row after the other, and one role after the other, each in a savepoint.

    A scene takes ten times as long as a request.
    """
    cast, worker, task_id = scene
    for row in MATRIX:
        if row.route == route:
            with undone(row):
                row.prepare(cast, Task.objects.filter(pk=task_id))
                before = rows()
                for role, expected in zip(ROLES, row.codes, strict=True):
                    with undone(role):
                        code = check(row.send(cast[role], worker, task_id), expected)
                        if code >= 400:
                            assert rows() == before
                assert rows() == before


def rows():
    """All rows of the tables as texts, without models, because each role compares them."""
    found = []
    with connection.cursor() as cursor:
        for table in apps.get_app_config("zndraw_joblib").get_models():
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table._meta.db_table)}")
            found.append(sorted(map(str, cursor.fetchall())))
    return found


@pytest.mark.any_database
@pytest.mark.parametrize("role", ROLES)
def test_an_unknown_address_is_not_found_for_every_role(scene, role):
    problem(scene[0][role].get("/nothing"), "not-found", 404)


def test_me_returns_the_identity_of_the_caller(scene):
    for role in ROLES[1:]:
        person = scene[0][role]
        assert person.client.get("/v1/me").json() == {"id": person.identity}


def test_a_lookup_leaves_out_tasks_of_rooms_that_the_caller_may_not_read(scene):
    cast, worker, task_id = scene
    found = {role: len(looking_up(cast[role], worker, task_id).json()) for role in ROLES[1:]}
    assert found == {"submitter": 1, "stranger": 0, "owner": 1, "other": 1, "admin": 1}


@pytest.mark.any_database
def test_workers_are_listed_to_their_owner_and_to_admins(scene):
    cast, worker, _ = scene
    seen = {
        role: worker in [listed["id"] for listed in cast[role].get("/workers").json()]
        for role in ROLES[1:]
    }
    assert [role for role, listed in seen.items() if listed] == ["owner", "admin"]


def routes(patterns=urlpatterns):
    """Yield the name and the method of every route in `patterns`."""
    for pattern in patterns:
        view = pattern.callback
        known = getattr(view, "actions", None) or [
            method
            for method in view.view_class.http_method_names
            if hasattr(view.view_class, method)
        ]
        for method in known:
            if method != "head":
                yield pattern.name, method


def test_every_route_is_in_the_matrix():
    assert {(row.route, row.method) for row in MATRIX} == set(routes())
    assert next(p for p in urlpatterns if p.name == "unknown").pattern.regex.match("v1/joblib/x")


def test_every_method_of_a_view_is_a_route():
    class Odd(JobLibView):
        def patch(self, request):
            pass

        def delete(self, request):
            pass

    assert set(routes([route_to("odd", Odd.as_view(), name="odd")])) == {
        ("odd", "patch"),
        ("odd", "delete"),
    }


#: Close codes in the order of `ROLES`, None for a socket that stays open.
SOCKETS = {
    r"^ws/v1/joblib/tasks/(?P<task_id>[^/]+)/?$": (4401, None, 4404, None, None, None),
    r"^ws/v1/joblib/rooms/(?P<room_id>[^/]+)/?$": (4401, None, 4404, None, None, None),
    r"^ws/v1/joblib/rooms/(?P<room_id>[^/]+)/events/?$": (4401, None, 4404, None, None, None),
    r"^ws/v1/joblib(?:/|\Z)": (4404,) * 6,
}


def test_every_socket_is_in_the_matrix():
    assert {str(pattern.pattern) for pattern in websocket_urlpatterns} == set(SOCKETS)


@pytest.mark.any_database
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", ["tasks/{task}", "rooms/{room}", "rooms/{room}/events", "nothing"])
async def test_each_role_gets_the_close_code_of_the_matrix(scene, path, role):
    cast, _, task_id = scene
    path = path.format(task=task_id, room=ROOM)
    codes = next(SOCKETS[p] for p in SOCKETS if re.match(p, f"ws/v1/joblib/{path}/"))
    code = codes[ROLES.index(role)]
    headers = token(cast[role]) if cast[role].user else ()
    async with Socket(path, headers) as socket:
        if code:
            assert await socket.code() == code
        elif path.endswith("/events"):
            assert (await socket.json())["type"] == "ready"
        else:
            assert await socket.communicator.receive_nothing(0.3)
            await sync_to_async(cast["submitter"].report)(task_id, "cancelled")
            assert (await socket.json())["id"] == task_id


@pytest.mark.any_database
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "path", ["/tasks/{task}", "/tasks/{task}/log", "/tasks/claim", "/tasks/lookup"]
)
async def test_a_waiting_request_gets_the_status_of_the_matrix(scene, path, role):
    cast, worker, task_id = scene
    await sync_to_async(cast["owner"].report)(task_id, "cancelled")
    headers = {"Prefer": "wait=1"}
    if cast[role].user:
        headers["Authorization"] = f"Token {cast[role].token}"
    client = AsyncClient()
    if path == "/tasks/claim":
        codes = (401, 404, 404, 200, 404, 404)
        answer = await client.post(
            f"{V1}{path}", {"worker_id": worker}, content_type="application/json", headers=headers
        )
    elif path == "/tasks/lookup":
        codes = FOR_ALL
        answer = await client.post(
            f"{V1}{path}", {"ids": [task_id]}, content_type="application/json", headers=headers
        )
        if answer.status_code == 200:
            assert len(answer.json()) == (role != "stranger")
    else:
        codes = IN_ROOM
        answer = await client.get(f"{V1}{path.format(task=task_id)}", headers=headers)
    check(answer, codes[ROLES.index(role)])
    assert ("Preference-Applied" in answer) == (answer.status_code == 200)


def test_the_owner_of_the_worker_sees_its_task_without_access_to_the_room(scene, settings_of):
    cast, _, task_id = scene
    settings_of(room_access="tests.api.test_access.no_access")
    assert cast["owner"].get(f"/tasks/{task_id}").status_code == 200
    assert cast["owner"].report(task_id, "running").status_code == 200
    problem(cast["submitter"].get(f"/tasks/{task_id}"), "task-not-found", 404)
    problem(cast["submitter"].report(task_id, "cancelled"), "task-not-found", 404)
    assert cast["admin"].get(f"/tasks/{task_id}").status_code == 200


def no_access(request, room_id, action):
    return False


def test_hooks_of_the_host_decide_identity_and_admin(scene, settings_of, people):
    settings_of(
        identity="tests.api.test_access.by_name", is_admin="tests.api.test_access.is_stranger"
    )
    assert people("other").client.get("/v1/me").json() == {"id": "user:other"}
    assert people("stranger").register("@global", name="New").status_code == 201
    problem(scene[0]["admin"].register("@global", name="Newer"), "forbidden", 403)


def by_name(request):
    return f"user:{request.user.username}"


@pytest.mark.parametrize("name", ["M\u00fcller\u00a0", "\u200bx", "\ue000", "a b", "\U0001f9ea"])
def test_any_text_that_the_database_stores_may_be_an_identity(people, settings_of, name):
    settings_of(identity="tests.api.test_access.by_last_name")
    person = people("odd", last_name=name)
    assert person.register().json()["worker_id"] == name
    task = person.submit().json()
    assert person.claim()["id"] == task["id"]
    assert person.client.patch(f"{V1}/workers/{quote(name)}").status_code == 200


@pytest.mark.parametrize("worker_id", ["\x01", "a\x1f", "\x7f", "\x85", "x" * 256])
def test_a_worker_id_that_cannot_be_an_identity_is_not_found(bob, worker_id):
    for method in ("patch", "delete"):
        answer = bob.send(method, f"/workers/{quote(worker_id)}")
        problem(answer, "worker-not-found", 404)
    # The test client cannot send these in a path.
    for unsendable in ("a\0b", "\ud800", ""):
        with pytest.raises(WorkerNotFound):
            checked_worker_id(unsendable)


def by_last_name(request):
    return request.user.last_name


def is_stranger(request):
    return request.user.username == "stranger"


def test_the_permission_administer_makes_an_admin(people, bob):
    from django.contrib.auth.models import Permission

    problem(bob.register("@global"), "forbidden", 403)
    bob.user.user_permissions.add(
        Permission.objects.get(codename="administer", content_type__app_label="zndraw_joblib")
    )
    assert bob.register("@global").status_code == 201
