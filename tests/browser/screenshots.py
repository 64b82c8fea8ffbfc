"""``make screenshots`` writes the pictures of the documentation to docs/screenshots.

They show the demo: its jobs, its worker, and a history of some hours.
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from example_project.accounts.models import User
from example_project.demo.jobs import JOBS
from tests.browser.conftest import OpenPage
from tests.browser.looks import PHONE
from tests.browser.site import Site
from tests.browser.test_dashboard import shows
from tests.browser.test_demo import HISTOGRAM, ROTATE, SIMULATE
from tests.servers import ROOT, until
from zndraw_joblib.models import Job, Task
from zndraw_joblib.names import GLOBAL_ROOM
from zndraw_joblib.storage.clock import database_time
from zndraw_joblib.storage.ids import first_id
from zndraw_joblib.storage.intervals import ALL_JOBS, Tally

FOLDER = ROOT / "docs" / "screenshots"
ROOM = "demo"
SELECT = "@global:selections:SelectWithin"
MAX_BYTES = 200_000
TASKS = "/admin/zndraw_joblib/task/"
ERRORS = (
    "ValueError: atom 100 does not exist; the frame has 38 atoms",
    "ValueError: there is no trajectory in this room yet: submit Simulate first",
)
HOURS = 20
#: Tasks an hour at noon, and their typical run time in seconds, by the name of the job.
TYPICAL = {
    "Simulate": (40, 8.0),
    "Rotate": (80, 0.4),
    "SelectWithin": (50, 0.2),
    "DistanceHistogram": (30, 0.5),
}


@pytest.fixture(scope="session")
def worker_module(history: None) -> str:
    """The demo's own worker, on a database with a history."""
    return "example_project.demo.worker"


@pytest.fixture(scope="session")
def history(database: None) -> None:
    """Tasks of several people in the last hours, before the sweeper counts for the first time."""
    chance = random.Random(7)
    now = database_time("default")
    people = [str(User.objects.create_user(name).pk) for name in ("alice", "bob", "carol")]
    tasks, tally = [], Tally()
    for job_class in JOBS:
        name, category = job_class.__name__, job_class.category  # type: ignore[attr-defined]
        # Durable, because the sweeper may be faster than the worker that registers it.
        job = Job.objects.create(
            room_id=GLOBAL_ROOM, category=category, name=name, schema={}, durable=True
        )
        rate, run_time = TYPICAL[name]
        for _ in range(rate * HOURS):
            ago = timedelta(hours=HOURS * chance.random())
            if chance.random() < share_of_noon(ago):
                tasks.append(ended_task(chance, job, chance.choice(people), now - ago, run_time))
    for minutes in range(0, 60 * HOURS, 5):
        ago = timedelta(minutes=minutes)
        sample = tally.counts(ALL_JOBS, now - ago)
        sample.pending = round(20 * chance.random() * share_of_noon(ago))
        sample.running = chance.randint(0, 2)
    Task.objects.bulk_create(tasks, batch_size=500)
    tally.save("default", with_sums=False)


def share_of_noon(ago: timedelta) -> float:
    """How busy the site was so long ago, as a fraction of its busiest hour."""
    return 0.55 + 0.45 * math.cos(2 * math.pi * ago / timedelta(hours=24) + 0.6)


def ended_task(
    chance: random.Random, job: Job, person: str, ended_at: datetime, run_time: float
) -> Task:
    """A task that failed sometimes, and waited and ran for about as long as usual."""
    started_at = ended_at - timedelta(seconds=run_time * chance.lognormvariate(0, 0.5))
    created_at = started_at - timedelta(seconds=chance.lognormvariate(-1, 1.5))
    status = chance.choices(["completed", "failed", "cancelled"], [90, 8, 2])[0]
    return Task(
        id=str(first_id(created_at))[:-12] + uuid4().hex[:12],
        job=job,
        room_id=chance.choice(["argon", "teaching", "group-meeting"]),
        created_by=person,
        payload={},
        status=status,
        error=chance.choice(ERRORS) if status == "failed" else None,
        attempt=1,
        created_at=created_at,
        claimed_at=started_at,
        started_at=started_at,
        completed_at=ended_at,
    )


@pytest.fixture(scope="module")
def running(site: Site) -> str:
    """Tasks of each kind in the demo's room; returns one that runs."""
    ended: list[tuple[str, str, dict[str, Any]]] = [
        (SIMULATE, "completed", {"frames": 40}),
        (ROTATE, "completed", {"angle": 30}),
        (SELECT, "failed", {"centre": 100}),
        (SELECT, "completed", {"distance": 6}),
        (HISTOGRAM, "completed", {"bins": 24, "longest": 16}),
    ]
    for job, status, payload in ended:
        site.wait_for(site.submit_job(ROOM, job, **payload), status)
    first, _second = (site.submit_job(ROOM, SIMULATE, frames=1000, seed=seed) for seed in (8, 9))
    return first


def save(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.mouse.move(0, 0)
    page.screenshot(path=path)
    assert path.stat().st_size < MAX_BYTES


LOOKS: dict[str, Any] = {
    "room": {"viewport": {"width": 1280, "height": 1000}},
    "room-dark": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"},
    "room-phone": PHONE,
}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("name", LOOKS)
def test_room(open_page: OpenPage, name: str) -> None:
    page = open_page("root", **LOOKS[name])
    page.goto(f"/rooms/{ROOM}/?job={ROTATE}")
    expect(page.locator("#histogram canvas")).to_be_visible(timeout=30_000)
    tasks = page.get_by_role("region", name="Tasks")
    expect(tasks.get_by_role("progressbar").first).to_be_visible(timeout=30_000)
    form = page.get_by_role("form")
    form.get_by_role("spinbutton", name="Angle").fill("45")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(500)
    save(page, name)


def test_task_in_the_admin(open_page: OpenPage, site: Site, running: str) -> None:
    page = open_page("root", viewport={"width": 1280, "height": 1650})
    site.wait_for(running, "running")
    page.goto(f"{TASKS}{running}/change/")
    expect(page.locator(".joblib-growing")).to_contain_text("frame 100:", timeout=60_000)
    save(page, "admin-task")


@pytest.mark.usefixtures("running")
def test_tasks_in_the_admin(open_page: OpenPage) -> None:
    page = open_page("root", viewport={"width": 1280, "height": 800})
    page.goto(TASKS)
    save(page, "admin-tasks")


@pytest.mark.usefixtures("running")
def test_dashboard(open_page: OpenPage) -> None:
    page = open_page("root", viewport={"width": 1280, "height": 1300})
    until(lambda: shows(page, "SelectWithin"), seconds=60)
    page.get_by_role("link", name="last day").click()
    expect(page.locator(".joblib-charts canvas").first).to_be_visible()
    save(page, "dashboard")
