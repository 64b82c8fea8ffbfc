"""The tasks of the room page: the live list, a task with its result, cancel and retry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect

from tests.browser.conftest import Faults, OpenPage
from tests.browser.looks import PHONE, accessibility_faults, scrolls_sideways
from tests.browser.site import Site

SOCKET = "**/ws/v1/joblib/rooms/*/events/*"
ROWS = "[data-joblib=list] > li"


def row(page: Page, task: str) -> Locator:
    return page.locator(f"[data-joblib=list] > [data-task='{task}']")


def part(page: Page, heading: str) -> Locator:
    """The section of an open task that has this heading."""
    heading_of = page.get_by_role("heading", name=heading, exact=True, level=4)
    return page.locator("[data-joblib=detail] > section").filter(has=heading_of)


def echo(site: Site, room: str, value: Any) -> str:
    """A task that has ended with this result."""
    task = site.submit(room, "Echo", value=value)
    site.wait_for(task, "completed")
    return task


def connected(page: Page, room: str, query: str = "") -> None:
    """Open the room's page, and wait until it has the list."""
    page.goto(f"/rooms/{room}/{query}")
    expect(
        page.locator("[data-joblib=list] > li, [data-joblib=list-notice]:visible").first
    ).to_be_visible()


def without_sockets(page: Page) -> None:
    page.route_web_socket(SOCKET, lambda socket: socket.close(code=1011))


def fake_socket(page: Page) -> list[WebSocketRoute]:
    """Sockets of the page that the test serves; each has begun with `ready`."""
    sockets: list[WebSocketRoute] = []

    def serve(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.send(json.dumps({"type": "ready", "cursor": f"c{len(sockets)}"}))

    page.route_web_socket(SOCKET, serve)
    return sockets


def test_a_task_appears_in_the_list_runs_and_ends_without_a_reload(
    site: Site, page: Page, room: str
) -> None:
    connected(page, room)
    expect(page.get_by_text("Nobody has submitted a task in this room yet.")).to_be_visible()
    task = site.submit(room, "Steps", steps=8, pause=0.2)
    expect(row(page, task).get_by_text("running", exact=True)).to_be_visible()
    expect(row(page, task).get_by_role("progressbar")).to_be_visible()
    expect(row(page, task)).to_contain_text("of 8")
    row(page, task).get_by_role("link").click()
    expect(part(page, "Log")).to_contain_text("line 3\n")
    expect(part(page, "Result")).to_have_text("Result8")
    expect(part(page, "Log")).to_contain_text("line 8\n")
    expect(page.get_by_role("button", name="Submit again")).to_be_visible()


def test_a_list_does_not_move_under_the_pointer(site: Site, page: Page, room: str) -> None:
    first = echo(site, room, 1)
    connected(page, room)
    # The pieces above the list would otherwise move it away from the pointer when they are there.
    page.wait_for_load_state("networkidle")
    row(page, first).hover()
    place = row(page, first).bounding_box()
    second = echo(site, room, 2)
    new = page.get_by_role("button", name="1 new task")
    expect(new).to_be_visible()
    assert row(page, first).bounding_box() == place
    assert row(page, second).count() == 0
    page.mouse.move(0, 0)
    expect(page.locator(ROWS).first).to_have_attribute("data-task", second)
    expect(new).to_be_hidden()


def test_a_reader_of_an_older_page_is_told_of_new_tasks(site: Site, page: Page, room: str) -> None:
    payloads = [{"payload": {"value": n}} for n in range(30)]
    site.request("POST", f"rooms/{room}/tasks/@global:analysis:Echo", json=payloads)
    connected(page, room)
    expect(page.locator(ROWS)).to_have_count(25)
    page.get_by_role("button", name="Older tasks").click()
    expect(page.locator(ROWS)).to_have_count(5)
    assert "cursor=" in page.url
    new = echo(site, room, 1)
    page.get_by_role("button", name="1 new task").click()
    expect(page.locator(ROWS).first).to_have_attribute("data-task", new)
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(5)
    page.get_by_role("button", name="Newer tasks").click()
    expect(page.locator(ROWS)).to_have_count(25)


def test_filters_stand_in_the_address(site: Site, page: Page, room: str) -> None:
    failed = site.submit(room, "Fail")
    site.wait_for(failed, "failed")
    done = echo(site, room, 1)
    connected(page, room)
    page.get_by_label("Status").select_option("failed")
    expect(row(page, done)).to_have_count(0)
    expect(row(page, failed)).to_contain_text("the reactor is cold")
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("failed")
    expect(page.locator(ROWS)).to_have_count(1)
    page.get_by_label("Status").select_option("")
    search = page.locator("[data-joblib=search]")
    search.fill("ech")
    search.press("Enter")
    expect(search).to_have_value("@global:analysis:Echo")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(row(page, done)).to_be_visible()
    page.go_back()
    expect(page.locator(ROWS)).to_have_count(2)
    search.fill("no such job")
    search.press("Enter")
    expect(page.get_by_text("This room has no job named no such job.")).to_be_visible()


def test_an_address_with_a_cursor_that_nobody_gave_shows_the_first_page(
    site: Site, page: Page, room: str
) -> None:
    task = echo(site, room, 1)
    page.goto(f"/rooms/{room}/?cursor=nonsense")
    expect(row(page, task)).to_be_visible()
    assert "cursor" not in page.url


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        ([1.5, None, 3], ["Index", "Result"]),
        ({"energy": [1, 2], "step": [10, 20]}, ["step", "energy"]),
        ({"a": [2, 1], "b": [3, 4]}, ["Index", "a", "b"]),
        ({"counts": [4, 6], "edges": [0, 0.5, 1]}, ["edges", "counts"]),
    ],
)
def test_numbers_are_a_chart_with_a_table(
    site: Site, page: Page, room: str, value: Any, columns: list[str]
) -> None:
    page.goto(f"/rooms/{room}/?task={echo(site, room, value)}")
    result = part(page, "Result")
    expect(result.locator("canvas")).to_be_visible()
    result.get_by_text("As a table").click()
    expect(result.locator("details th")).to_have_text(columns)
    expect(result.locator("details tbody tr")).to_have_count(3 if isinstance(value, list) else 2)


