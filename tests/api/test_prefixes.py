"""Paths in answers keep the prefix below which clients find the site, in each way to learn it."""

from __future__ import annotations

import json
import re
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.handlers.wsgi import WSGIHandler
from django.urls import clear_script_prefix, include, path, set_script_prefix

from tests.factories import ROTATE, V1
from zndraw_joblib.contrib.asgi import ApiLane

# Not in a test's transaction, because the end of each request closes the database connection.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.any_database]

PREFIX = "/t/a site"
#: The prefix as clients write it.
QUOTED = "/t/a%20site"
UNKNOWN = "00000000-0000-7000-8000-000000000000"
JOB = f"open:{ROTATE}"

#: The ways in which a site learns its prefix. A proxy takes the prefix off, except where the server
#: is "unstripped".
WAYS = {
    "wsgi": ("setting", "server", "middleware"),
    "asgi": ("setting", "setting, unstripped", "server", "server, unstripped", "middleware"),
}
CASES = [(name, way) for name in ("wsgi", "asgi", "lane") for way in WAYS.get(name, WAYS["asgi"])]

# A URLconf that includes the API below a path.
urlpatterns = [path("api/jobs/", include("zndraw_joblib.api.urls"))]


def prefix_middleware(get_response):
    """Believe the header X-Script-Name, as some sites do in Django instead of in the server."""

    def middleware(request):
        set_script_prefix(request.headers.get("X-Script-Name", "/"))
        return get_response(request)

    return middleware


class Site:
    """Answers requests below the prefix; a path is the one within the site's URLs."""

    def __init__(self, handler, way, headers):
        self.handler, self.way, self.headers = handler, way, headers

    def __call__(self, method, path, body=None, **headers):
        """Send a request; returns the response's status, headers and document."""
        content = b"" if body is None else json.dumps(body).encode()
        status, found, text = self._answer(method, path, content, {**self.headers, **headers})
        return status, {name.lower(): value for name, value in found}, json.loads(text)

    def page(self, path):
        """The text of a page, as a browser reads it."""
        return self._answer("GET", path, b"", {**self.headers, "accept": "text/html"})[2].decode()

    def _answer(self, method, path, content, headers):
        answer: Any = self._wsgi if self.handler == "wsgi" else self._asgi
        return answer(method, *path.partition("?")[::2], content, headers)

    def _wsgi(self, method, path, query, content, headers):
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": PREFIX if self.way == "server" else "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "CONTENT_TYPE": headers["content-type"],
            "CONTENT_LENGTH": str(len(content)),
            "wsgi.input": BytesIO(content),
            "wsgi.url_scheme": "http",
            **{f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()},
        }
        begun: list = []
        response = WSGIHandler()(environ, lambda *args: begun.extend(args))
        body = b"".join(response)
        response.close()
        return int(begun[0].split()[0]), begun[1], body

    def _asgi(self, method, path, query, content, headers):
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": PREFIX + path if "unstripped" in self.way else path,
            "query_string": query.encode(),
            "root_path": PREFIX if "server" in self.way else "",
            "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
            "server": ("localhost", 80),
        }
        application = get_asgi_application()
        if self.handler == "lane":
            application = ApiLane(application)

        async def answer():
            communicator = ApplicationCommunicator(application, scope)
            await communicator.send_input({"type": "http.request", "body": content})
            start, body = await communicator.receive_output(10), b""
            while (message := await communicator.receive_output(10)).get("more_body"):
                body += message["body"]
            await communicator.wait(10)
            return start, body + message.get("body", b"")

        start, body = async_to_sync(answer)()
        headers = [(name.decode(), text.decode()) for name, text in start["headers"]]
        return start["status"], headers, body


@pytest.fixture(params=CASES, ids=[f"{handler}: {way}" for handler, way in CASES])
def site(request, settings, bob):
    handler, way = request.param
    if "setting" in way:
        settings.FORCE_SCRIPT_NAME = PREFIX
    if way == "middleware":
        settings.MIDDLEWARE = [f"{__name__}.prefix_middleware", *settings.MIDDLEWARE]
    headers = {
        "host": "localhost",
        "content-type": "application/json",
        "authorization": f"Token {bob.token}",
        "x-script-name": PREFIX,
    }
    yield Site(handler, way, headers)
    clear_script_prefix()


def broken(request, room_id, action):
    raise RuntimeError("a hook that fails")


