"""The way of people through the example project, from signing in to the end of their tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import PASSWORD, Faults, OpenPage
from tests.browser.looks import PHONE, accessibility_faults, scrolls_sideways
from tests.browser.site import Site

# A worker that shares two cores with a browser takes its time.
expect.set_options(timeout=20_000)


def open_job(page: Page, room: str, name: str) -> Locator:
    """Open the room page with the form of a job; returns the form."""
    page.goto(f"/rooms/{room}/")
    page.get_by_role("link", name=re.compile(rf"^{name}\b")).first.click()
    return page.get_by_role("form", name=re.compile(name))


def tasks_of(page: Page) -> Locator:
    """The page's list or view of tasks."""
    return page.get_by_role("region", name="Tasks")


def expect_text(page: Page, text: str) -> None:
    """Expect a text; the list of tasks and the view of one task hide each other."""
    expect(tasks_of(page).get_by_text(text).filter(visible=True).first).to_be_visible()


def expect_status(page: Page, status: str) -> None:
    """Expect a task with this status."""
    found = tasks_of(page).get_by_text(status, exact=True).filter(visible=True)
    expect(found.first).to_be_visible()


def test_a_stranger_signs_in_and_arrives_in_the_room(open_page: OpenPage) -> None:
    page = open_page(user=None)
    page.goto("/")
    page.get_by_role("link", name="Sign in to the demo's room").click()
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile(r"/rooms/demo/$"))
    page.get_by_role("button", name="Sign out ada").click()
    expect(page.get_by_role("link", name="Sign in to the demo's room")).to_be_visible()


def test_a_submit_from_the_form_runs_to_its_end_with_result_and_files(
    page: Page, room: str
) -> None:
    form = open_job(page, room, "Report")
    form.get_by_role("spinbutton", name="Rows").fill("5")
    form.get_by_role("button", name="Submit").click()
    form.get_by_role("link", name="Show the task").click()
    tasks = tasks_of(page)
    expect_status(page, "completed")
    expect(tasks.get_by_role("cell", name="row 4")).to_be_visible()
    picture = tasks.get_by_role("img", name=re.compile("square.png"))
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 16
    with page.expect_download() as download:
        tasks.get_by_role("link", name="notes.txt").click()
    assert download.value.path().read_text() == "the notes"
    # The SVG of the worker is a link and no picture, because it may have a script.
    expect(tasks.get_by_role("link", name="x.svg")).to_be_visible()
    expect(tasks.get_by_role("img", name=re.compile("x.svg"))).to_have_count(0)


def test_wrong_input_is_marked_at_its_field_and_submits_nothing(
    page: Page, site: Site, room: str
) -> None:
    form = open_job(page, room, "Steps")
    field = form.get_by_role("spinbutton", name="Pause")
    field.fill("11")
    form.get_by_role("button", name="Submit").click()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    assert site.request("GET", f"rooms/{room}/tasks") == []
    field.fill("0.01")
    form.get_by_role("button", name="Submit").click()
    expect(form.get_by_role("link", name="Show the task")).to_be_visible()


def test_progress_moves_while_somebody_watches(page: Page, site: Site, room: str) -> None:
    page.goto(f"/rooms/{room}/")
    task = site.submit(room, "Steps", steps=200, pause=0.1)
    bar = tasks_of(page).get_by_role("listitem").get_by_role("progressbar")
    expect(bar).to_be_visible()
    seen = bar.get_attribute("value")
    expect(bar).not_to_have_attribute("value", seen)
    assert float(bar.get_attribute("value")) > float(seen)
    site.request("PATCH", f"tasks/{task}", json={"status": "cancelled"})
    expect_status(page, "cancelled")


def test_a_running_task_is_cancelled(page: Page, site: Site, room: str) -> None:
    task = site.submit(room, "Steps", steps=1000, pause=0.1)
    page.goto(f"/rooms/{room}/?task={task}")
    tasks = tasks_of(page)
    expect(tasks.get_by_role("progressbar")).to_be_visible()
    tasks.get_by_role("button", name="Cancel the task").click()
    tasks.get_by_role("button", name="Yes, cancel it").click()
    expect_status(page, "cancelled")
    assert site.request("GET", f"tasks/{task}")["status"] == "cancelled"


