"""The app below every kind of address at which a site can include its URLs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.test import AsyncClient
from django.urls import include, path, re_path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from rest_framework.urlpatterns import format_suffix_patterns

from tests.factories import SCHEMA
from tests.waiting.test_lane import Host, get_response, lower, scope, token
from zndraw_joblib.api.urls import urlpatterns as app_patterns

pytestmark = pytest.mark.any_database

URLS = "zndraw_joblib.api.urls"
#: The site's patterns, and the path at which the app is then found.
MOUNTS: dict[str, tuple[tuple[Any, ...], str]] = {
    "instance namespace": ((path("lab/", include(URLS, namespace="lab")),), "/lab/"),
    "nested namespace": ((path("", include(([path("", include(URLS))], "v1"))),), "/"),
    "two nested namespaces": (
        (path("a/", include(([path("b/", include(([path("", include(URLS))], "v1")))], "v2"))),),
        "/a/b/",
    ),
    "another app name": ((path("", include((app_patterns, "v1"))),), "/"),
    "no app name": ((path("", include(app_patterns)),), "/"),
    "the second of two": (
        (path("one/", include(URLS)), path("two/", include(URLS, namespace="two"))),
        "/two/",
    ),
    "captured": ((path("t/<slug:tenant>/", include(URLS)),), "/t/acme/"),
    "captured number": ((path("<int:year>/", include(URLS)),), "/2026/"),
    "captured like our own": (
        (path("<slug:room_id>/<slug:task_id>/<slug:rest>/", include(URLS)),),
        "/a/b/c/",
    ),
    "captured v1": ((path("<slug:a>/<slug:b>/", include(URLS)),), "/v1/joblib/"),
    "captured with a namespace": (
        (path("<slug:tenant>/", include(([path("", include(URLS))], "v1"))),),
        "/acme/",
    ),
    "unnamed groups": ((re_path(r"^u/(\w+)/(\w+)/", include(URLS)),), "/u/a/b/"),
    "extra arguments": ((path("x/", include(URLS), {"flavour": "x"}),), "/x/"),
    "no slash": ((path("api-", include(URLS)),), "/api-"),
    "not ASCII": ((path("größe und 100%/", include(URLS)),), "/gr%C3%B6%C3%9Fe%20und%20100%25/"),
    "languages": (tuple(i18n_patterns(path("", include(URLS)))), "/en/"),
    "format suffixes": (tuple(format_suffix_patterns(list(app_patterns))), "/"),
}
JOB = "open:modifiers:Rotate"


@pytest.fixture(params=MOUNTS)
def mount(request, settings):
    patterns, prefix = MOUNTS[request.param]
    settings.ROOT_URLCONF = patterns
    return prefix


def test_links_lead_to_where_the_site_includes_the_urls(mount, bob, client):
    """Location, Link, type and instance begin with the path of the request's own include."""
    send, v1 = bob.client, f"{mount}v1/joblib"
    job = {"category": "modifiers", "name": "Rotate", "schema": SCHEMA}
    assert send.put(f"{v1}/rooms/open/jobs", job, format="json").status_code == 201
    submit = f"{v1}/rooms/open/tasks/{JOB}"
    one = send.post(submit, {"payload": {}}, format="json")
    assert (one.status_code, one["Location"]) == (202, f"{v1}/tasks/{one.json()['id']}")
    assert send.get(one["Location"]).json()["id"] == one.json()["id"]
    many = send.post(submit, [{"payload": {}}] * 2, format="json")
    assert (many.status_code, many["Location"]) == (202, f"{v1}/rooms/open/jobs/{JOB}/tasks")
    assert len(send.get(many["Location"]).json()) == 3
    page = send.get(f"{v1}/rooms/open/tasks?limit=1")
    assert page["Link"].startswith(f"<http://testserver{v1}/rooms/open/tasks?")
    task = send.post(f"{v1}/tasks/claim", {}, format="json").json()["task"]
    moved = send.patch(f"{v1}/tasks/{task['id']}", {"status": "running"}, format="json")
    assert moved.json()["status"] == "running"
    late = {"id": task["id"], "status": "completed", "attempt": 7}
    refused = send.patch(f"{v1}/tasks", [late, {"id": 1}], format="json").json()
    assert [result["problem"]["type"] for result in refused] == [
        f"{mount}v1/problems/lease-lost",
        f"{mount}v1/problems/validation-error",
    ]
    assert refused[0]["problem"]["instance"] == f"{v1}/tasks/{task['id']}"
    for answer, slug in (
        (client.get(f"{v1}/workers"), "not-authenticated"),
        (send.get(f"{v1}/tasks/nothing"), "task-not-found"),
        (send.get(f"{v1}/v1/joblib/nothing"), "not-found"),
        (send.delete(f"{v1}/workers"), "method-not-allowed"),
        (send.get(f"{mount}v1/problems/none"), "not-found"),
    ):
        document = answer.json()
        assert document["type"] == f"{mount}v1/problems/{slug}"
        assert document["instance"].startswith(f"{mount}v1/")
        assert client.get(document["type"]).json()["type"] == document["type"]
    assert send.get(f"{mount}v1/me").json() == {"id": bob.identity}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mount", ["captured", "nested namespace", "no slash"], indirect=True)
