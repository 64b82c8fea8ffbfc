"""``make screenshots`` writes the pictures of the documentation to docs/screenshots."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.looks import PHONE
from tests.browser.site import Site
from tests.browser.test_dashboard import shows
from tests.browser.test_demo import HISTOGRAM, ROTATE, SIMULATE
from tests.servers import ROOT, until

FOLDER = ROOT / "docs" / "screenshots"
ROOM = "argon"
SELECT = "@global:selections:SelectWithin"
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def busy_room(site: Site) -> None:
    """Tasks of each kind in the room, one of them running."""
    ended: list[tuple[str, str, dict[str, Any]]] = [
        (SIMULATE, "completed", {"frames": 40}),
        (ROTATE, "completed", {"angle": 30}),
        (SELECT, "failed", {"centre": 100}),
        (SELECT, "completed", {"distance": 6}),
        (HISTOGRAM, "completed", {"bins": 24, "longest": 16}),
    ]
    for job, status, payload in ended:
        site.wait_for(site.submit_job(ROOM, job, **payload), status)
    site.submit_job(ROOM, SIMULATE, frames=1000, seed=8)
    site.submit_job(ROOM, SIMULATE, frames=1000, seed=9)


def save(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size < MAX_BYTES


LOOKS: dict[str, Any] = {
    "room": {"viewport": {"width": 1280, "height": 1000}},
    "room-dark": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"},
    "room-phone": PHONE,
}


@pytest.mark.usefixtures("busy_room")
@pytest.mark.parametrize("name", LOOKS)
def test_room(open_page: OpenPage, name: str) -> None:
    page = open_page(**LOOKS[name])
    page.goto(f"/rooms/{ROOM}/?job={ROTATE}")
    expect(page.locator("#histogram canvas")).to_be_visible(timeout=30_000)
    tasks = page.get_by_role("region", name="Tasks")
    expect(tasks.get_by_role("progressbar").first).to_be_visible(timeout=30_000)
    expect(page.get_by_role("form")).to_be_visible(timeout=30_000)
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    save(page, name)


@pytest.mark.usefixtures("busy_room")
def test_dashboard(open_page: OpenPage) -> None:
    page = open_page("root", viewport={"width": 1280, "height": 1000})
    until(lambda: shows(page, "SelectWithin"), seconds=60)
    save(page, "dashboard")
