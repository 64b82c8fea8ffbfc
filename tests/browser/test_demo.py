"""The demo's room: the molecule, its trajectory, the histogram and another worker."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.looks import accessibility_faults
from tests.browser.site import Site

SIMULATE, ROTATE = "@global:modifiers:Simulate", "@global:modifiers:Rotate"
HISTOGRAM = "@global:analysis:DistanceHistogram"
NO_WEBGL = """
const original = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.startsWith("webgl") ? null : original.call(this, kind, ...rest);
};
"""


@pytest.fixture
def trajectory(site: Site, room: str) -> str:
    """A completed task with 3 frames."""
    task = site.submit_job(room, SIMULATE, frames=3)
    site.wait_for(task, "completed")
    return task


def expect_shown(page: Page, task: str) -> None:
    link = page.locator("#scene-caption a")
    expect(link).to_have_attribute("href", f"?task={task}", timeout=20_000)


def test_the_molecule_follows_the_tasks_of_the_room(
    page: Page, site: Site, room: str, trajectory: str
) -> None:
    page.goto(f"/rooms/{room}/")
    expect_shown(page, trajectory)
    expect(page.locator("#scene canvas")).to_be_visible()
    page.get_by_role("region", name="Trajectory").get_by_role("link", name="Rotate").click()
    form = page.get_by_role("form", name=re.compile("Rotate"))
    form.get_by_role("spinbutton", name="Angle").fill("45")
    form.get_by_role("button", name="Submit").click()
    href = form.get_by_role("link", name="Show the task").get_attribute("href")
    rotated = re.search(r"task=([0-9a-f-]+)", href)[1]
    expect_shown(page, rotated)
    assert site.request("GET", f"tasks/{rotated}")["payload"]["angle"] == 45


def test_the_molecule_and_the_form_that_turns_it_are_seen_together(
    page: Page, room: str, trajectory: str
) -> None:
    page.goto(f"/rooms/{room}/?job={ROTATE}")
    expect_shown(page, trajectory)
    form, scene = page.get_by_role("form", name=re.compile("Rotate")), page.locator("#scene")
    expect(form).to_be_in_viewport()
    expect(scene).to_be_in_viewport()
    assert form.bounding_box()["x"] + form.bounding_box()["width"] < scene.bounding_box()["x"]


def test_the_trajectory_plays_and_stops(open_page: OpenPage, room: str, trajectory: str) -> None:
    page = open_page(reduced_motion="no-preference")
    page.goto(f"/rooms/{room}/")
    play = page.get_by_role("button", name=re.compile("^(Play|Pause)$"))
    expect(play).to_have_text("Pause")
    play.click()
    expect(play).to_have_attribute("aria-pressed", "false")
    page.get_by_role("slider", name="Frame").fill("2")
    expect(page.locator("#frame-number")).to_have_text("3 of 3")


def test_nothing_moves_by_itself_where_people_want_no_motion(
    page: Page, room: str, trajectory: str
) -> None:
    page.goto(f"/rooms/{room}/")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(page.get_by_role("checkbox", name="Turn")).not_to_be_checked()


def test_without_webgl_the_atoms_are_drawn_flat(
    open_page: OpenPage, room: str, trajectory: str
) -> None:
    page = open_page()
    page.add_init_script(NO_WEBGL)
    page.goto(f"/rooms/{room}/")
    expect_shown(page, trajectory)
    expect(page.locator("#scene circle")).to_have_count(38)
    expect(page.get_by_role("checkbox", name="Turn")).to_be_disabled()


def test_the_histogram_is_a_chart_with_a_table(
    page: Page, site: Site, room: str, trajectory: str
) -> None:
    page.goto(f"/rooms/{room}/")
    expect_shown(page, trajectory)
    expect(page.locator("#histogram")).to_be_hidden()
    site.submit_job(room, HISTOGRAM, bins=7)
    expect(page.locator("#histogram canvas")).to_be_visible(timeout=20_000)
    # 3 frames of 38 atoms.
    expect(page.locator("#histogram-caption")).to_contain_text("2,109 pairs")
    page.locator("#histogram summary").click()
    expect(page.locator("#histogram-rows tr")).to_have_count(7)
    assert accessibility_faults(page) == []


def test_an_administrator_copies_the_command_of_another_worker(
    open_page: OpenPage, site: Site, room: str
) -> None:
    options: Any = {"permissions": ["clipboard-read", "clipboard-write"]}
    page = open_page("root", **options)
    page.goto(f"/rooms/{room}/")
    page.get_by_text("Start another worker").click()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    command = page.evaluate("navigator.clipboard.readText()")
    assert f"JOBLIB_URL={site}" in command
    assert site.tokens["root"] in command
    assert site.tokens["root"] not in page.content()


def test_the_first_page_shows_a_task_that_starts_without_a_reload(
    page: Page, site: Site, room: str
) -> None:
    page.goto("/")
    site.submit(room, "Steps", steps=60, pause=0.1)
    expect(page.get_by_role("region", name="Running now")).to_contain_text(room, timeout=20_000)
