"""The settings of a site for its own views do not change the app's answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.db import connection, connections
from django.test import AsyncClient
from django.urls import include, path
from rest_framework.permissions import BasePermission, IsAdminUser, IsAuthenticated
from rest_framework.settings import api_settings
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.versioning import BaseVersioning
from rest_framework.views import APIView

from tests.factories import V1, Person, problem
from tests.sockets import Socket, token as socket_token
from tests.waiting.test_lane import Host, get_response, lower, scope, token
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.models import Task, Worker

pytestmark = pytest.mark.any_database

ROOT = Path(__file__).parents[2]
DRF = "rest_framework"
VERSIONS = f"{DRF}.versioning"
V9 = {"ALLOWED_VERSIONS": ["v9"], "DEFAULT_VERSION": "v9"}
#: Changes of REST_FRAMEWORK that must not change the app's answers.
REST: dict[str, dict[str, Any]] = {
    "namespace versions": {
        "DEFAULT_VERSIONING_CLASS": f"{VERSIONS}.NamespaceVersioning",
        **V9,
    },
    "path versions": {"DEFAULT_VERSIONING_CLASS": f"{VERSIONS}.URLPathVersioning", **V9},
    "accept versions": {
        "DEFAULT_VERSIONING_CLASS": f"{VERSIONS}.AcceptHeaderVersioning",
        **V9,
    },
    "query versions": {
        "DEFAULT_VERSIONING_CLASS": f"{VERSIONS}.QueryParameterVersioning",
        "VERSION_PARAM": "limit",
        "ALLOWED_VERSIONS": ["v9"],
    },
    "host versions": {"DEFAULT_VERSIONING_CLASS": f"{VERSIONS}.HostNameVersioning", **V9},
    "renderers": {"DEFAULT_RENDERER_CLASSES": [f"{DRF}.renderers.TemplateHTMLRenderer"]},
    "parsers": {"DEFAULT_PARSER_CLASSES": [f"{DRF}.parsers.FormParser"]},
    "negotiation": {"DEFAULT_CONTENT_NEGOTIATION_CLASS": "tests.api.test_host_settings.Broken"},
    "metadata": {"DEFAULT_METADATA_CLASS": None},
    "exception handler": {"EXCEPTION_HANDLER": "tests.api.test_host_settings.Broken"},
    "pages": {
        "DEFAULT_PAGINATION_CLASS": f"{DRF}.pagination.PageNumberPagination",
        "PAGE_SIZE": 1,
    },
    "filters": {"DEFAULT_FILTER_BACKENDS": ["tests.api.test_host_settings.Broken"]},
    "schema": {"DEFAULT_SCHEMA_CLASS": f"{DRF}.schemas.openapi.AutoSchema"},
    "format": {"URL_FORMAT_OVERRIDE": "limit", "FORMAT_SUFFIX_KWARG": "room_id"},
    "JSON": {"STRICT_JSON": False, "UNICODE_JSON": False, "COMPACT_JSON": False},
    "times": {"DATETIME_FORMAT": "%d", "COERCE_DECIMAL_TO_STRING": False},
    "no user": {"UNAUTHENTICATED_USER": None, "UNAUTHENTICATED_TOKEN": None},
    "no rates": {"DEFAULT_THROTTLE_RATES": None},
    "errors of a whole object": {"NON_FIELD_ERRORS_KEY": "everything"},
    "open": {"DEFAULT_PERMISSION_CLASSES": [f"{DRF}.permissions.AllowAny"]},
    "no permissions": {"DEFAULT_PERMISSION_CLASSES": []},
    "read only": {"DEFAULT_PERMISSION_CLASSES": [f"{DRF}.permissions.IsAuthenticatedOrReadOnly"]},
}
#: Changes of Django's settings that must not change the app's answers.
DJANGO: dict[str, dict[str, Any]] = {
    "no middleware": {"MIDDLEWARE": []},
    "append slash": {"APPEND_SLASH": True},
    "debug": {"DEBUG": True},
    "small uploads": {"DATA_UPLOAD_MAX_MEMORY_SIZE": 10, "DATA_UPLOAD_MAX_NUMBER_FIELDS": 1},
    "no translations": {"USE_I18N": False},
    "dummy cache": {
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    },
    "no templates": {"TEMPLATES": []},
    "no channel layer": {"CHANNEL_LAYERS": {}},
    "cached site": {
        "MIDDLEWARE": [
            "django.middleware.cache.UpdateCacheMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ],
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    },
}
#: Attributes that DRF's classes take from REST_FRAMEWORK when they are made.
ATTRIBUTES: dict[str, tuple[type, str]] = {
    "DEFAULT_VERSIONING_CLASS": (APIView, "versioning_class"),
    "DEFAULT_VERSION": (BaseVersioning, "default_version"),
    "ALLOWED_VERSIONS": (BaseVersioning, "allowed_versions"),
    "VERSION_PARAM": (BaseVersioning, "version_param"),
    "DEFAULT_RENDERER_CLASSES": (APIView, "renderer_classes"),
    "DEFAULT_PARSER_CLASSES": (APIView, "parser_classes"),
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": (APIView, "content_negotiation_class"),
    "DEFAULT_METADATA_CLASS": (APIView, "metadata_class"),
    "DEFAULT_THROTTLE_RATES": (SimpleRateThrottle, "THROTTLE_RATES"),
}


class Broken:
    """Stands for a class of the site that the app must not use."""

    def __init__(self, *args, **kwargs):
        raise AssertionError("the app used it")


@pytest.fixture
def rest(settings, monkeypatch):
    """A function that changes REST_FRAMEWORK, also for classes that exist already."""

    def change(**changed):
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, **changed}
        for name in changed:
            if name in ATTRIBUTES:
                monkeypatch.setattr(*ATTRIBUTES[name], getattr(api_settings, name))

    return change


def check_answers(bob: Person, client: Any) -> None:
    """Assert the answers of a site whose settings are ordinary."""
    problem(client.get(f"{V1}/workers"), "not-authenticated", 401)
    assert client.get(f"{V1}/workers")["WWW-Authenticate"] == "Token"
    assert bob.register().status_code == 201
    submitted = bob.submit()
    assert submitted.status_code == 202
    assert bob.client.get(submitted["Location"]).json()["status"] == "pending"
    task = bob.claim()
    assert task["id"] == submitted.json()["id"]
    assert task["created_at"].endswith("Z")
    assert bob.report(task["id"], "running", attempt=1).status_code == 200
    assert bob.report_many([{"id": task["id"], "status": "completed"}])[0]["status"] == 200
    bob.submit()
    page = bob.get("/rooms/open/tasks?limit=1", headers={"accept": "text/html"})
    assert (page.status_code, len(page.json())) == (200, 1)
    assert page["Content-Type"] == "application/json"
    assert 'rel="next"' in page["Link"]
    problem(bob.get("/tasks/nothing"), "task-not-found", 404)
    problem(bob.get("/nothing"), "not-found", 404)
    problem(bob.register(category=1), "validation-error", 400)
    problem(bob.send("options", "/workers"), "method-not-allowed", 405)
    assert client.get("/v1/problems/job-not-found").status_code == 200
    assert bob.client.get("/v1/me").json() == {"id": bob.identity}


@pytest.mark.parametrize("changed", REST.values(), ids=REST)
def test_the_sites_rest_settings_do_not_change_the_answers(bob, client, rest, changed):
    rest(**changed)
    check_answers(bob, client)


@pytest.mark.parametrize("changed", DJANGO.values(), ids=DJANGO)
def test_the_sites_django_settings_do_not_change_the_answers(bob, client, settings, changed):
    for name, value in changed.items():
        setattr(settings, name, value)
    check_answers(bob, client)


def test_no_cache_gives_an_answer_to_another_caller_or_again(bob, carol, client, settings):
    for name, value in DJANGO["cached site"].items():
        setattr(settings, name, value)
    bob.register()
    task = bob.submit().json()["id"]
    for person in (bob, carol, bob):
        assert person.client.get("/v1/me").json() == {"id": person.identity}
        assert person.get("/workers")["Cache-Control"] == "private, no-cache"
    assert bob.get(f"/tasks/{task}").json()["status"] == "pending"
    bob.report(task, "cancelled")
    assert bob.get(f"/tasks/{task}").json()["status"] == "cancelled"
    for answer in (client.get("/v1/me"), client.get(f"{V1}/nothing")):
        assert answer["Cache-Control"] == "private, no-cache"


class Seats(BasePermission):
    """Refuses with a text and a code."""

    message = "Your group has no seat."
    code = "no_seat"

    def has_permission(self, request, view):
        return False


def test_the_sites_permissions_refuse_with_their_text_and_code(bob, client, rest):
    bob.register()
    rest(DEFAULT_PERMISSION_CLASSES=["tests.api.test_host_settings.Seats"])
    for answer in (bob.submit(), bob.get("/workers"), bob.client.get("/v1/me")):
        document = problem(answer, "forbidden", 403)
        assert (document["detail"], document["code"]) == ("Your group has no seat.", "no_seat")
    assert not Task.objects.exists()
    # Anonymous callers are asked to sign in first, and problem types are public.
    problem(client.get(f"{V1}/workers"), "not-authenticated", 401)
    assert client.get("/v1/problems/forbidden").status_code == 200


class Members(BasePermission):
    """Admits everybody but Carol."""

    def has_permission(self, request, view):
        return request.user.username != "carol"


Composed = IsAuthenticated & (Members | IsAdminUser)


def test_the_sites_composed_permissions_count(bob, carol, root, rest):
    rest(DEFAULT_PERMISSION_CLASSES=["tests.api.test_host_settings.Composed"])
    assert [person.get("/workers").status_code for person in (bob, carol, root)] == [200, 403, 200]


seen: list[tuple[str, dict[str, Any], Any]] = []


class Curious(BasePermission):
    """Reads as much of a request as a rule may ask for; refuses payloads with an `angle` of 13."""

    def has_permission(self, request, view):
        seen.append((view.action, dict(view.kwargs), request.data))
        angle = request.data["payload"].get("angle") if view.action == "submit" else 0
        return angle != 13


def test_the_sites_permissions_may_read_body_action_and_path(bob, rest, settings, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "seen", [])
    settings.ROOT_URLCONF = (path("t/<slug:tenant>/", include("zndraw_joblib.api.urls")),)
    rest(DEFAULT_PERMISSION_CLASSES=["tests.api.test_host_settings.Curious"])
    prefix = f"/t/acme{V1}"
    job = {"category": "modifiers", "name": "Rotate", "schema": {}}
    assert bob.client.put(f"{prefix}/rooms/open/jobs", job, format="json").status_code == 201
    submit = f"{prefix}/rooms/open/tasks/open:modifiers:Rotate"
    for angle, status in ((1, 202), (13, 403)):
        answer = bob.client.post(submit, {"payload": {"angle": angle}}, format="json")
        assert answer.status_code == status
    assert bob.client.get("/t/acme/v1/me").status_code == 200
    register, accepted, _, me = seen
    assert register == ("register", {"tenant": "acme", "room_id": "open"}, job)
    assert accepted[1] == {
        "tenant": "acme",
        "room_id": "open",
        "full_name": "open:modifiers:Rotate",
    }
    assert me[:2] == ("get", {"tenant": "acme"})
    # The body is read under the app's limits, also for a rule of the site.
    answer = bob.client.post(submit, b"[" * 100, content_type="application/json")
    assert answer.status_code == 400


def test_the_sites_permissions_may_read_free_text(bob, rest):
    """Control: 400 where `data` is read without the free text of logs."""
    bob.register()
    bob.submit()
    task_id = bob.claim()["id"]
    rest(DEFAULT_PERMISSION_CLASSES=["tests.api.test_host_settings.Curious"])
    body = {"attempt": 1, "text": "a\x00b"}
    assert bob.send("post", f"/tasks/{task_id}/log", body).status_code == 204


@pytest.mark.parametrize("rule", ["DjangoModelPermissions", "DjangoModelPermissionsOrAnonReadOnly"])
def test_the_sites_model_permissions_are_asked_for_the_apps_models(bob, client, rest, rule):
    rest(DEFAULT_PERMISSION_CLASSES=[f"{DRF}.permissions.{rule}"])
    problem(client.get(f"{V1}/workers"), "not-authenticated", 401)
    for answer in (bob.register(), bob.submit(), bob.send("post", "/workers")):
        problem(answer, "forbidden", 403)
    assert not Worker.objects.exists()
    assert bob.client.get("/v1/me").status_code == bob.get("/workers").status_code == 200
    rights = ["change_job", "add_task", "change_task", "add_worker", "change_worker"]
    bob.user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    check_answers(bob, client)
    problem(bob.send("delete", f"/workers/{bob.identity}"), "forbidden", 403)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("path", "action"), [("tasks/{}", "retrieve"), ("rooms/open", "list")])
@pytest.mark.parametrize(
    ("rule", "is_admitted"), [("Seats", False), ("Composed", True), ("Curious", True)]
)
async def test_the_sites_permissions_count_for_websockets_too(
    bob, rest, monkeypatch, path, action, rule, is_admitted
):
    monkeypatch.setattr(sys.modules[__name__], "seen", [])
    await sync_to_async(bob.register)()
    task = (await sync_to_async(bob.submit)()).json()["id"]
    rest(DEFAULT_PERMISSION_CLASSES=[f"tests.api.test_host_settings.{rule}"])
    async with Socket(path.format(task), socket_token(bob)) as socket:
        if is_admitted:
            assert await socket.communicator.receive_nothing(0.2)
        else:
            assert await socket.code() == 4403
    if rule == "Curious":
        kwargs = {"task_id": task} if action == "retrieve" else {"room_id": "open"}
        assert seen[0] == (action, kwargs, {})


@pytest.mark.django_db(transaction=True)
async def test_a_websocket_is_closed_when_the_sites_permission_is_lost(bob, carol, rest):
    rest(DEFAULT_PERMISSION_CLASSES=["tests.api.test_host_settings.Composed"])
    carol.user.is_staff = True
    await sync_to_async(carol.user.save)()
    await sync_to_async(carol.register)()
    task = (await sync_to_async(carol.submit)()).json()["id"]
    other = (await sync_to_async(bob.submit)()).json()["id"]
    async with Socket("rooms/open", socket_token(carol)) as socket:
        assert await socket.communicator.receive_nothing(0.2)
        await sync_to_async(carol.report)(task, "cancelled")
        assert (await socket.json())["id"] == task
        # Saved, because this forgets the cached token.
        carol.user.is_staff = False
        await sync_to_async(carol.user.save)()
        await sync_to_async(bob.report)(other, "cancelled")
        assert await socket.code() == 4403


def test_without_authenticators_every_caller_is_anonymous(bob, rest, monkeypatch):
    monkeypatch.setattr(JobLibView, "authentication_classes", [])
    problem(bob.get("/workers"), "not-authenticated", 401)


transactions: list[bool] = []


def note_transaction(request, room_id, action):
    transactions.append(connection.in_atomic_block)
    return True


@pytest.mark.django_db(transaction=True)
def test_requests_have_no_transaction_around_them(bob, settings_of, monkeypatch):
    """A transaction of the whole request would hold the locks of a claim until its answer."""
    monkeypatch.setattr(sys.modules[__name__], "transactions", [])
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    settings_of(room_access="tests.api.test_host_settings.note_transaction")
    bob.register()
    bob.submit()
    bob.get("/rooms/open/tasks")
    assert transactions == [False] * 3


@pytest.mark.django_db(transaction=True)
async def test_atomic_requests_of_another_database_do_not_break_waits(bob, monkeypatch):
    other = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "other", other)
    claim = f"{V1}/tasks/claim"
    headers = {"Authorization": f"Token {bob.token}", "Prefer": "wait=0"}
    answer = await AsyncClient().post(claim, {}, "application/json", headers=headers)
    assert (answer.status_code, answer["Preference-Applied"]) == (200, "wait=0")
    more = {"prefer": b"wait=0", "content_type": b"application/json", **token(bob)}
    status, answered, _ = await get_response(Host(), scope(claim, "POST", **more))
    assert (status, lower(answered)[b"preference-applied"]) == (200, b"wait=0")


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no authenticators": ({"DEFAULT_AUTHENTICATION_CLASSES": []}, "E016"),
    "a throttle without a rate": (
        {"DEFAULT_THROTTLE_CLASSES": [f"{DRF}.throttling.UserRateThrottle"]},
        "E017",
    ),
    "a rate of our scope": ({"DEFAULT_THROTTLE_RATES": {"joblib_submit": "often"}}, "E017"),
    "None for permissions": ({"DEFAULT_PERMISSION_CLASSES": None}, "E017"),
    "a class that needs arguments": (
        {"DEFAULT_PERMISSION_CLASSES": ["tests.api.test_host_settings.Broken"]},
        "E017",
    ),
}


@pytest.mark.parametrize(("changed", "number"), UNUSABLE.values(), ids=UNUSABLE)
def test_the_check_names_a_setting_under_which_requests_fail(rest, changed, number):
    rest(**changed)
    found = [message for message in run_checks() if message.id == f"zndraw_joblib.{number}"]
    assert [message for message in found if next(iter(changed)) in message.msg]


@pytest.mark.parametrize("apps", ["", "django.contrib.contenttypes,django.contrib.auth"])
def test_a_site_without_other_apps_is_served(tmp_path, apps):
    """In a process of its own, because Django reads many settings only at its start."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "APPS": apps, "FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.strange_site"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
