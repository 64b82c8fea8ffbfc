"""GET tasks: an identity's tasks over all rooms; and `?include=result` of all lists of tasks."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import pytest

from tests.factories import ROTATE, V1, problem
from zndraw_joblib.models import Task
from zndraw_joblib.storage import lists

ROTATES = "open:modifiers:Rotate"


@pytest.fixture(autouse=True)
def jobs(bob, root):
    for room in ("open", "open2", "lab"):
        bob.register(room)
    bob.register(name="Other")
    root.register("@global", name="Global")


def submit(person, room="open", job=None):
    return person.submit(room, job or f"{room}:{ROTATE}").json()["id"]


def next_page(answer):
    link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
    if not link:
        return None
    parts = urlsplit(link[1])
    return f"{parts.path.removeprefix(V1)}?{parts.query}"


def listed(person, query="", pages=False):
    """The ids of all pages of a list; with `pages` those of each page."""
    found, path = [], f"/tasks{query}"
    while path:
        answer = person.get(path)
        assert answer.status_code == 200, answer.content
        found.append([task["id"] for task in answer.json()])
        path = next_page(answer)
    return found if pages else [task for page in found for task in page]


def test_a_caller_lists_its_own_tasks_of_all_rooms_newest_first(alice, carol):
    tasks = [submit(alice), submit(alice, "lab"), submit(alice, "open2")]
    submit(carol)
    tasks.append(submit(alice, "open", "@global:modifiers:Global"))
    alice.report(tasks[0], "cancelled")
    for query in ("", "?created_by=me", f"?created_by={alice.identity}"):
        assert listed(alice, query) == tasks[::-1]


def test_a_listed_task_is_that_of_the_list_of_its_room(alice):
    submit(alice)
    (task,) = alice.get("/tasks").json()
    assert [task] == alice.get("/rooms/open/tasks").json()
    assert task["queue_position"] == 1
    assert "result" not in task


def test_an_administrator_lists_all_tasks_or_those_of_any_identity(root, alice, carol):
    of_alice, of_carol, own = submit(alice), submit(carol, "lab"), submit(root)
    assert listed(root) == [own, of_carol, of_alice]
    assert listed(root, "?created_by=me") == [own]
    assert listed(root, f"?created_by={carol.identity}") == [of_carol]
    assert listed(root, "?created_by=nobody") == []


@pytest.mark.parametrize("status", ["", "&status=pending"])
def test_the_tasks_of_another_identity_are_for_administrators(alice, carol, status):
    submit(carol)
    for identity in (carol.identity, "nobody"):
        problem(alice.get(f"/tasks?created_by={identity}{status}"), "forbidden", 403)


@pytest.mark.parametrize("admin", [False, True])
def test_filters_narrow_the_list(alice, root, admin):
    person = root if admin else alice
    rotate, other = submit(person), submit(person, job="open:modifiers:Other")
    lab, of_global = submit(person, "lab"), submit(person, "open", "@global:modifiers:Global")
    in_lab = submit(person, "lab", "@global:modifiers:Global")
    for task in (rotate, in_lab):
        person.report(task, "cancelled")
    expected = {
        "status=cancelled": [in_lab, rotate],
        "status=pending": [of_global, lab, other],
        "status=failed": [],
        "room=open": [of_global, other, rotate],
        "room=lab": [in_lab, lab],
        "room=open2": [],
        "room=unknown": [],
        f"job={ROTATES}": [rotate],
        "job=@global:modifiers:Global": [in_lab, of_global],
        "job=open:modifiers:Unknown": [],
        "room=lab&job=@global:modifiers:Global": [in_lab],
        f"room=lab&job={ROTATES}": [],
        f"job={ROTATES}&status=pending": [],
        "room=open&status=cancelled": [rotate],
        "room=lab&job=@global:modifiers:Global&status=cancelled": [in_lab],
    }
    for query, tasks in expected.items():
        assert listed(person, f"?{query}") == tasks, query
        if admin:
            assert listed(person, f"?{query}&created_by=me") == tasks, query
        for limit in (1, 2):
            assert listed(person, f"?{query}&limit={limit}") == tasks, (query, limit)


def test_rooms_and_jobs_are_found_in_any_form_of_unicode(alice, bob):
    bob.register("Größe")
    task = submit(alice, "Größe")
    other_form = quote("Gro\u0308ße")
    assert listed(alice, f"?room={other_form}") == [task]
    assert listed(alice, f"?job={other_form}:modifiers:Rotate") == [task]


@pytest.mark.parametrize("admin", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 500])
def test_pages_follow_each_other_without_gaps(alice, root, limit, admin):
    person = root if admin else alice
    tasks = [submit(person, room) for room in ("open", "lab", "open", "open2", "lab")]
    person.report(tasks[2], "cancelled")
    pages = listed(person, f"?limit={limit}", pages=True)
    assert [task for page in pages for task in page] == tasks[::-1]
    assert [len(page) for page in pages] == [min(limit, 5 - start) for start in range(0, 5, limit)]


@pytest.mark.parametrize("admin", [False, True])
def test_tasks_of_the_same_time_are_listed_once_each(alice, root, admin):
    person = root if admin else alice
    tasks = {submit(person, room) for room in ("open", "lab", "open")}
    Task.objects.update(created_at="2026-01-01T00:00:00Z")
    assert sorted(listed(person, "?limit=1")) == sorted(tasks)


@pytest.mark.parametrize("admin", [False, True])
def test_a_filter_that_few_tasks_satisfy_gives_short_pages_with_a_link(
    alice, root, monkeypatch, admin
):
    monkeypatch.setattr(lists, "MAX_READ", 3)
    person = root if admin else alice
    job = "@global:modifiers:Global"
    oldest = submit(person, "lab", job)
    for _ in range(6):
        submit(person)
    newest = submit(person, "lab", job)
    pages = listed(person, f"?job={job}&limit=2", pages=True)
    assert [task for page in pages for task in page] == [newest, oldest]
    # Eight tasks by three.
    assert len(pages) == 3


def test_tasks_of_rooms_that_the_caller_may_not_read_are_left_out(alice, bob, settings_of):
    tasks = [submit(alice, room) for room in ("open", "lab", "open2", "lab", "lab")]
    bob.claim()
    settings_of(room_access="tests.api.test_task_lists.not_in_the_lab")
    asked.clear()
    assert listed(alice) == [tasks[2], tasks[0]]
    assert sorted(asked) == ["lab", "open", "open2"]
    assert listed(alice, "?room=lab") == []
    # A page without entries keeps its link.
    assert listed(alice, "?limit=2", pages=True) == [[], [tasks[2]], [tasks[0]]]


def test_the_worker_of_a_task_sees_it_without_access_to_its_room(bob, settings_of):
    task = submit(bob, "lab")
    bob.claim()
    submit(bob, "lab")
    settings_of(room_access="tests.api.test_task_lists.not_in_the_lab")
    assert listed(bob) == [task]


asked: list[str] = []


def not_in_the_lab(request, room_id, action):
    asked.append(room_id)
    return room_id != "lab"


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=lost", "/status"),
        ("status=", "/status"),
        ("include=log", "/include"),
        ("include=", "/include"),
        ("include=result,result", "/include"),
        ("created_by=", "/created_by"),
        ("created_by=%00", "/created_by"),
        ("job=", "/job"),
        ("job=nonsense", "/job"),
        ("job=a%00:b:c", "/job"),
        ("room=", "/room"),
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("cursor=x", "/cursor"),
        ("offset=1", "/offset"),
        ("user=me", "/user"),
        ("status=failed&status=failed", "/status"),
    ],
)
def test_invalid_parameters_are_refused(alice, root, query, pointer):
    for person in (alice, root):
        document = problem(person.get(f"/tasks?{query}"), "validation-error", 400)
        assert [error["pointer"] for error in document["errors"]] == [pointer]


@pytest.mark.any_database
@pytest.mark.parametrize("room", ["a:b", "@internal", "%01", "x" * 129])
def test_an_invalid_room_is_refused(alice, root, room):
    for person in (alice, root):
        problem(person.get(f"/tasks?room={room}"), "invalid-room-id", 400)


def test_an_identity_of_any_length_is_looked_up(root):
    assert listed(root, f"?created_by={'x' * 5000}") == []
    assert listed(root, "?created_by=%ED%A0%80") == []


@pytest.mark.parametrize(
    "path", ["/tasks", "/rooms/open/tasks", f"/rooms/open/jobs/{ROTATES}/tasks"]
)
@pytest.mark.parametrize("query", ["", "&status=completed"])
def test_lists_have_results_on_request(alice, bob, path, query):
    task = submit(alice)
    bob.claim()
    bob.report(task, "running")
    bob.report(task, "completed", result={"energy": [1.5, None]})
    (short,) = alice.get(f"{path}?limit=5{query}").json()
    assert "result" not in short
    (full,) = alice.get(f"{path}?include=result{query}").json()
    assert full == {**short, "result": {"energy": [1.5, None]}}
    problem(alice.get(f"{path}?include=payload"), "validation-error", 400)


def test_the_link_of_a_page_keeps_its_parameters(alice):
    for _ in range(3):
        submit(alice)
    answer = alice.get(f"/tasks?limit=1&include=result&status=pending&room=open&job={ROTATES}")
    following = alice.get(next_page(answer)).json()
    assert len(following) == 1
    assert "result" in following[0]


@pytest.mark.parametrize(
    "path", ["/tasks", "/rooms/open/tasks", f"/rooms/open/jobs/{ROTATES}/tasks"]
)
@pytest.mark.parametrize("admin", [False, True])
def test_a_page_ends_early_where_its_results_are_large(alice, bob, root, path, admin, monkeypatch):
    """Control: one page of every task, whatever the size of their results."""
    monkeypatch.setattr(lists, "MAX_RESULT_BYTES", 100)
    tasks = []
    # In bytes with the quotes; the one of a pending task is null.
    for size in (60, 40, None, 300, 20, 1):
        tasks.append(submit(alice))
        if size is not None:
            bob.claim()
            bob.report(tasks[-1], "running")
            bob.report(tasks[-1], "completed", result="é" * (size // 2))
        else:
            alice.report(tasks[-1], "cancelled")
    person = root if admin else alice
    for query, expected in (
        ("?include=result", [[5, 4], [3], [2, 1], [0]]),
        ("?include=result&limit=1", [[5], [4], [3], [2], [1], [0]]),
        ("?include=result&status=completed", [[5, 4], [3], [1], [0]]),
        ("?limit=4", [[5, 4, 3, 2], [1, 0]]),
    ):
        pages, following = [], path + query
        while following:
            answer = person.get(following)
            pages.append([tasks.index(task["id"]) for task in answer.json()])
            following = next_page(answer)
        assert pages == expected, query