def test_parts_of_an_object_have_charts_and_tables_of_their_own(
    site: Site, page: Page, room: str
) -> None:
    rows = [{"atom": "H", "charge": 1}]
    value = {
        "mean": 2.5,
        "__proto__": [1, 2, 4],
        "rows": rows,
        "cell": [[1, 0], [0, 1]],
        "none": [],
    }
    page.goto(f"/rooms/{room}/?task={echo(site, room, value)}")
    result = part(page, "Result")
    expect(result.locator("canvas")).to_have_count(1)
    expect(result.locator("h5")).to_have_text(["__proto__", "rows", "cell"])
    expect(result.get_by_role("region", name="rows").locator("th")).to_have_text(["atom", "charge"])
    expect(result.get_by_role("region", name="cell").locator("tbody tr")).to_have_count(2)
    expect(result.locator("pre")).to_have_text('{\n  "mean": 2.5,\n  "none": []\n}')


def test_objects_are_a_table_that_grows_on_request(site: Site, page: Page, room: str) -> None:
    page.goto(f"/rooms/{room}/?task={echo(site, room, [{'n': n} for n in range(250)])}")
    result = part(page, "Result")
    expect(result.locator("tbody tr")).to_have_count(100)
    expect(result).to_contain_text("100 of 250 rows are shown.")
    result.get_by_role("button", name="More rows").press("Enter")
    expect(result.locator("tbody tr")).to_have_count(200)
    expect(result.locator("tbody tr").nth(100)).to_be_focused()


