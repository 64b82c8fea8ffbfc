"""The page of a task that has not ended, which refreshes its log, status and progress."""

from __future__ import annotations

import html
import json
import re

import pytest
from django.utils import timezone

from zndraw_joblib.models import Job, Task, TaskLogChunk

pytestmark = pytest.mark.django_db

TASKS = "/admin/zndraw_joblib/task/"


@pytest.fixture
def running(db):
    """A running task with a log of 20,000 bytes in UTF-8."""
    job = Job.objects.create(room_id="open", category="modifiers", name="Rotate", schema={})
    task = Task.objects.create(
        job=job, room_id="open", payload={}, status="running", progress=0.5, message="half"
    )
    for start in (0, 8000, 16000):
        write(task, "ü" * (4000 if start < 16000 else 2000))
    return task


def write(task, text):
    task.refresh_from_db()
    TaskLogChunk.objects.create(task=task, start=task.log_size, text=text)
    Task.objects.filter(pk=task.pk).update(log_size=task.log_size + len(text.encode()))


def detail(client, task):
    answer = client.get(f"{TASKS}{task.pk}/change/")
    assert answer.status_code == 200
    return answer.content.decode()


def growing(shown):
    """The address and the offset from which the page asks for more of the log."""
    (found,) = re.findall(r'<pre class="joblib-text joblib-growing".*?>', shown, re.DOTALL)
    return re.search('data-url="([^"]+)" data-offset="([^"]+)"', found).groups()


def test_text_that_is_written_after_the_page_was_made_follows_without_a_gap(admin, running):
    shown = detail(admin, running)
    assert shown.count("ü") == 10_000
    url, offset = growing(shown)
    assert offset == "20000"
    write(running, "more\n")
    state = admin.get(url, {"offset": offset}).json()
    assert state == {
        "status": "running",
        "label": "running",
        "progress": 0.5,
        "message": "half",
        "text": "more\n",
        "cut": False,
        "next_offset": 20_005,
        "ended": False,
    }
    again = admin.get(url, {"offset": state["next_offset"]})
    assert again.json()["text"] == ""
    assert "no-store" in again["Cache-Control"]


def test_the_last_answer_has_the_end_of_the_log_and_says_that_the_task_ended(admin, running):
    url, offset = growing(detail(admin, running))
    write(running, "last")
    Task.objects.update(status="failed", completed_at=timezone.now())
    state = admin.get(url, {"offset": offset}).json()
    assert (state["status"], state["text"], state["ended"]) == ("failed", "last", True)
    assert "joblib-growing" not in detail(admin, running)


def test_a_log_of_which_the_beginning_was_cut_says_so(admin, running):
    url, _ = growing(detail(admin, running))
    TaskLogChunk.objects.filter(start=0).delete()
    state = admin.get(url, {"offset": 0}).json()
    assert (state["cut"], state["next_offset"], len(state["text"])) == (True, 20_000, 6000)


def test_a_task_that_logged_nothing_yet_begins_at_offset_0(admin, running):
    TaskLogChunk.objects.all().delete()
    Task.objects.update(log_size=0, status="pending")
    assert growing(detail(admin, running))[1] == "0"


def test_the_texts_of_the_module_are_in_the_page_as_json(admin, running):
    (texts,) = re.findall('data-texts="([^"]+)"', detail(admin, running))
    assert set(json.loads(html.unescape(texts))) == {"live", "ended", "offline", "refused", "cut"}
    assert re.search(r'<script[^>]+src="[^"]+admin_task.js" type="module"', detail(admin, running))


@pytest.mark.parametrize("offset", ["", "abc", "1.5", "٣x"])
def test_an_offset_that_is_no_number_is_refused(admin, running, offset):
    assert admin.get(growing(detail(admin, running))[0], {"offset": offset}).status_code == 400


@pytest.mark.parametrize("offset", ["-5", "9" * 30, "20001"])
def test_an_offset_out_of_range_is_answered(admin, running, offset):
    assert admin.get(growing(detail(admin, running))[0], {"offset": offset}).status_code == 200


def test_the_state_needs_the_permission_to_view_tasks(client, people, running):
    url = f"{TASKS}{running.pk}/live?offset=0"
    assert client.get(url).status_code == 302
    client.force_login(people("staff", is_staff=True).user)
    assert client.get(url).status_code == 403


def test_an_unknown_task_has_no_state(admin):
    url = f"{TASKS}01a218d9-5837-7700-b322-44ec5840b26d/live?offset=0"
    assert admin.get(url).status_code == 404
