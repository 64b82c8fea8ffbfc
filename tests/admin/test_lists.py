"""The lists of the admin: narrow columns, tasks that workers hold, the page of a job."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.plans import copy_task
from zndraw_joblib.admin.formats import duration, short_id
from zndraw_joblib.models import Job, Task, Worker, WorkerJobLink
from zndraw_joblib.storage.ids import new_ids

pytestmark = pytest.mark.django_db

ADMIN = "/admin/zndraw_joblib/"
TASKS = f"{ADMIN}task/"


@pytest.fixture
def job(db):
    return Job.objects.create(room_id="open", category="modifiers", name="Rotate", schema={})


def worker(job, **values):
    made = Worker.objects.create(**({"identity": "nobody"} | values))
    WorkerJobLink.objects.create(worker=made, job=job)
    return made


def task(job, **values):
    known = {"room_id": "open", "created_by": "nobody", "payload": {}}
    return Task.objects.create(job=job, **(known | values))


def page(client, url):
    answer = client.get(url)
    assert answer.status_code == 200, answer
    return answer.content.decode()


def cells(html, field):
    return re.findall(rf'<t[dh] class="field-{field}[^>]*>(.*?)</t[dh]>', html, re.DOTALL)


def test_the_list_shows_the_end_of_an_id_with_the_whole_as_its_title(admin, job):
    made = task(job)
    (cell,) = cells(page(admin, TASKS), "short_id")
    assert f'title="{made.pk}"' in cell
    assert f">{str(made.pk)[-12:]}</span>" in cell
    assert f"{TASKS}{made.pk}/change/" in cell
    assert page(admin, f"{TASKS}?q={made.pk}").count('class="action-select"') == 1


def test_tasks_of_one_batch_have_different_short_ids():
    """Control: the first 24 characters of their ids are the same."""
    ids = new_ids(1000)
    assert len({short_id(task_id) for task_id in ids}) == 1000
    assert len({re.sub("<.*?>", "", short_id(task_id)) for task_id in ids}) == 1000
    assert len({str(task_id)[:24] for task_id in ids}) <= 2


@pytest.mark.any_database
def test_a_row_links_to_its_job_and_to_the_lists_of_its_room_and_of_its_submitter(
    admin, job, alice
):
    task(job, room_id="a & b", created_by=alice.identity)
    task(job)
    shown = page(admin, TASKS)
    assert f'<a href="{ADMIN}job/{job.pk}/change/">open:<wbr>modifiers:<wbr>Rotate</a>' in shown
    for link in (
        "?room_id=a+%26+b",
        f"?created_by={alice.identity}",
    ):
        assert f'href="{link}"' in shown
        assert page(admin, TASKS + link).count('class="action-select"') == 1


@pytest.mark.any_database
def test_a_running_task_has_its_progress_below_its_status(admin, job):
    task(job, status="running", progress=0.42)
    task(job, status="completed", progress=1, completed_at=timezone.now())
    completed, running = sorted(cells(page(admin, TASKS), "status_and_progress"))
    assert "42&nbsp;%" in running
    assert "<progress" not in completed


def test_the_list_of_workers_links_to_the_tasks_that_each_holds(admin, job):
    busy, idle = worker(job), worker(job)
    running = [task(job, status="running", worker=busy) for _ in range(2)]
    claimed = [task(job, status="claimed", worker=busy) for _ in range(3)]
    ended = task(job, status="completed", worker=busy, completed_at=timezone.now())
    shown = page(admin, f"{ADMIN}worker/")
    held, none = cells(shown, "holds")[::-1]
    assert none == "-"
    assert all(f"{TASKS}{each.pk}/change/" in held for each in [*running, claimed[0]])
    assert str(ended.pk) not in held
    link = f"{TASKS}?held_by={busy.pk}"
    assert f'<a href="{link}">and 2 more</a>' in held
    assert page(admin, link).count('class="action-select"') == 5
    assert idle.pk in shown
    assert f"{TASKS}{running[0].pk}/change/" in page(admin, f"{ADMIN}worker/{busy.pk}/change/")


@pytest.mark.any_database
def test_pages_have_no_links_to_a_model_that_the_sites_admin_leaves_out(admin, job, monkeypatch):
    from zndraw_joblib.admin.saved_filters import SavedFilters

    held = task(job, status="running", worker=worker(job))
    monkeypatch.setattr(SavedFilters, "_model_url", lambda self, model: None)
    for url in (TASKS, f"{ADMIN}worker/", f"{ADMIN}job/{job.pk}/change/"):
        shown = page(admin, url)
        assert str(held.pk)[-12:] in shown
        assert f'href="{ADMIN}job/{job.pk}/change/"' not in shown


@pytest.mark.parametrize("room", ["@global", "open"])
def test_the_page_of_a_job_shows_its_latest_tasks_and_its_workers(admin, room):
    job = Job.objects.create(room_id=room, category="modifiers", name="Rotate", schema={})
    other = Job.objects.create(room_id=room, category="modifiers", name="Other", schema={})
    tasks = [task(job) for _ in range(25)]
    foreign = task(other)
    offering = worker(job)
    held = task(job, status="claimed", worker=offering)
    elsewhere = worker(other)
    shown = page(admin, f"{ADMIN}job/{job.pk}/change/")
    for each in [*tasks[6:], held]:
        assert f"{TASKS}{each.pk}/change/" in shown
    for each in [*tasks[:6], foreign]:
        assert str(each.pk) not in shown
    assert f"{ADMIN}worker/{offering.pk}/change/" in shown
    assert elsewhere.pk not in shown
    link = f"{TASKS}?job__id__exact={job.pk}"
    assert f'href="{link}"' in shown
    assert page(admin, link).count('class="action-select"') == 26
    assert f'href="{ADMIN}job/{job.pk}/change/"' in page(
        admin, f"{ADMIN}worker/{offering.pk}/change/"
    )


def test_pages_send_no_more_queries_for_more_rows(admin, job, people):
    def queries():
        numbers = []
        for url in (
            TASKS,
            f"{ADMIN}worker/",
            f"{ADMIN}job/",
            f"{ADMIN}job/{job.pk}/change/",
            f"{ADMIN}worker/{first.pk}/change/",
        ):
            with CaptureQueriesContext(connection) as captured:
                page(admin, url)
            numbers.append(len(captured))
        return numbers

    def fill(name):
        made = worker(job, identity=people(name).identity)
        for status in ("pending", "running"):
            task(job, status=status, worker=made, created_by=made.identity)
        return made

    first = fill("first")
    queries()  # Fills the caches of content types and of prepared statements.
    before = queries()
    for number in range(8):
        fill(f"person-{number}")
    assert queries() == before


def test_the_filter_lists_50_jobs_and_the_selected_one(admin, job):
    Job.objects.bulk_create(
        Job(room_id="a", category="modifiers", name=f"Name{number:03}", schema={})
        for number in range(60)
    )
    choice = "?job__id__exact="
    assert page(admin, TASKS).count(choice) == 50
    # One of the others, which is the selected choice instead of "All".
    shown = page(admin, f"{TASKS}{choice}{job.pk}")
    assert 'class="selected"' in shown
    assert f"{choice}{job.pk}" in shown
    assert admin.get(f"{TASKS}{choice}nonsense").status_code == 302


@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_the_tasks_of_a_rare_job_and_of_a_worker_are_found_by_an_index(admin, job):
    """Control: without the second condition of `JobFilter` the list reads the whole table."""
    rare = Job.objects.create(room_id="open", category="modifiers", name="Rare", schema={})
    holding = worker(rare)
    task(rare, status="running", worker=holding)
    Task.objects.create(job=job, room_id="open", payload={})
    copy_task(3000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE zndraw_joblib_task")
        for url in (
            f"{TASKS}?job__id__exact={rare.pk}",
            f"{TASKS}?held_by={holding.pk}",
            f"{TASKS}?status__exact=failed&ended=week",
            f"{TASKS}?ended=week",
            f"{ADMIN}worker/",
            f"{ADMIN}job/{rare.pk}/change/",
        ):
            with CaptureQueriesContext(connection) as captured:
                page(admin, url)
            sent = [q["sql"] for q in captured if 'FROM "zndraw_joblib_task"' in q["sql"]]
            assert sent, url
            for sql in sent:
                cursor.execute(f"EXPLAIN {sql}")
                plan = "\n".join(row[0] for row in cursor.fetchall())
                assert "Seq Scan on zndraw_joblib_task" not in plan, plan


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.042, "42 ms"), (3.14, "3.1 s"), (7509, "2:05:09"), (50 * 3600, "2 d 2 h")],
)
def test_a_duration_has_few_characters(seconds, shown):
    from datetime import timedelta

    assert duration(timedelta(seconds=seconds)) == shown


def test_a_short_id_is_the_last_group_of_the_id():
    assert ">64373dccbf47<" in short_id(UUID("01a2197c-e058-7067-bd64-64373dccbf47"))