def test_integers_beyond_2_to_the_53_keep_their_digits(site: Site, page: Page, room: str) -> None:
    number = 12345678901234567890123
    page.goto(f"/rooms/{room}/?task={echo(site, room, {'n': number, 'nan': 'NaN'})}")
    expect(part(page, "Result")).to_contain_text(f'"n": {number}')
    expect(part(page, "Payload")).to_contain_text(f'"n": {number}')


def test_a_large_text_is_cut_and_can_be_downloaded(site: Site, page: Page, room: str) -> None:
    text = "é" * 50_000
    page.goto(f"/rooms/{room}/?task={echo(site, room, text)}")
    result = part(page, "Result")
    expect(result).to_contain_text("The first 20,000 of 50,000 characters are shown.")
    with page.expect_download() as download:
        result.get_by_role("button", name="Download").click()
    assert download.value.path().read_text() == text


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_texts_of_workers_never_become_markup(site: Site, page: Page, room: str) -> None:
    values: list[Any] = [
        HOSTILE,
        [{HOSTILE: HOSTILE, "__proto__": 1, "constructor": None}],
        {HOSTILE: [1, 2, 3], "__proto__": [1, 2, 3]},
        [[HOSTILE, {"toString": 1}]],
    ]
    for value in values:
        page.goto(f"/rooms/{room}/?task={echo(site, room, value)}")
        expect(part(page, "Result")).to_contain_text("onerror")
        expect(part(page, "Payload")).to_contain_text("onerror")
        assert page.locator("#joblib-tasks img").count() == 0
        assert page.title() != "owned"
    failed = site.submit(room, "Fail", message=HOSTILE)
    site.wait_for(failed, "failed")
    page.goto(f"/rooms/{room}/?task={failed}")
    expect(part(page, "Error")).to_contain_text("onerror")
    page.get_by_role("button", name="All tasks").click()
    expect(row(page, failed)).to_contain_text("onerror")
    assert page.locator("#joblib-tasks img").count() == 0


def test_a_picture_is_shown_and_an_svg_is_a_download_alone(
    site: Site, page: Page, room: str
) -> None:
    task = site.submit(room, "Report", rows=1)
    site.wait_for(task, "completed")
    page.goto(f"/rooms/{room}/?task={task}")
    files = part(page, "Files")
    expect(files.get_by_role("link")).to_have_text(["notes.txt", "square.png", "x.svg"])
    expect(files.get_by_role("img", name="square.png")).to_be_visible()
    expect(files.get_by_role("img")).to_have_count(1)
    # Not `wait_for_function`, whose second look is an `eval`, which the page's policy forbids.
    expect(page.locator(".joblib-file img")).to_have_js_property("naturalWidth", 16)
    with page.expect_download() as download:
        files.get_by_role("link", name="x.svg").click()
    assert download.value.suggested_filename == "x.svg"


def test_a_failed_task_is_submitted_again_once(
    site: Site, page: Page, room: str, faults: Faults
) -> None:
    faults.allow("/retry Failed to load resource: net::ERR_FAILED")
    failed = site.submit(room, "Fail")
    site.wait_for(failed, "failed")
    page.goto(f"/rooms/{room}/?task={failed}")
    expect(part(page, "Error")).to_contain_text("ValueError: the reactor is cold")
    # The first answer is lost, and the reader presses the button again.
    lost = iter([True])

    def lose_first(route: Route) -> None:
        if next(lost, False):
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/retry", lose_first)
    page.get_by_role("button", name="Submit again").click()
    expect(page.get_by_role("alert")).to_have_text("The server did not answer. Please try again.")
    page.get_by_role("button", name="Submit again").click()
    expect(page.get_by_role("link", name=failed)).to_be_visible()
    assert len(site.request("GET", f"rooms/{room}/tasks")) == 2
    page.go_back()
    expect(page.locator("[data-joblib=detail] code")).to_have_text(failed)


