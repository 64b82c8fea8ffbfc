"""A site with a sweeper and a worker, and pages of Chromium, signed in.

A test fails if a page reports an error or a violation of its Content-Security-Policy;
`faults.allow` names the ones that a test expects. A failed test leaves a picture of each page in
``.browser/``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.conf import settings
from django.test import Client
from django.test.utils import setup_databases, teardown_databases
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from rest_framework.authtoken.models import Token

from example_project.accounts.models import User
from tests.browser.site import Site
from tests.deploy.programs import program
from tests.servers import ROOT, process, until

HERE = Path(__file__).parent
PICTURES = ROOT / ".browser"
#: Without motion, because drawing molecules in three dimensions without a graphics card is slow.
DESKTOP: Any = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
PASSWORD = "correct horse"
_rooms = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def database(django_test_environment: None, django_db_blocker: Any) -> Iterator[None]:
    """A database that lasts for all tests; pytest-django's fixtures make one only for marked tests.

    Queries run before Playwright starts and after it, because Django refuses them in a thread with
    a running event loop.
    """
    with django_db_blocker.unblock():
        created = setup_databases(0, interactive=False, aliases={"default": None})
        yield
        teardown_databases(created, 0)


@pytest.fixture(scope="session")
def worker_module() -> str:
    """The module that runs the worker of the site; it has a tuple `JOBS`."""
    return "tests.browser.worker"


@pytest.fixture(scope="session")
def site(database: None, worker_module: str) -> Iterator[Site]:
    """The URL of a running site. Its users are `ada` and, as an administrator, `root`."""
    site = Site()
    for name, admin in {"ada": False, "root": True}.items():
        user = User.objects.create_user(name, password=PASSWORD, is_staff=admin, is_superuser=admin)
        site.tokens[name] = Token.objects.create(user=user).key
        client = Client()
        client.force_login(user)
        site.cookies[name] = client.cookies[settings.SESSION_COOKIE_NAME].value
    access = {"JOBLIB_URL": str(site), "JOBLIB_TOKEN": site.tokens["root"]}
    with process("-m", "django", "run_sweeper", DJANGO_SETTINGS_MODULE="example_project.settings"):
        site.start()
        try:
            jobs = import_module(worker_module).JOBS
            with process("-m", worker_module, **access) as worker:

                def registered() -> bool:
                    assert worker.poll() is None, worker.log.read_text()
                    return len(site.request("GET", "rooms/@global/jobs")) == len(jobs)

                until(registered, seconds=60)
                yield site
        finally:
            site.stop()


@pytest.fixture(scope="session")
def browser(site: Site) -> Iterator[Browser]:
    """Chromium of the system."""
    path = program("chromium", "chromium", mark="browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            # Chromium refuses to run as root in its sandbox. WebGL is drawn by the processor.
            args=["--no-sandbox", "--enable-unsafe-swiftshader"],
        )
        yield browser
        browser.close()


class Faults:
    """Errors that pages report."""

    def __init__(self) -> None:
        self.found: list[str] = []
        # The API's refusals, which the browser reports, too.
        self.allowed = [r"/v1/\S* Failed to load resource: .* status of 4\d\d"]

    def allow(self, *patterns: str) -> None:
        """Ignore errors that match one of these patterns; they begin with the URL of the source."""
        self.allowed += patterns

    def watch(self, page: Page) -> None:
        """Collect the errors of a page."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"{page.url} {error}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.found.append(f"{message.location['url']} {message.text}")

    def unexpected(self) -> list[str]:
        """The errors that no pattern matches."""
        return [
            error
            for error in self.found
            if not any(re.search(pattern, error) for pattern in self.allowed)
        ]


@pytest.fixture
def faults() -> Iterator[Faults]:
    """The errors of this test's pages; the test fails if there are unexpected ones."""
    faults = Faults()
    yield faults
    assert faults.unexpected() == []


class OpenPage(Protocol):
    """A function that opens a page in a browser of its own."""

    def __call__(self, user: str | None = "ada", **options: Any) -> Page: ...


@pytest.fixture
def open_page(
    site: Site, browser: Browser, faults: Faults, request: pytest.FixtureRequest
) -> Iterator[OpenPage]:
    """A function that opens an empty page, signed in as `user`.

    The options are those of Playwright's `new_context`: `**PHONE`, `color_scheme`, `locale`.
    """
    contexts: list[BrowserContext] = []

    def open_page(user: str | None = "ada", **options: Any) -> Page:
        context = browser.new_context(base_url=site, **{**DESKTOP, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        if user:
            name, value = settings.SESSION_COOKIE_NAME, site.cookies[user]
            context.add_cookies([{"name": name, "value": value, "url": str(site)}])
        page = context.new_page()
        faults.watch(page)
        return page

    yield open_page
    failed = request.node.stash.get(FAILED, False)
    for number, page in enumerate(page for context in contexts for page in context.pages):
        if failed:
            page.screenshot(path=PICTURES / f"{request.node.name}-{number}.png", full_page=True)
    for context in contexts:
        context.close()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Tell the fixture `open_page` that the test failed."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """An empty page, signed in as `ada`; `page.goto` takes paths of the site."""
    return open_page()


@pytest.fixture
def room() -> str:
    """A room that no other test uses."""
    return f"room{next(_rooms)}"