def test_location_and_link_and_report_results_have_the_prefix(site, bob):
    bob.register()
    tasks = f"{V1}/rooms/open/tasks"
    status, headers, first = site("POST", f"{tasks}/{JOB}", {"payload": {}})
    assert (status, headers["location"]) == (202, f"{QUOTED}{V1}/tasks/{first['id']}")
    status, headers, _ = site("POST", f"{tasks}/{JOB}", [{"payload": {}}])
    assert (status, headers["location"]) == (202, f"{QUOTED}{V1}/rooms/open/jobs/{JOB}/tasks")
    status, headers, newest = site("GET", f"{tasks}?limit=1")
    assert status == 200
    link = urlsplit(headers["link"].partition(">")[0].removeprefix("<"))
    assert (link.scheme, link.netloc, link.path) == ("http", "localhost", f"{QUOTED}{tasks}")
    status, _, oldest = site("GET", f"{tasks}?{link.query}")
    assert (status, len(newest), oldest[0]["id"]) == (200, 1, first["id"])
    reports = [{"id": UNKNOWN, "status": "failed"}, {"id": UNKNOWN, "status": "no status"}]
    _, _, results = site("PATCH", f"{V1}/tasks", reports)
    assert [one["problem"]["instance"] for one in results] == [
        f"{QUOTED}{V1}/tasks/{UNKNOWN}",
        f"{QUOTED}{V1}/tasks",
    ]
    for result in results:
        assert result["problem"]["type"].startswith(f"{QUOTED}/v1/problems/")


#: Method, path, body, headers and status of refused requests.
REFUSED = {
    "unknown URL": ("GET", f"{V1}/no such/thing", None, {}, 404),
    "unknown task": ("GET", f"{V1}/tasks/{UNKNOWN}", None, {}, 404),
    "unknown task, waiting": ("GET", f"{V1}/tasks/{UNKNOWN}", None, {"prefer": "wait=1"}, 404),
    "unknown problem type": ("GET", "/v1/problems/nothing", None, {}, 404),
    "method": ("PUT", f"{V1}/workers", {}, {}, 405),
    "method of a route that waits": ("PUT", f"{V1}/tasks/claim", {}, {}, 405),
    "credentials": ("GET", "/v1/me", None, {"authorization": "Token x"}, 401),
    "body": ("POST", f"{V1}/tasks/claim", [], {}, 400),
    "failure": ("GET", f"{V1}/rooms/open/tasks", None, {}, 500),
}


def test_type_and_instance_of_problems_have_the_prefix(site, settings_of):
    settings_of(room_access=f"{__name__}.broken")
    for case, (method, url, body, headers, expected) in REFUSED.items():
        status, found, problem = site(method, url, body, **headers)
        assert (status, found["content-type"]) == (expected, "application/problem+json"), case
        assert problem["instance"] == QUOTED + url.replace(" ", "%20"), case
        assert problem["type"].startswith(f"{QUOTED}/v1/problems/"), case
    slug = problem["type"].rpartition("/")[2]
    status, _, about = site("GET", f"/v1/problems/{slug}")
    assert (status, about["type"]) == (200, problem["type"])


@pytest.mark.parametrize("site", [case for case in CASES if case[0] == "lane"], indirect=True)
@pytest.mark.parametrize("invalid", [{"host": "evil"}, {"content-type": "a/b; x*=bogus''a"}])
def test_refusals_of_the_lane_before_a_request_is_made_have_the_prefix(site, invalid):
    _, found, problem = site("PUT", f"{V1}/rooms/a b/jobs", {}, **invalid)
    assert found["content-type"] == "application/problem+json"
    # The middleware, which would learn the prefix, has not run.
    quoted = "" if site.way == "middleware" else QUOTED
    assert problem["instance"] == f"{quoted}{V1}/rooms/a%20b/jobs"
    assert problem["type"].startswith(f"{quoted}/v1/problems/")


def test_urls_that_are_included_below_a_path_keep_the_prefix_too(site, settings, bob):
    bob.register()
    settings.ROOT_URLCONF = __name__
    base = "/api/jobs"
    status, headers, task = site("POST", f"{base}{V1}/rooms/open/tasks/{JOB}", {"payload": {}})
    assert (status, headers["location"]) == (202, f"{QUOTED}{base}{V1}/tasks/{task['id']}")
    status, _, problem = site("GET", f"{base}{V1}/nothing")
    assert (status, problem["instance"]) == (404, f"{QUOTED}{base}{V1}/nothing")
    assert problem["type"] == f"{QUOTED}{base}/v1/problems/not-found"


def test_pages_of_the_example_project_link_below_the_prefix(site, settings):
    # Set anew, because Django and its storage keep the address that they made for another prefix.
    settings.STATIC_URL = "static/"
    for page in ("/", "/api/docs", "/api/redoc", "/admin/login/"):
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', site.page(page))
        assert links, page
        lost = {link for link in links if not link.replace(" ", "%20").startswith(f"{QUOTED}/")}
        if site.way == "middleware" or (site.handler != "wsgi" and "unstripped" not in site.way):
            # The form of Django's own page leads to `request.path`, which lacks the prefix here.
            lost.discard("/admin/login/")
        assert lost == set(), page


def test_the_openapi_document_has_the_prefix(site):
    _, _, document = site("GET", "/api/schema?format=json", accept="*/*")
    assert document["servers"] == [{"url": QUOTED}]
    assert f"{V1}/tasks/claim" in document["paths"]