def test_the_attempts_of_a_task_tell_their_errors(site: Site, page: Page, room: str) -> None:
    path = f"rooms/{room}/tasks/@global:analysis:Fail"
    sent = {"payload": {"message": HOSTILE}, "retries": 1}
    task = site.request("POST", path, json=sent)["id"]
    site.wait_for(task, "pending", "failed")
    page.goto(f"/rooms/{room}/?task={task}")
    status = page.locator("[data-joblib=detail] .joblib-status")
    expect(status).to_have_text("scheduled")
    expect(status).to_have_text("failed", timeout=15_000)
    attempts = part(page, "Attempts")
    expect(attempts.locator("tbody tr")).to_have_count(2)
    expect(attempts.locator("tbody tr").first).to_contain_text("ValueError: <img")
    assert page.locator("#joblib-tasks img").count() == 0
    assert accessibility_faults(page) == []


def test_a_task_is_cancelled_by_keyboard_after_a_question(
    site: Site, page: Page, room: str
) -> None:
    task = site.submit(room, "Steps", steps=300)
    connected(page, room)
    row(page, task).get_by_role("link").press("Enter")
    cancel = page.get_by_role("button", name="Cancel the task")
    cancel.press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    cancel.press("Enter")
    expect(page.get_by_role("button", name="No, keep it")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("[data-joblib=detail] .joblib-status")).to_have_text("cancelled")
    assert site.request("GET", f"tasks/{task}")["status"] == "cancelled"


def test_a_refused_cancel_is_told_in_words(site: Site, page: Page, room: str) -> None:
    task = site.submit(room, "Steps", user="root", steps=300)
    page.goto(f"/rooms/{room}/?task={task}")
    page.get_by_role("button", name="Cancel the task").click()
    page.get_by_role("button", name="Yes, cancel it").click()
    expect(page.get_by_role("alert")).to_contain_text("You may not do this:")
    site.request("PATCH", f"tasks/{task}", user="root", json={"status": "cancelled"})


def test_a_task_of_another_room_is_not_shown(site: Site, page: Page, room: str) -> None:
    task = echo(site, f"{room}-other", 1)
    page.goto(f"/rooms/{room}/?task={task}")
    expect(page.get_by_role("heading", name="This room has no such task.")).to_be_visible()
    page.goto(f"/rooms/{room}/?task=nonsense")
    expect(page.get_by_role("heading", name="This room has no such task.")).to_be_visible()


def test_without_sockets_the_list_lives_by_server_sent_events(
    site: Site, page: Page, room: str
) -> None:
    without_sockets(page)
    with page.expect_request("**/events*"):
        connected(page, room)
    task = echo(site, room, 1)
    expect(row(page, task).get_by_text("completed")).to_be_visible()


def test_without_any_events_the_list_is_read_over_and_over(
    site: Site, page: Page, room: str, faults: Faults
) -> None:
    faults.allow("/events")
    without_sockets(page)
    page.route("**/rooms/*/events*", lambda route: route.abort())
    connected(page, room)
    task = echo(site, room, 1)
    expect(row(page, task).get_by_text("completed")).to_be_visible(timeout=15_000)


def test_the_page_says_when_it_is_offline_and_catches_up_after_a_restart(
    site: Site, page: Page, room: str, faults: Faults
) -> None:
    faults.allow("ERR_", "WebSocket", "status of 50")
    connected(page, room)
    # The first event has come.
    first = echo(site, room, 1)
    expect(row(page, first)).to_be_visible()
    site.stop()
    line = page.locator("[data-joblib=connection]")
    expect(line).to_contain_text("The connection is lost")
    site.start()
    task = echo(site, room, 2)
    expect(line).to_contain_text("Connected again", timeout=40_000)
    expect(row(page, task).get_by_text("completed")).to_be_visible()


def test_a_reader_who_was_signed_out_gets_a_link_to_sign_in(page: Page, room: str) -> None:
    sockets = fake_socket(page)
    connected(page, room)
    sockets[0].close(code=4401)
    line = page.get_by_role("status").filter(has_text="You are signed out.")
    expect(line.get_by_role("link", name="Sign in")).to_have_attribute("href", page.url)


