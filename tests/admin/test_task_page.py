"""The page of a task in the admin: its result, log, files and attempts, and the names of people."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html import escape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.plans import copy_task
from zndraw_joblib.access import identity_labels
from zndraw_joblib.models import Job, Task, TaskAttempt, TaskFile, TaskLogChunk

pytestmark = pytest.mark.django_db

TASKS = "/admin/zndraw_joblib/task/"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def job(db):
    return Job.objects.create(room_id="open", category="modifiers", name="Rotate", schema={})


@pytest.fixture
def make(job):
    """A function that makes a completed task."""

    def make(**values):
        known = {"status": "completed", "completed_at": timezone.now(), "created_by": "nobody"}
        return Task.objects.create(job=job, room_id="open", **({"payload": {}} | known | values))

    return make


def page(client, url):
    answer = client.get(url)
    assert answer.status_code == 200, answer
    return answer.content.decode()


def detail(client, task):
    return page(client, f"{TASKS}{task.pk}/change/")


def test_the_page_shows_result_progress_message_retries_and_times(admin, make):
    task = make(
        result={"energy": -1.5, "name": "Wasser"},
        progress=0.42,
        message="step 42",
        retries=7,
        retries_left=6,
        timeout_seconds=90,
        run_at=timezone.now(),
    )
    shown = detail(admin, task)
    for text in (
        escape('{\n  "energy": -1.5,\n  "name": "Wasser"\n}'),
        '<progress max="100" value="42"></progress> 42&nbsp;%',
        "step 42",
        "Retries left",
        "Run at",
        "90",
    ):
        assert text in shown, text


def test_text_of_workers_and_submitters_is_escaped(admin, make):
    task = make(
        result=[HOSTILE],
        message=HOSTILE,
        error=HOSTILE,
        log_size=len(HOSTILE),
        worker_id=HOSTILE,
        worker_identity=HOSTILE,
        created_by=HOSTILE,
        attempt=2,
    )
    TaskLogChunk.objects.create(task=task, start=0, text=HOSTILE)
    TaskAttempt.objects.create(
        task=task, attempt=1, outcome="lost", worker_id=HOSTILE, error=HOSTILE
    )
    TaskFile.objects.create(
        task=task, attempt=1, name=f'{HOSTILE}"', size=1, content_type=HOSTILE, path="a"
    )
    for shown in (detail(admin, task), page(admin, TASKS)):
        assert "<script>alert" not in shown
        assert escape(HOSTILE) in shown
    # Result, message, error, log, three identities, two attempts with an error each, and a file.
    assert detail(admin, task).count(escape(HOSTILE)) >= 12


@pytest.mark.parametrize("address", ["", "{pk}/change/"])
def test_pages_have_no_style_or_script_that_a_content_security_policy_forbids(admin, make, address):
    task = make(result=1, progress=0.5, log_size=1)
    TaskLogChunk.objects.create(task=task, start=0, text="a")
    shown = page(admin, TASKS + address.format(pk=task.pk))
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", shown)
    assert not re.search(r"<script(?![^>]*\ssrc=)(?![^>]*application/json)", shown)


@pytest.mark.parametrize(
    ("field", "name"), [("result", "result.json"), ("payload", "payload.json")]
)
def test_long_json_is_cut_with_a_link_to_the_whole(admin, make, field, name):
    value = {"z": "ü" * 40_000, "a": [2**80, -0.0]}
    short, long = make(), make(**{field: value})
    link = f"{TASKS}{long.pk}/download/{name}"
    assert f"{TASKS}{short.pk}/download/{name}" not in detail(admin, short)
    shown = detail(admin, long)
    assert f'href="{link}"' in shown
    assert 32_000 < shown.count("ü") <= 32_768
    answer = admin.get(link)
    assert answer.content.decode() == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert answer["Content-Type"] == "application/json"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Disposition"] == f'attachment; filename="{long.pk}-{name}"'


def test_a_result_without_a_value_is_a_dash_and_downloads_as_null(admin, make):
    task = make()
    assert re.search(r"Result:.*?<div class=\"readonly\">-</div>", detail(admin, task), re.DOTALL)
    assert admin.get(f"{TASKS}{task.pk}/download/result.json").content == b"null"


def test_the_page_shows_the_last_64_kb_of_a_log_and_links_to_all_of_it(admin, make):
    texts = ["first line\n", *(f"{number} " + "ß" * 15_000 for number in range(4)), "last line"]
    start = 0
    task = make()
    for text in texts:
        TaskLogChunk.objects.create(task=task, start=start, text=text)
        start += len(text.encode())
    Task.objects.update(log_size=start)
    shown = detail(admin, task)
    assert "last line" in shown
    assert "first line" not in shown
    assert 32_000 < shown.count("ß") <= 32_768
    link = f"{TASKS}{task.pk}/download/log.txt"
    assert link in shown
    answer = admin.get(link)
    assert answer.content.decode() == "".join(texts)
    assert answer["Content-Type"] == "text/plain; charset=utf-8"


def test_the_page_lists_every_attempt_with_its_outcome(admin, make):
    task = make(status="failed", attempt=3, worker_id="third", error="too hot")
    for number, outcome, worker in ((1, "requeued", "first"), (2, "lost", "second")):
        TaskAttempt.objects.create(task=task, attempt=number, outcome=outcome, worker_id=worker)
    (table,) = re.findall(r"<table><thead>.*?</table>", detail(admin, task), re.DOTALL)
    rows = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr>")[2:]]
    assert [(row[0], row[1], row[5]) for row in rows] == [
        ("1", "first", "requeued"),
        ("2", "second", "lost"),
        ("3", "third", "failed"),
    ]
    assert "too hot" in rows[2][6]


def test_the_page_lists_files_by_name_size_and_attempt(admin, make):
    task = make()
    for attempt, name in ((1, "a.xyz"), (2, "a.xyz"), (1, "b.xyz")):
        TaskFile.objects.create(
            task=task, attempt=attempt, name=name, size=2048, content_type="text/x", path="p"
        )
    shown = detail(admin, task)
    assert shown.count("2.0\xa0KB") == 3
    # A link leads to the latest attempt's file, so the first attempt's has none.
    assert shown.count("a.xyz</td>") == 1
    for name in ("a.xyz", "b.xyz"):
        link = f"/v1/joblib/tasks/{task.pk}/files/{name}"
        assert f'<a href="{link}">{name}</a>' in shown


def test_the_page_lists_the_latest_100_of_many_attempts_and_files(admin, make):
    """A task that no worker starts gets an attempt at each claim, without an end."""
    task = make(attempt=130, status="cancelled")
    TaskAttempt.objects.bulk_create(
        TaskAttempt(task=task, attempt=number, outcome="requeued", worker_id=f"worker-{number}-")
        for number in range(1, 130)
    )
    TaskFile.objects.bulk_create(
        TaskFile(
            task=task, attempt=number, name=f"{number}.x", size=1, content_type="a/b", path="p"
        )
        for number in range(1, 121)
    )
    shown = detail(admin, task)
    assert {int(n) for n in re.findall(r"worker-(\d+)-", shown)} == {*range(31, 130)}
    assert {int(n) for n in re.findall(r">(\d+)\.x</a>", shown)} == {*range(21, 121)}
    assert "<p>and 30 more</p>" in shown
    assert "<p>and 20 more</p>" in shown


def test_a_retry_and_the_task_that_it_repeats_link_to_each_other(admin, make):
    first = make()
    retries = [make(retry_of=first) for _ in range(2)]
    for retry in retries:
        assert f'href="{TASKS}{retry.pk}/change/"' in detail(admin, first)
        assert f'href="{TASKS}{first.pk}/change/"' in detail(admin, retry)


def test_downloads_need_the_permission_to_view_tasks(client, people, make):
    task = make(result=1)
    link = f"{TASKS}{task.pk}/download/result.json"
    assert client.get(link).status_code == 302
    client.force_login(people("staff", is_staff=True).user)
    assert client.get(link).status_code == 403


@pytest.mark.parametrize(
    "path", ["{pk}/download/result", "{pk}/download/..", "{other}/download/log.txt"]
)
def test_an_unknown_download_is_404(admin, make, path):
    task = make()
    other = "01a218d9-5837-7700-b322-44ec5840b26d"
    assert admin.get(TASKS + path.format(pk=task.pk, other=other)).status_code in {302, 404}
    assert admin.get(TASKS + path.format(pk=task.pk, other=other), follow=True).status_code != 500


def test_the_page_of_a_job_shows_its_retries_and_whether_it_is_durable(admin, job):
    address = f"/admin/zndraw_joblib/job/{job.pk}/change/"
    assert "icon-no" in page(admin, address)
    Job.objects.update(max_retries=3, backoff_seconds=2.5, durable=True)
    shown = page(admin, address)
    assert "3, after 2.5 s, then 2 times as long each, at most 600 s" in shown
    assert "icon-yes" in shown
    assert "Rotate" in page(admin, "/admin/zndraw_joblib/job/?durable__exact=1")


def test_a_users_key_is_shown_with_the_name_of_the_user(admin, make, alice, bob):
    task = make(created_by=alice.identity, worker_identity=bob.identity, worker_id=bob.identity)
    assert f'<span title="{alice.identity}">alice</span>' in page(admin, TASKS)
    shown = detail(admin, task)
    assert f"alice ({alice.identity})" in shown
    assert shown.count(f"bob ({bob.identity})") == 2
    bob.worker()
    assert f'<span title="{bob.identity}">bob</span>' in page(admin, "/admin/zndraw_joblib/worker/")


def test_the_page_shows_the_trace_context_and_the_seconds_of_each_attempt(admin, make):
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067cc0c0902c7-01"
    moment = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
    task = make(attempt=2, claimed_at=moment + timedelta(seconds=5), traceparent=traceparent)
    TaskAttempt.objects.create(
        task=task, attempt=1, worker_id="w", claimed_at=moment, ended_at=moment, outcome="lost"
    )
    shown = detail(admin, task)
    assert traceparent in shown
    assert "2026-03-04 05:06:07" in shown
    assert "2026-03-04 05:06:12" in shown


def test_the_names_of_a_page_take_one_query(admin, make, people):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            page(admin, TASKS)
        return len(captured)

    make(created_by=people("one").identity)
    before = queries()
    for number in range(5):
        make(created_by=people(f"person-{number}").identity)
    assert queries() == before


def test_identities_that_are_no_keys_of_users_have_no_name(alice):
    strange = ["", "abc", "-1", "1.5", "9" * 40, "9" * 9, " 1", "0x1", "None", "\u0663"]
    assert identity_labels([*strange, alice.identity]) == {alice.identity: "alice"}


def by_length(identity):
    return "" if identity == "unknown" else f"{HOSTILE}{len(identity)}"


def test_a_hook_of_the_site_names_identities(admin, make, settings_of, alice):
    settings_of(identity_label=f"{__name__}.by_length")
    for identity in ("unknown", "subject-1", alice.identity):
        make(created_by=identity)
    shown = page(admin, TASKS)
    assert f'<span title="subject-1">{escape(HOSTILE)}9</span>' in shown
    assert ">unknown<" in shown
    assert "alice" not in shown
    assert HOSTILE not in shown


def test_the_list_can_be_filtered_by_submitter_and_by_status(admin, make):
    make(created_by="5")
    make(created_by="6", status="cancelled")
    for query, count in (
        ("?created_by=5", 1),
        ("?status__exact=cancelled", 1),
        ("?status__exact=failed", 0),
        ("?status__exact=cancelled&created_by=5", 0),
    ):
        assert page(admin, TASKS + query).count('class="action-select"') == count, query


@pytest.mark.skipif("connection.vendor == 'sqlite'")
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "pending", "claimed"])
def test_a_rare_status_is_found_by_an_index(admin, job, status):
    """Control: without the filter's second condition, counting cancelled tasks reads the table."""
    common = "completed" if status == "pending" else "pending"
    Task.objects.create(
        job=job, room_id="open", payload={}, status=common, completed_at=timezone.now()
    )
    copy_task(2000, common)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE zndraw_joblib_task")
        with CaptureQueriesContext(connection) as captured:
            page(admin, f"{TASKS}?status__exact={status}")
        sent = [q["sql"] for q in captured if 'FROM "zndraw_joblib_task"' in q["sql"]]
        assert sent
        for sql in sent:
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Seq Scan on zndraw_joblib_task" not in plan, plan


def test_the_list_does_not_read_payloads_and_results(admin, make):
    make(result=1)
    with CaptureQueriesContext(connection) as captured:
        page(admin, TASKS)
    columns = ('"zndraw_joblib_task"."payload"', '"zndraw_joblib_task"."result"')
    assert not [q for q in captured if any(column in q["sql"] for column in columns)]