async def test_a_wait_ends_wherever_the_site_includes_the_urls(mount, bob):
    claim = f"{mount}v1/joblib/tasks/claim"
    headers = {"Authorization": f"Token {bob.token}", "Prefer": "wait=0"}
    answer = await AsyncClient().post(claim, {}, "application/json", headers=headers)
    assert (answer.status_code, answer["Preference-Applied"]) == (200, "wait=0")
    more = {"prefer": b"wait=0", "content_type": b"application/json", **token(bob)}
    status, headers, _ = await get_response(Host(), scope(claim, "POST", **more))
    assert (status, lower(headers)[b"preference-applied"]) == (200, b"wait=0")
    status, _, body = await get_response(Host(), scope(claim, host=b"evil.example"))
    assert (status, json.loads(body)["type"]) == (400, f"{mount}v1/problems/validation-error")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mount", ["another app name"], indirect=True)
async def test_the_lane_finds_the_app_under_any_app_name(mount, bob):
    host = Host()
    assert (await get_response(host, scope("/v1/me", **token(bob))))[0] == 200
    assert not host.paths


@pytest.mark.parametrize("name", ["captured", "captured like our own", "nested namespace"])
def test_the_openapi_document_has_the_variables_of_the_sites_prefix(name):
    patterns, _ = MOUNTS[name]
    document = SchemaGenerator(patterns=list(patterns)).get_schema(public=True)
    validate_schema(document)
    variables = {
        "captured": ["tenant"],
        "captured like our own": ["room_id", "task_id", "rest"],
        "nested namespace": [],
    }
    (me,) = (item for address, item in document["paths"].items() if address.endswith("/me"))
    assert {p["name"] for p in me["get"].get("parameters", ())} == set(variables[name])


class TakesTheTenant:
    """A middleware that takes the tenant away from the view, as some of tenancy do."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        request.tenant = kwargs.pop("tenant")


@pytest.mark.parametrize("mount", ["captured"], indirect=True)
def test_a_middleware_may_take_the_variables_of_its_prefix(mount, bob, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.TakesTheTenant"]
    answer = bob.client.get(f"{mount}v1/joblib/tasks/nothing")
    assert answer.json()["type"] == f"{mount}v1/problems/task-not-found"


def test_each_request_gets_the_path_of_its_own_prefix(bob, settings):
    settings.ROOT_URLCONF = MOUNTS["captured"][0]
    for tenant in ("a", "b"):
        answer = bob.client.get(f"/t/{tenant}/v1/joblib/tasks/nothing")
        assert answer.json()["type"] == f"/t/{tenant}/v1/problems/task-not-found"
