"""The room page as the server sends it, on sites of many kinds."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import views as auth_views
from django.contrib.staticfiles import finders
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import clear_script_prefix, include, path, re_path, set_script_prefix
from django.utils.translation import deactivate, override

from tests.host import Locked
from zndraw_joblib.api.urls import urlpatterns as api_patterns
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.pages.views import RoomPage

pytestmark = pytest.mark.any_database

API, PAGES = "zndraw_joblib.api.urls", "zndraw_joblib.pages.urls"
HERE = Path(__file__).parent
#: A site's patterns, the path of a room's page, and that of the API.
MOUNTS: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "both at the root": ((path("", include(API)), path("", include(PAGES))), "/", "/"),
    "two prefixes": (
        (path("api/", include(API)), path("lab/pages/", include(PAGES))),
        "/lab/pages/",
        "/api/",
    ),
    "nested namespaces": (
        (path("a/", include(([path("b/", include(API)), path("", include(PAGES))], "outer"))),),
        "/a/",
        "/a/b/",
    ),
    "another app name": (
        (path("", include((api_patterns, "v1"))), path("", include(PAGES))),
        "/",
        "/",
    ),
    "no app name": ((path("x/", include(api_patterns)), path("", include(PAGES))), "/", "/x/"),
    "values of the page": (
        (path("t/<slug:tenant>/", include([path("", include(API)), path("p/", include(PAGES))])),),
        "/t/acme/p/",
        "/t/acme/",
    ),
    "values of the page only": (
        (path("", include(API)), path("t/<slug:tenant>/", include(PAGES))),
        "/t/acme/",
        "/",
    ),
    "the nearest of two": (
        (
            path("one/", include(API)),
            path("two/", include(API, namespace="two")),
            path("two/", include(PAGES)),
        ),
        "/two/",
        "/two/",
    ),
    "not ASCII": (
        (path("größe/", include(API)), path("größe/", include(PAGES))),
        "/gr%C3%B6%C3%9Fe/",
        "/gr%C3%B6%C3%9Fe/",
    ),
    "given by the site": (
        (
            re_path(r"^u/(\w+)/", include(API)),
            path("rooms/<str:room_id>/", RoomPage.as_view(api_path="/u/a/v1/joblib/")),
        ),
        "/",
        "/u/a/",
    ),
}


def not_global(request, room_id, action):
    return room_id != "@global"


def locked(request, room_id, action):
    raise Locked


def may_read(request, room_id, action):
    return action == "read"


def hook(function):
    return {"room_access": f"{__name__}.{function.__name__}"}


class Urls:
    """A URLconf."""

    def __init__(self, *patterns: Any) -> None:
        login = path("accounts/login/", auth_views.LoginView.as_view(), name="login")
        self.urlpatterns = [*patterns, login]

    def __hash__(self) -> int:
        return id(self)


@pytest.fixture
def site(settings):
    """A site with the page and the API at the root, and rooms by the name of the user."""
    settings.ROOT_URLCONF = Urls(path("", include(API)), path("", include(PAGES)))
    settings.LOGIN_URL = "/accounts/login/"
    # Without the example project's own templates.
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": []}]
    settings.ZNDRAW_JOBLIB = {"room_access": "tests.factories.by_room"}


@pytest.fixture
def browser(site, bob):
    client = Client()
    client.force_login(bob.user)
    return client


def data(response: Any) -> dict[str, Any]:
    """The JSON that the page gives to its modules."""
    assert response.status_code == 200, response.content
    found = re.search(
        r'<script id="joblib-room-data" type="application/json">(.*?)</script>',
        response.content.decode(),
    )
    assert found
    return dict(json.loads(found[1]))


@pytest.mark.parametrize("mount", MOUNTS)
def test_page_finds_the_api_wherever_the_site_includes_them(mount, browser, settings):
    patterns, pages, api = MOUNTS[mount]
    settings.ROOT_URLCONF = Urls(*patterns)
    context = data(browser.get(f"{pages}rooms/open%20%C3%A4/"))
    assert context["apiPath"] == f"{api}v1/joblib/"
    assert context["roomPath"] == f"{api}v1/joblib/rooms/open%20%C3%A4"
    assert browser.get(f"{context['roomPath']}/jobs").json() == []


def test_paths_of_the_page_have_the_prefix_of_the_server(browser):
    set_script_prefix("/t/a site/")
    try:
        context = data(browser.get("/rooms/open/", SCRIPT_NAME="/t/a site"))
    finally:
        clear_script_prefix()
    assert context["roomPath"] == "/t/a%20site/v1/joblib/rooms/open"
    assert context["socketPath"] == "/t/a%20site/ws/v1/joblib/rooms/open/events/"


def test_anonymous_visitor_is_led_to_the_sites_sign_in(site):
    response = Client().get("/rooms/open/?job=x")
    assert response.status_code == 302
    assert response["Location"] == "/accounts/login/?next=/rooms/open/%3Fjob%3Dx"


@pytest.mark.parametrize("room", ["carl", "@internal", "a:b", "x" * 129, "%00"])
def test_room_that_the_user_may_not_read_or_cannot_be_is_not_found(browser, room):
    assert browser.get(f"/rooms/{room}/").status_code == 404


def test_global_room_is_shown_as_the_hooks_allow(browser, settings):
    assert data(browser.get("/rooms/@global/"))["roomId"] == "@global"
    settings.ZNDRAW_JOBLIB = hook(not_global)
    assert browser.get("/rooms/@global/").status_code == 404


@pytest.mark.parametrize(("language", "word"), [("en", "failed"), ("de", "fehlgeschlagen")])
def test_tasks_can_be_filtered_by_each_status(browser, settings, language, word):
    settings.LANGUAGE_CODE = language
    page = browser.get("/rooms/open/").content.decode()
    select = re.search(r'<select data-joblib="status">(.*?)</select>', page, re.DOTALL)
    assert select
    options = dict(re.findall(r'<option value="(\w+)">(.*?)</option>', select[1]))
    assert list(options) == [status.value for status in TaskStatus]
    assert options["failed"] == word


def test_exception_of_a_hook_keeps_its_status_and_text(browser, settings):
    settings.ZNDRAW_JOBLIB = hook(locked)
    response = browser.get("/rooms/open/")
    assert response.status_code == 423
    assert "The room is locked." in response.content.decode()


def test_page_says_what_its_user_may_do(browser, settings, bob):
    settings.ZNDRAW_JOBLIB = hook(may_read)
    context = data(browser.get("/rooms/open/"))
    assert (context["maySubmit"], context["mayAdminister"]) == (False, False)
    assert context["identity"] == bob.identity


def test_room_id_in_the_page_is_not_markup(browser, settings):
    settings.ZNDRAW_JOBLIB = {}
    room = '<script>alert("x")<script>&'
    response = browser.get(f"/rooms/{room}/")
    assert data(response)["roomId"] == room
    assert "<script>alert" not in response.content.decode()


def test_page_itself_has_neither_inline_scripts_nor_styles(browser):
    page = browser.get("/rooms/open/").content.decode()
    assert "<style" not in page
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page)
    scripts = re.findall(r"<script([^>]*)>", page)
    assert all("src=" in each or 'type="application/json"' in each for each in scripts)


def test_page_costs_two_statements_besides_session_and_user(browser, django_assert_num_queries):
    """They read the user's permissions and those of the user's groups, for the hook `is_admin`."""
    with django_assert_num_queries(4):
        browser.get("/rooms/open/")


def test_lists_of_the_page_cost_three_statements_at_most(browser, connection_queries):
    for address in ("/v1/joblib/rooms/open/jobs?limit=500", "/v1/joblib/rooms/open/tasks"):
        with connection_queries() as queries:
            assert browser.get(address).status_code == 200
        assert len([query for query in queries if "zndraw_joblib" in query["sql"]]) <= 3


@pytest.fixture
def connection_queries():
    from django.db import connection

    return lambda: CaptureQueriesContext(connection)


def imported(name: str, seen: set[str]) -> set[str]:
    """A module of the page with the modules that it imports."""
    if name not in seen:
        seen.add(name)
        found = finders.find(f"zndraw_joblib/pages/{name}")
        for each in re.findall(r'from "\./([^"]+)"', Path(str(found)).read_text()):
            imported(each, seen)
    return seen


def test_everything_that_a_page_loads_has_at_most_300_kb_compressed(browser):
    page = browser.get("/rooms/open/").content
    addresses = re.findall(rb'(?:src|href)="/?static/([^"]+)"', page)
    names = {address.decode() for address in addresses}
    names |= {f"zndraw_joblib/pages/{each}" for each in imported("room.js", set())}
    files = [Path(str(finders.find(name))) for name in names]
    sizes = {file.name: len(gzip.compress(file.read_bytes())) for file in files}
    assert {"room.js", "jobs.js", "form.js", "api.js", "jobs.css"} <= sizes.keys()
    assert sum(sizes.values()) + len(gzip.compress(page)) <= 300_000, sizes


def test_modules_of_the_page_are_short():
    folder = Path(str(finders.find("zndraw_joblib/pages/room.js"))).parent
    lengths = {file.name: len(file.read_text().splitlines()) for file in folder.glob("*.js")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_modules_of_the_page_never_write_markup():
    """Texts of workers go through `textContent`; this is what makes them harmless everywhere."""
    folder = Path(str(finders.find("zndraw_joblib/pages/room.js"))).parent
    markup = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\("
    )
    assert [file.name for file in folder.glob("*.js") if markup.search(file.read_text())] == []


def test_all_texts_that_modules_ask_for_are_given(browser):
    page = browser.get("/rooms/open/").content.decode()
    given: dict[str, str] = {}
    for found in re.findall(r'<script id="joblib-texts-\w+"[^>]*>(.*?)</script>', page):
        given |= json.loads(found)
    folder = Path(str(finders.find("zndraw_joblib/pages/room.js"))).parent
    asked = {
        key
        for file in folder.glob("*.js")
        for key in re.findall(r'\btext\(\s*"([^"]+)"', file.read_text())
    }
    assert asked - given.keys() == set()


def test_page_is_in_the_language_of_the_site(browser):
    with override("de"):
        page = browser.get("/rooms/open/").content.decode()
    deactivate()
    assert '<html lang="de">' in page
    assert "Jobs suchen" in page


def test_site_puts_the_page_into_its_own_template_and_replaces_a_piece(browser, settings):
    [engine] = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": [HERE / "templates"]}]
    page = browser.get("/rooms/open/").content.decode()
    assert "The site's own menu" in page
    assert "<title>Laboratory: open</title>" in page
    assert 'id="own-tasks"' in page
    assert 'id="joblib-tasks"' not in page
    assert 'id="joblib-jobs"' in page
    assert data(browser.get("/rooms/open/"))["roomId"] == "open"
