"""The forms of jobs on the room page."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.browser import kinds
from tests.browser.looks import PHONE, accessibility_faults, scrolls_sideways
from tests.browser.site import Site


def register(site: Site, room: str, name: str, schema: Any, **body: Any) -> str:
    """Register a job as `root`; returns its full name."""
    body = {"category": "modifiers", "name": name, "schema": schema, **body}
    full_name: str = site.request("PUT", f"rooms/{room}/jobs", "root", json=body)["full_name"]
    return full_name


def open_form(page: Page, room: str, job: str) -> None:
    page.goto(f"/rooms/{room}/?job={job}")
    expect(page.locator(".joblib-form")).to_be_visible()


def shown_json(page: Page) -> Any:
    """The payload that the form would send."""
    area = page.get_by_label("Payload")
    if not area.is_visible():
        page.get_by_text("JSON that is sent").click()
    expect(area).not_to_have_value("")
    return json.loads(area.input_value())


def submit(page: Page) -> None:
    page.get_by_role("button", name="Submit", exact=True).click()


def submitted(page: Page, site: Site) -> dict[str, Any]:
    """The task that the form submitted."""
    link = page.locator(".joblib-outcome a")
    expect(link).to_be_visible()
    address = link.get_attribute("href") or ""
    task: dict[str, Any] = site.request("GET", f"tasks/{address.partition('=')[2]}")
    return task


def test_form_sends_defaults_and_leaves_out_what_nobody_gave(
    page: Page, site: Site, room: str
) -> None:
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    assert shown_json(page) == {
        "angle": 90,
        "seed": 12345678901234567890,
        "note": None,
        "axis": "z",
        "verbose": False,
        "maybe": None,
        "inner": {"weight": 1.5},
        "shape": {"kind": "sphere", "radius": 1},
        "either": 3,
        "tags": ["a", "b"],
        "charges": {"H": 1},
        "day": "2026-01-02",
        "tree": None,
    }


def test_form_submits_what_was_typed_with_digits_of_large_integers(
    page: Page, site: Site, room: str
) -> None:
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    page.get_by_label("Word").fill("hello")
    page.get_by_label("Label").fill("abc")
    page.get_by_label("Axis").select_option(label="x")
    page.get_by_label("Verbose").check()
    page.get_by_role("spinbutton", name="Angle").fill("-45.5")
    page.get_by_role("group", name="Shape").get_by_label("Kind").first.select_option(label="Box")
    page.get_by_role("group", name="Either").get_by_label("Kind").select_option(label="Text")
    page.get_by_role("group", name="Either").get_by_label("Text", exact=True).fill("7")
    tags = page.get_by_role("group", name="Tags")
    tags.get_by_role("button", name="Add an item").click()
    expect(tags.get_by_role("textbox", name="Item 3")).to_be_focused()
    tags.get_by_role("textbox", name="Item 3").fill("c")
    tags.get_by_role("button", name="Move item 3 up").click()
    tags.get_by_role("button", name="Remove item 1").click()
    charges = page.get_by_role("group", name="Charges")
    charges.get_by_role("button", name="Add a name and value").click()
    charges.get_by_role("textbox", name="Name").last.fill("He")
    charges.get_by_role("spinbutton", name="Value").last.fill("2")
    page.get_by_label("Give Tree").check()
    page.get_by_role("group", name="Tree").get_by_role("textbox", name="Name").fill("root")
    submit(page)
    payload = submitted(page, site)["payload"]
    assert payload == {
        "angle": -45.5,
        "seed": 12345678901234567890,
        "word": "hello",
        "note": None,
        "axis": "x",
        "verbose": True,
        "maybe": None,
        "inner": {"label": "abc", "weight": 1.5},
        "shape": {"kind": "box", "edges": [1, 2, 3]},
        "either": "7",
        "tags": ["c", "b"],
        "charges": {"H": 1, "He": 2},
        "day": "2026-01-02",
        "tree": {"name": "root", "children": [], "parent": None},
    }
    # An integer stays one, which JSON.stringify(1.0) keeps.
    assert isinstance(payload["charges"]["He"], int)
    expect(page.get_by_label("Word")).to_have_value("hello")


def test_slider_and_number_move_together(page: Page, site: Site, room: str) -> None:
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    slider = page.get_by_role("slider", name="Angle, slider")
    slider.focus()
    slider.press("Home")
    number = page.get_by_role("spinbutton", name="Angle")
    expect(number).to_have_value("-360")
    number.fill("12")
    assert abs(float(slider.input_value()) - 12) <= 7.2
    assert shown_json(page)["angle"] == 12


def test_a_slider_tells_the_number_beside_it_also_between_two_of_its_steps(
    page: Page, site: Site, room: str
) -> None:
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    slider = page.get_by_role("slider", name="Angle, slider")
    # Of -360 to 360: a hundredth would be 7.2, and 90 no step.
    assert slider.input_value() == "90"
    number = page.get_by_role("spinbutton", name="Angle")
    for text in ("90", "12.5", "-360"):
        number.fill(text)
        expect(slider).to_have_attribute("aria-valuetext", text)
    slider.press("ArrowRight")
    expect(number).to_have_value("-355")
    expect(slider).to_have_attribute("aria-valuetext", "-355")


def test_schemas_of_draft_7_have_forms_too(page: Page, site: Site, room: str) -> None:
    open_form(page, room, register(site, room, "Draft7", kinds.DRAFT_7))
    expect(page.get_by_text("Of the box.")).to_be_visible()
    page.get_by_label("Colour").select_option(label="Red")
    without = {"size": 4, "pair": [1, "one"], "kind": None, "colour": "#f00"}
    assert shown_json(page) == without
    spot = page.get_by_label("Give Spot")
    spot.check()
    page.get_by_role("spinbutton", name="Item 1").last.fill("2.5")
    assert shown_json(page) == {**without, "spot": [2.5]}
    spot.uncheck()
    assert shown_json(page) == without


def test_errors_of_the_server_land_on_their_fields(page: Page, site: Site, room: str) -> None:
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    page.get_by_label("Word").fill("hello")
    page.get_by_label("Label").fill("a")
    page.get_by_role("spinbutton", name="Angle").fill("1000")
    submit(page)
    angle = page.get_by_role("spinbutton", name="Angle")
    expect(angle).to_be_focused()
    expect(angle).to_have_attribute("aria-invalid", "true")
    expect(angle).to_have_accessible_description(re.compile("maximum of 360"))
    expect(page.get_by_label("Label")).to_have_accessible_description(re.compile("shorter than 2"))
    angle.fill("10")
    page.get_by_label("Label").fill("ab")
    submit(page)
    assert submitted(page, site)["payload"]["angle"] == 10
    expect(page.locator("[aria-invalid]")).to_have_count(0)


def test_errors_without_a_field_stand_above_the_form(page: Page, site: Site, room: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "minProperties": 2}
    open_form(page, room, register(site, room, "Two", schema))
    submit(page)
    expect(page.locator(".joblib-problems")).to_contain_text("less than 2 properties")
    expect(page.locator(".joblib-problems")).to_be_focused()


def test_required_fields_are_asked_for_before_a_submit(page: Page, site: Site, room: str) -> None:
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    page.get_by_label("Word").press("Enter")
    expect(page.get_by_label("Word")).to_be_focused()
    expect(page.get_by_label("Word")).to_have_accessible_description("Please give a value.")


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "object", "not": {}}, kinds.MANY, kinds.EXPLOSIVE, kinds.ENDLESS, kinds.deep(15)],
    ids=["any", "no_properties", "many", "explosive", "endless", "deep"],
)
def test_schema_without_a_form_leaves_the_page_fast(
    page: Page, site: Site, room: str, schema: Any
) -> None:
    job = register(site, room, "Odd", schema)
    open_form(page, room, job)
    before = page.evaluate("performance.now()")
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_enabled()
    page.get_by_text("JSON that is sent").click()
    assert page.evaluate("performance.now()") - before < 3000
    assert page.locator(".joblib-form input").count() < 400


def test_payload_can_be_written_as_json(page: Page, site: Site, room: str) -> None:
    open_form(page, room, register(site, room, "Any", {}))
    area = page.get_by_label("Payload")
    area.fill("[1]")
    submit(page)
    expect(area).to_have_accessible_description(re.compile("must be a JSON object"))
    area.fill('{"n": 9007199254740993, "x": 1.5')
    submit(page)
    expect(area).to_have_accessible_description(re.compile("not JSON"))
    area.fill('{"n": 9007199254740993, "x": 1.5}')
    submit(page)
    assert submitted(page, site)["payload"] == {"n": 9007199254740993, "x": 1.5}


def test_edited_json_is_sent_and_comes_back_into_the_fields(
    page: Page, site: Site, room: str
) -> None:
    open_form(page, room, register(site, room, "Draft7", kinds.DRAFT_7))
    shown_json(page)
    page.get_by_label("Payload").fill('{"size": 9, "other": [1]}')
    expect(page.get_by_label("Size")).to_be_disabled()
    page.get_by_role("button", name="Back to the fields").click()
    expect(page.get_by_label("Size")).to_have_value("9")
    assert shown_json(page)["other"] == [1]
    submit(page)
    assert submitted(page, site)["payload"]["other"] == [1]


def test_texts_of_schemas_are_never_markup(page: Page, site: Site, room: str) -> None:
    page.add_init_script("window.hacks = 0; window.hacked = () => { window.hacks += 1; };")
    job = register(site, room, "Hostile", kinds.HOSTILE)
    open_form(page, room, job)
    page.get_by_label("Give ToString").check()
    payload = shown_json(page)
    assert payload[kinds.MARKUP] == kinds.MARKUP
    assert payload["__proto__"] == 1
    assert payload["a/b~c"] == "&lt;"
    submit(page)
    assert submitted(page, site)["payload"] == payload
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacks") == 0
    assert page.locator(".joblib-form :is(img, script, a[href^=javascript], b, svg)").count() == 0


def test_repeated_submit_after_a_lost_answer_makes_one_task(
    page: Page, site: Site, room: str, faults: Any
) -> None:
    faults.allow("Failed to load resource: net::ERR_FAILED")
    job = register(site, room, "Draft7", kinds.DRAFT_7)
    open_form(page, room, job)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/tasks/*", lose, times=1)
    submit(page)
    expect(page.locator(".joblib-problems")).to_contain_text("no second task")
    submit(page)
    submitted(page, site)
    assert len(site.request("GET", f"rooms/{room}/tasks")) == 1


def test_second_click_while_sending_submits_nothing(page: Page, site: Site, room: str) -> None:
    job = register(site, room, "Draft7", kinds.DRAFT_7)
    open_form(page, room, job)
    page.get_by_role("button", name="Submit", exact=True).dblclick()
    submitted(page, site)
    assert len(site.request("GET", f"rooms/{room}/tasks")) == 1


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {"Retry-After": "7"}, "try again in 7 s"),
        (413, {}, "too large"),
        (401, {}, "signed out"),
        (403, {}, "not today"),
        (409, {}, "not today"),
        (404, {}, "not offered any more"),
        (503, {}, "no second task"),
    ],
)
def test_refusals_are_told_in_words(
    page: Page,
    site: Site,
    room: str,
    faults: Any,
    status: int,
    headers: dict[str, str],
    words: str,
) -> None:
    faults.allow("Failed to load resource")
    open_form(page, room, register(site, room, "Draft7", kinds.DRAFT_7))
    problem = json.dumps({"type": "/x", "title": "No", "detail": "not today", "status": status})
    headers = {"Content-Type": "application/problem+json", **headers}
    page.route(
        re.compile("/tasks/[^/]*Draft7"),
        lambda route: route.fulfill(status=status, headers=headers, body=problem),
    )
    submit(page)
    expect(page.locator(".joblib-problems")).to_contain_text(words)


def test_options_go_with_the_submit(page: Page, site: Site, room: str) -> None:
    open_form(page, room, register(site, room, "Draft7", kinds.DRAFT_7))
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Retries").fill("2")
    page.get_by_label("Not before").fill("2030-01-02T03:04:05")
    page.get_by_label("Time limit").fill("60")
    submit(page)
    task = submitted(page, site)
    assert (task["retries_left"], task["timeout_seconds"]) == (2, 60)
    assert task["run_at"].startswith("2030-01-0")
    page.get_by_label("Delay").fill("5")
    submit(page)
    expect(page.get_by_label("Delay")).to_have_accessible_description(re.compile("run_at"))


def test_chosen_job_is_in_the_address_and_the_back_button_works(
    page: Page, site: Site, room: str
) -> None:
    register(site, room, "One", kinds.DRAFT_7)
    page.goto(f"/rooms/{room}/")
    page.get_by_role("link", name="One").click()
    expect(page).to_have_url(re.compile(f"job={room}%3Amodifiers%3AOne"))
    expect(page.get_by_role("heading", name="modifiers: One")).to_be_focused()
    page.get_by_label("Size").fill("66")
    page.get_by_role("link", name="Steps").click()
    expect(page.get_by_role("heading", name="analysis: Steps")).to_be_focused()
    page.go_back()
    expect(page.get_by_role("heading", name="modifiers: One")).to_be_visible()
    # The typed text is still there.
    expect(page.get_by_label("Size")).to_have_value("66")
    submit(page)
    task = submitted(page, site)
    page.locator(".joblib-outcome a").click()
    expect(page).to_have_url(re.compile(f"job={room}%3Amodifiers%3AOne&task={task['id']}"))


def test_form_of_the_only_job_stays_when_a_task_is_opened(
    page: Page, site: Site, room: str
) -> None:
    job = register(site, room, "Only", kinds.DRAFT_7)
    only = [each for each in site.request("GET", f"rooms/{room}/jobs") if each["full_name"] == job]
    page.route(f"**/rooms/{room}/jobs?*", lambda route: route.fulfill(json=only))
    page.goto(f"/rooms/{room}/")
    page.get_by_label("Size").fill("55")
    submit(page)
    page.locator(".joblib-outcome a").click()
    expect(page.get_by_role("button", name="All tasks")).to_be_visible()
    expect(page.get_by_label("Size")).to_have_value("55")


def test_job_that_retires_while_the_list_is_read_is_not_listed(
    page: Page, site: Site, room: str
) -> None:
    job = register(site, room, "Gone", kinds.DRAFT_7)
    sockets = []

    def serve(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.send(json.dumps({"type": "ready", "cursor": "c"}))

    def answer_late(route: Route) -> None:
        answer = route.fetch()
        for socket in sockets:
            retired = {"type": "job_retired", "cursor": "d", "job": {"full_name": job}}
            socket.send(json.dumps(retired))
        route.fulfill(response=answer)

    page.route_web_socket("**/events/*", serve)
    page.route(f"**/rooms/{room}/jobs?limit=500", answer_late)
    with page.expect_response(f"**/rooms/{room}/jobs?limit=500"):
        page.goto(f"/rooms/{room}/")
    expect(page.get_by_role("link", name="Steps")).to_be_visible()
    expect(page.get_by_role("link", name="Gone")).to_have_count(0)
    page.wait_for_timeout(300)
    expect(page.get_by_role("link", name="Gone")).to_have_count(0)


def test_job_without_parameters_says_so_and_is_submitted(page: Page, site: Site, room: str) -> None:
    schema = {"type": "object", "properties": {}, "title": "Ping"}
    open_form(page, room, register(site, room, "Ping", schema))
    expect(page.get_by_text("This job has no parameters.")).to_be_visible()
    submit(page)
    assert submitted(page, site)["payload"] == {}


def test_form_says_that_the_page_is_offline(page: Page, site: Site, room: str, faults: Any) -> None:
    faults.allow("ERR_INTERNET_DISCONNECTED")
    open_form(page, room, register(site, room, "Draft7", kinds.DRAFT_7))
    page.context.set_offline(True)
    submit(page)
    expect(page.locator(".joblib-problems")).to_contain_text("You are offline")
    page.context.set_offline(False)
    submit(page)
    submitted(page, site)


def test_search_finds_jobs_by_name_and_category(page: Page, site: Site, room: str) -> None:
    page.goto(f"/rooms/{room}/")
    expect(page.get_by_role("link", name="Rotate @global")).to_be_visible()
    page.get_by_label("Search jobs").fill("steps")
    expect(page.get_by_role("link", name="Rotate @global")).to_have_count(0)
    expect(page.get_by_role("link", name="Steps")).to_be_visible()
    page.get_by_label("Search jobs").fill("zzz")
    expect(page.get_by_text("No job matches")).to_be_visible()
    page.get_by_label("Search jobs").press("Escape")
    expect(page.get_by_role("link", name="Rotate @global")).to_be_visible()


def test_form_stays_when_its_job_is_retired(page: Page, site: Site, room: str) -> None:
    job = register(site, room, "Gone", kinds.DRAFT_7)
    open_form(page, room, job)
    page.get_by_label("Size").fill("77")
    site.request("DELETE", f"rooms/{room}/jobs/{job}", "root")
    expect(page.get_by_text("not offered any more")).to_be_visible(timeout=20_000)
    expect(page.get_by_label("Size")).to_have_value("77")
    expect(page.get_by_role("link", name="Gone")).to_have_count(0)


def test_durable_job_without_workers_says_so_and_can_be_submitted(
    page: Page, site: Site, room: str
) -> None:
    job = register(site, room, "Later", kinds.DRAFT_7, durable=True)
    # The default worker of `root`, who registered it.
    identity = httpx.get(
        f"{site}/v1/me", headers={"Authorization": f"Token {site.tokens['root']}"}
    ).json()["id"]
    site.request("DELETE", f"workers/{identity}/jobs/{job}", "root")
    open_form(page, room, job)
    expect(page.get_by_text("No worker offers this job")).to_be_visible()
    submit(page)
    assert submitted(page, site)["status"] == "pending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{}, PHONE], ids=["desktop", "phone"])
def test_form_is_accessible_and_fits(
    open_page: Any, site: Site, room: str, scheme: str, size: dict[str, Any]
) -> None:
    page = open_page(color_scheme=scheme, **size)
    open_form(page, room, register(site, room, "Everything", kinds.EVERYTHING))
    page.get_by_text("Options", exact=True).click()
    shown_json(page)
    page.get_by_label("Give Tree").check()
    submit(page)
    assert accessibility_faults(page) == []
    assert not scrolls_sideways(page)


def test_long_words_of_schemas_do_not_widen_a_phone(open_page: Any, site: Site, room: str) -> None:
    page = open_page(**PHONE)
    word = "w" * 300
    schema = {
        "type": "object",
        "description": word,
        "properties": {
            word: {"type": "object", "title": word, "properties": {"a": {"enum": [word]}}},
            "list": {"type": "array", "title": word, "default": [word], "items": {"const": word}},
        },
        "required": [word],
    }
    open_form(page, room, register(site, room, "W" * 100, schema))
    assert not scrolls_sideways(page)


def test_form_is_filled_and_submitted_by_keyboard_alone(page: Page, site: Site, room: str) -> None:
    register(site, room, "Keys", kinds.DRAFT_7)
    page.goto(f"/rooms/{room}/")
    link = page.get_by_role("link", name="Keys")
    expect(link).to_be_visible()
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("each => each === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="modifiers: Keys")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    assert submitted(page, site)["payload"]["size"] == 3