def test_a_slow_reader_comes_again_with_the_cursor(page: Page, room: str) -> None:
    sockets = fake_socket(page)
    connected(page, room)
    sockets[0].close(code=4408)
    page.wait_for_timeout(1500)
    assert "cursor=c1" in sockets[1].url
    assert len(sockets) == 2


def test_a_hidden_page_closes_its_connection_and_resumes_when_it_is_seen(
    page: Page, room: str
) -> None:
    page.clock.install()
    sockets = fake_socket(page)
    closed: list[int] = []
    connected(page, room)
    sockets[0].on_close(lambda code, reason: closed.append(1))
    show = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(show, True)
    page.clock.run_for(100_000)
    assert closed == []
    page.clock.run_for(60_000)
    page.wait_for_timeout(100)
    assert closed == [1]
    page.evaluate(show, False)
    page.wait_for_timeout(300)
    assert "cursor=c1" in sockets[1].url


def test_fifty_changes_a_second_among_a_thousand_tasks_do_not_freeze_the_page(
    site: Site, page: Page, room: str
) -> None:
    sockets = fake_socket(page)
    shown = echo(site, room, 1)
    connected(page, room)
    expect(row(page, shown)).to_be_visible()
    page.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          const look = (now) => {
            window.longest = Math.max(window.longest, now - last);
            last = now;
            requestAnimationFrame(look);
          };
          requestAnimationFrame(look);
        }"""
    )
    task = site.request("GET", f"tasks/{shown}")
    for number in range(1000):
        changed = {**task, "id": f"{number:08}-0000-7000-8000-000000000000", "status": "running"}
        changed |= {"created_at": f"2099-01-01T00:00:00.{number:06}Z", "progress": number / 1000}
        sockets[0].send(json.dumps({"type": "task", "cursor": "c", "revision": 2, "task": changed}))
        if number % 10 == 0:
            page.wait_for_timeout(10)
    expect(page.locator(ROWS).first).to_contain_text("running")
    page.wait_for_timeout(300)
    assert page.evaluate("window.longest") < 500
    assert page.locator(ROWS).count() <= 200


@pytest.mark.parametrize("options", [{}, {**PHONE, "color_scheme": "dark"}])
def test_list_and_task_are_accessible_at_each_width(
    site: Site, open_page: OpenPage, room: str, options: Any
) -> None:
    page = open_page(**options)
    site.wait_for(site.submit(room, "Fail", message="x" * 900), "failed")
    site.wait_for(report := site.submit(room, "Report", rows=120), "completed")
    running = site.submit(room, "Steps", steps=300)
    site.wait_for(running, "running")
    series = echo(site, room, {"step": [1, 2, 3], "energy": [3, 1, 2]})
    connected(page, room)
    expect(row(page, running).get_by_role("progressbar")).to_be_visible()
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)
    for task in (running, report, series):
        page.goto(f"/rooms/{room}/?task={task}")
        expect(part(page, "Payload")).to_be_visible()
        if task != running:
            expect(part(page, "Result")).to_be_visible()
        assert accessibility_faults(page) == []
        assert not scrolls_sideways(page)
    site.request("PATCH", f"tasks/{running}", json={"status": "cancelled"})


def test_a_moment_in_the_past_is_never_ahead_though_the_clocks_differ(
    page: Page, room: str
) -> None:
    connected(page, room)
    ago = """async (milliseconds) => {
        const { createFormat } = await import("/static/zndraw_joblib/pages/format.js");
        const format = createFormat({ locale: "en", texts: {} });
        return format.ago(new Date(Date.now() - milliseconds).toISOString());
    }"""
    shown = [page.evaluate(ago, milliseconds) for milliseconds in (-2_000, 0, 3_000, 200_000)]
    assert shown == ["0 seconds ago", "0 seconds ago", "3 seconds ago", "3 minutes ago"]