def test_a_failed_task_shows_its_error_and_is_submitted_again(
    page: Page, site: Site, room: str
) -> None:
    task = site.submit(room, "Fail", message="<b>the reactor</b> is cold")
    site.wait_for(task, "failed")
    page.goto(f"/rooms/{room}/?task={task}")
    tasks = tasks_of(page)
    expect_text(page, "<b>the reactor</b> is cold")
    tasks.get_by_role("button", name="Submit again").click()
    expect(page).not_to_have_url(re.compile(task))
    expect_status(page, "failed")
    listed = site.request("GET", f"rooms/{room}/tasks")
    assert [entry["retry_of"] for entry in listed] == [task, None]


def test_the_log_grows_while_the_task_runs(page: Page, site: Site, room: str) -> None:
    task = site.submit(room, "Steps", steps=30, pause=0.1)
    page.goto(f"/rooms/{room}/?task={task}")
    expect_text(page, "line 30")


@pytest.fixture
def stopped(site: Site) -> Iterator[None]:
    """Start the server again if the test stopped it and failed."""
    yield
    if site.is_stopped:
        site.start()


def test_the_page_recovers_after_a_restart_of_the_server(
    page: Page, site: Site, room: str, faults: Faults, stopped: None
) -> None:
    faults.allow(r"WebSocket connection", r"ERR_CONNECTION_REFUSED", r"ERR_EMPTY_RESPONSE")
    page.goto(f"/rooms/{room}/")
    first = site.submit(room, "Echo", value=1)
    tasks = tasks_of(page)
    expect(tasks.get_by_role("listitem")).to_have_count(1)
    site.stop()
    expect(page.get_by_text("The connection is lost")).to_be_visible()
    site.start()
    second = site.submit(room, "Echo", value=2)
    expect(page.get_by_text("Connected again")).to_be_visible()
    expect(tasks.get_by_role("listitem")).to_have_count(2)
    for task in (first, second):
        site.wait_for(task, "completed")
    expect(tasks.get_by_role("listitem").filter(has_text="completed")).to_have_count(2)


def test_a_submit_needs_no_mouse(page: Page, site: Site, room: str) -> None:
    page.goto(f"/rooms/{room}/")
    link = page.get_by_role("link", name=re.compile("^Echo"))
    expect(link).to_be_visible()

    def tab_to(target: Locator) -> None:
        for _ in range(80):
            if target.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        pytest.fail("The keyboard does not reach the element.")

    tab_to(link)
    page.keyboard.press("Enter")
    form = page.get_by_role("form", name=re.compile("Echo"))
    tab_to(form.get_by_role("button", name="Submit"))
    page.keyboard.press("Enter")
    shown = form.get_by_role("link", name="Show the task")
    expect(shown).to_be_visible()
    tab_to(shown)
    page.keyboard.press("Enter")
    expect_status(page, "completed")


LOOKS = {
    "wide": {},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
    "dark phone": {**PHONE, "color_scheme": "dark"},
}


@pytest.mark.parametrize("look", LOOKS)
def test_pages_fit_the_window_and_have_no_serious_fault(
    open_page: OpenPage, site: Site, room: str, look: str
) -> None:
    task = site.submit(room, "Report", rows=30)
    site.wait_for(task, "completed")
    failed = site.submit(room, "Fail", message="the reactor is cold " * 20)
    site.wait_for(failed, "failed")
    page = open_page(**LOOKS[look])
    job = "@global:analysis:Everything"
    found = {}
    for path in (
        "/",
        f"/rooms/{room}/?job={job}",
        f"/rooms/{room}/?task={task}",
        f"/rooms/{room}/?task={failed}",
    ):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        found[path] = accessibility_faults(page) + ["sideways"] * scrolls_sideways(page)
    stranger = open_page(user=None, **LOOKS[look])
    for path in ("/sign-in/", "/"):
        stranger.goto(path)
        found[f"{path} of a stranger"] = accessibility_faults(stranger) + ["sideways"] * (
            scrolls_sideways(stranger)
        )
    assert {path: faults for path, faults in found.items() if faults} == {}


def test_a_german_browser_gets_german_pages(open_page: OpenPage, site: Site, room: str) -> None:
    site.wait_for(site.submit(room, "Echo", value=1), "completed")
    page = open_page(locale="de-DE")
    page.goto(f"/rooms/{room}/")
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.get_by_role("heading", name="Aufgaben")).to_be_visible()
    expect(page.get_by_role("heading", name="Trajektorie")).to_be_visible()
    expect(page.get_by_text("abgeschlossen", exact=True).filter(visible=True)).to_be_visible()
