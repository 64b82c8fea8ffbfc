"""The operators' dashboard in the admin."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.looks import PHONE, accessibility_faults, scrolls_sideways
from tests.browser.site import Site
from tests.servers import process, until

DASHBOARD = "/admin/zndraw_joblib/jobinterval/"


def sweep() -> None:
    """One pass of the sweeper, which keeps the statistics."""
    with process(
        "-m", "django", "run_sweeper", "--once", DJANGO_SETTINGS_MODULE="example_project.settings"
    ) as child:
        assert child.wait(30) == 0, child.log.read_text()


def shows(page: Page, text: str) -> bool:
    """Whether the dashboard has the text after another pass and a new load."""
    sweep()
    page.goto(DASHBOARD)
    return text in page.locator("#joblib-dashboard").inner_text()


def test_the_dashboard_shows_ends_and_failures_after_a_sweep(
    open_page: OpenPage, site: Site, room: str
) -> None:
    message = f"the reactor of {room.replace('room', 'hall ')} is cold"
    failed = [site.submit(room, "Fail", message=message) for _ in range(2)]
    for task in failed:
        site.wait_for(task, "failed")
    site.wait_for(site.submit(room, "Echo", value=1), "completed")
    page = open_page("root")
    # Digits are left out of the key of an error, and the text of the first is shown.
    until(lambda: shows(page, "the reactor of hall"), seconds=60)
    expect(page.get_by_role("region", name="Jobs", exact=True)).to_contain_text("Fail")
    expect(page.locator(".joblib-charts canvas").first).to_be_visible()
    page.get_by_role("link", name="Retry all").first.click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert accessibility_faults(page) == []


LOOKS: dict[str, Any] = {"wide": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


@pytest.mark.parametrize("look", LOOKS)
def test_the_dashboard_fits_the_window_and_has_no_serious_fault(
    open_page: OpenPage, site: Site, room: str, look: str
) -> None:
    site.wait_for(site.submit(room, "Report"), "completed")
    page = open_page("root", **LOOKS[look])
    until(lambda: shows(page, "Report"), seconds=60)
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)


def test_only_administrators_see_the_dashboard(page: Page) -> None:
    page.goto(DASHBOARD)
    expect(page).to_have_url(re.compile("/admin/login/"))
