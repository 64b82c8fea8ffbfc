"""The operators' dashboard in the admin."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta

import pytest
from django.contrib import admin as django_admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils.translation import override

from tests.factories import ROTATE
from tests.histories import count_at_once
from zndraw_joblib.admin import DashboardAdmin
from zndraw_joblib.models import (
    FailedTask,
    FailureGroup,
    Job,
    JobInterval,
    StatisticsState,
    SweeperPass,
    Task,
    Worker,
)
from zndraw_joblib.services.sweep import sweep_tenants
from zndraw_joblib.storage.clock import database_time

pytestmark = pytest.mark.django_db

DASHBOARD = "/admin/zndraw_joblib/jobinterval/"

#: A host's own admin site, which has the dashboard alone.
ops = django_admin.AdminSite("ops")
ops.register(JobInterval, DashboardAdmin)
urlpatterns = [path("ops/", ops.urls)]


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch):
    count_at_once(monkeypatch)


@pytest.fixture
def reader(people, client):
    """A staff user who may view tasks and do nothing else."""
    user = people("reader", is_staff=True).user
    user.user_permissions.add(Permission.objects.get(codename="view_task"))
    client.force_login(user)
    return client


@pytest.fixture
def failed(bob):
    """The ids of three tasks that failed with one error, apart from its numbers."""
    bob.register(schema={})
    ids = [bob.submit(angle=number).json()["id"] for number in range(4)]
    for number, task_id in enumerate(ids[:3]):
        bob.claim()
        bob.report(task_id, "running")
        bob.report(task_id, "failed", error=f"no atom {number}")
    # Ended before the sweep's moment, because SQLite has milliseconds and PostgreSQL a transaction.
    past = database_time("default") - timedelta(seconds=2)
    Task.objects.filter(status="failed").update(completed_at=past)
    sweep_tenants()
    return ids[:3]


def page(client, query="", url=DASHBOARD):
    answer = client.get(url + query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_without_a_sweep_the_page_says_that_the_sweeper_never_ran(admin):
    assert "The sweeper never ran." in page(admin)


def test_a_sweep_that_is_late_is_a_warning(admin, settings_of):
    sweep_tenants()
    assert 'role="alert"' not in page(admin)
    settings_of(sweeper_interval_seconds=10)
    SweeperPass.objects.update(ended_at=database_time("default") - timedelta(seconds=61))
    assert "The sweeper’s last pass ended 0:01:01 ago." in page(admin).replace("&#x27;", "’")


def test_the_page_shows_the_numbers_and_links_to_filtered_lists(admin, failed):
    shown = page(admin)
    job = Job.objects.get()
    assert f"status__exact=failed&amp;job__id__exact={job.pk}&amp;ended=hour" in shown
    assert f"job__id__exact={job.pk}&amp;age=hour" in shown
    assert "no atom #" in shown
    group = FailureGroup.objects.get()
    assert f'/task/?failure={group.pk}">3</a>' in shown
    listed = page(admin, f"?failure={group.pk}", "/admin/zndraw_joblib/task/")
    assert listed.count('class="action-select"') == 3
    assert all(task_id in listed for task_id in failed)
    (tile,) = re.findall(r"<dt>Failed</dt><dd><a [^>]*>(\d+)</a>", shown)
    assert tile == "3"


@pytest.mark.parametrize("span", ["hour", "day", "week"])
def test_each_span_counts_the_same_tasks(admin, failed, span):
    document = admin.get(f"{DASHBOARD}numbers/?span={span}").json()
    ends = document["charts"]["charts"][0]
    assert ends["key"] == "ends"
    sums = {series["name"]: sum(filter(None, series["values"])) for series in ends["series"]}
    assert sums["failed"] == 3
    assert document["charts"]["times"] == sorted(document["charts"]["times"])
    assert "no atom #" in document["parts"]["details"]


def test_an_interval_that_was_not_counted_has_no_numbers(admin, failed):
    """Zeros would look as if nothing had ended since the sweeper stopped."""
    now = database_time("default")
    StatisticsState.objects.update(ended_until=now - timedelta(minutes=30))
    document = admin.get(f"{DASHBOARD}numbers/").json()["charts"]
    values = document["charts"][0]["series"][0]["values"]
    assert values[-1] is None
    assert 0 in values[:6]


def test_the_page_of_a_job_has_its_numbers_alone(admin, bob, failed):
    bob.register(schema={}, name="Other")
    job, other = Job.objects.get(name="Rotate"), Job.objects.get(name="Other")
    assert "no atom #" in page(admin, f"?job={job.pk}")
    shown = page(admin, f"?job={other.pk}")
    assert "no atom #" not in shown
    assert re.findall(r"<dt>Failed</dt><dd><a [^>]*>(\d+)</a>", shown) == ["0"]


@pytest.mark.any_database
@pytest.mark.parametrize(
    "query", ["?span=year", "?job=1", "?job=00000000-0000-7000-8000-000000000000"]
)
@pytest.mark.parametrize("url", ["", "numbers/"])
def test_unknown_values_are_not_found(admin, query, url):
    assert admin.get(DASHBOARD + url + query).status_code == 404


def test_a_job_with_due_tasks_and_no_live_worker_is_named(admin, bob, failed):
    warning = "Jobs with due tasks and no live worker:"
    assert warning not in page(admin)
    Worker.objects.update(last_heartbeat=database_time("default") - timedelta(hours=1))
    shown = page(admin)
    assert warning in shown
    assert f"<bdi>open:{ROTATE}</bdi>: <a" in shown


def test_workers_are_shown_with_what_they_run(admin, bob, failed):
    task = bob.claim()
    shown = page(admin)
    assert f"/admin/zndraw_joblib/task/{task['id']}/change/" in shown.replace("_2D", "-")
    assert bob.user.username in shown


@pytest.mark.any_database
def test_a_staff_user_without_the_permission_sees_nothing(people, client):
    client.force_login(people("clerk", is_staff=True).user)
    assert client.get(DASHBOARD).status_code == 403
    assert client.get(DASHBOARD + "numbers/").status_code == 403
    assert "jobinterval" not in page(client, "", "/admin/")


@pytest.mark.any_database
def test_an_anonymous_caller_is_sent_to_the_login(client):
    assert client.get(DASHBOARD + "numbers/")["Location"].startswith("/admin/login/")


@pytest.mark.any_database
def test_a_reader_sees_the_numbers_and_no_retry(reader, failed):
    shown = page(reader)
    assert "no atom #" in shown
    assert "/retry/" not in shown
    assert "joblib-workers" not in shown
    url = f"{DASHBOARD}failures/{FailureGroup.objects.get().pk}/retry/"
    assert reader.get(url).status_code == 403
    assert reader.post(url).status_code == 403
    assert not Task.objects.filter(retry_of__isnull=False).exists()


@pytest.mark.any_database
def test_the_index_and_the_lists_of_the_admin_link_to_the_dashboard(admin):
    for url in ("/admin/", "/admin/zndraw_joblib/", "/admin/zndraw_joblib/task/"):
        assert f'href="{DASHBOARD}"' in page(admin, "", url)


@pytest.mark.any_database
def test_no_row_of_the_statistics_can_be_changed(admin, failed):
    row = JobInterval.objects.first()
    assert row is not None
    assert admin.get(f"{DASHBOARD}{row.pk}/change/").status_code == 404
    assert admin.get(f"{DASHBOARD}add/").status_code == 404


def test_retry_all_asks_then_retries_each_task_once(admin, root, failed):
    group = FailureGroup.objects.get()
    url = f"{DASHBOARD}failures/{group.pk}/retry/"
    assert "3 tasks that failed with this error" in page(admin, "", url)
    assert not Task.objects.filter(retry_of__isnull=False).exists()
    done = admin.post(url, follow=True).content.decode()
    assert "3 tasks were submitted again." in done
    retries = Task.objects.filter(retry_of__isnull=False)
    assert {str(task.retry_of_id) for task in retries} == {*failed}
    assert {task.created_by for task in retries} == {root.identity}
    entries = LogEntry.objects.all()
    assert {(entry.object_id, entry.action_flag) for entry in entries} == {
        (task_id, CHANGE) for task_id in failed
    }
    assert "0 tasks were submitted again." in admin.post(url, follow=True).content.decode()
    assert retries.count() == 3
    assert "All tasks with this error were retried" in page(admin, "", url)


@pytest.mark.any_database
def test_a_large_group_is_retried_in_parts_that_are_confirmed(admin, failed, monkeypatch):
    monkeypatch.setattr("zndraw_joblib.admin.failures.CHUNK", 2)
    monkeypatch.setattr("zndraw_joblib.admin.failures.REQUEST_SECONDS", 0.0)
    url = f"{DASHBOARD}failures/{FailureGroup.objects.get().pk}/retry/"
    first = admin.post(url).content.decode()
    assert "2 tasks were submitted again." in first
    assert "1 task that failed with this error" in first
    (after,) = re.findall(r'name="after" value="([^"]+)"', first)
    second = admin.post(url, {"after": after}, follow=True).content.decode()
    assert "1 task was submitted again." in second
    assert Task.objects.filter(retry_of__isnull=False).count() == 3


@pytest.mark.django_db(transaction=True)
def test_two_users_who_retry_at_once_retry_each_task_once(root, failed, monkeypatch):
    """Without the lock of the group both found all tasks unretried."""
    monkeypatch.setattr("zndraw_joblib.admin.failures.CHUNK", 1)
    url = f"{DASHBOARD}failures/{FailureGroup.objects.get().pk}/retry/"
    clients = [Client(), Client()]
    barrier = threading.Barrier(2)

    def post(client):
        try:
            barrier.wait()
            client.post(url)
        finally:
            connections.close_all()

    for client in clients:
        client.force_login(root.user)
    threads = [threading.Thread(target=post, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Task.objects.filter(retry_of__isnull=False).count() == 3


@pytest.mark.any_database
def test_a_refused_retry_says_why_and_the_others_go_on(admin, bob, failed, settings_of):
    settings_of(max_pending_per_room=3)
    url = f"{DASHBOARD}failures/{FailureGroup.objects.get().pk}/retry/"
    done = admin.post(url, follow=True).content.decode()
    assert "2 tasks were submitted again." in done
    assert "1 task was not: " in done


def test_a_task_that_was_pruned_is_left_out(admin, failed):
    Task.objects.filter(pk=failed[0]).delete()
    assert FailedTask.objects.count() == 3
    url = f"{DASHBOARD}failures/{FailureGroup.objects.get().pk}/retry/"
    assert "2 tasks were submitted again." in admin.post(url, follow=True).content.decode()


def test_the_number_of_queries_depends_neither_on_jobs_nor_on_tasks(admin, bob, failed):
    page(admin)
    with CaptureQueriesContext(connection) as few:
        page(admin)
    for number in range(5):
        bob.register(schema={}, name=f"Job{number}")
        bob.submit(job=f"open:modifiers:Job{number}")
        bob.report(bob.claim()["id"], "running")
    sweep_tenants()
    with CaptureQueriesContext(connection) as many:
        page(admin)
    assert len(many) == len(few) <= 20


def test_the_page_reads_tasks_by_an_index_alone(admin, failed):
    """The only statement that reads tasks is bounded; all others read small tables."""
    # Of another worker, because among few tasks in all the index of leases is as good.
    job = Job.objects.get()
    Task.objects.bulk_create(
        Task(job=job, room_id="open", payload={}, status="running", worker_id="other")
        for _ in range(500)
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE zndraw_joblib_task")
    with CaptureQueriesContext(connection) as queries:
        page(admin)
    of_tasks = [
        query["sql"] for query in queries if re.search(r"\bzndraw_joblib_task\b", query["sql"])
    ]
    assert len(of_tasks) == 1
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("EXPLAIN " + of_tasks[0])
        else:
            cursor.execute("EXPLAIN QUERY PLAN " + of_tasks[0])
        plan = str(cursor.fetchall())
    assert "joblib_task_worker" in plan
    assert "Seq Scan" not in plan


@pytest.mark.any_database
@pytest.mark.parametrize("retry", [False, True])
def test_a_strict_content_security_policy_has_nothing_to_block(admin, failed, retry):
    url = f"failures/{FailureGroup.objects.get().pk}/retry/" if retry else ""
    shown = page(admin, url)
    shown += json.dumps(admin.get(f"{DASHBOARD}numbers/").json()["parts"])
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", shown)
    inline = re.findall(r"<script(?![^>]*\bsrc=)([^>]*)>", shown)
    assert all("application/json" in attributes for attributes in inline)


@pytest.mark.any_database
def test_errors_and_names_are_escaped(admin, bob):
    bob.register(schema={})
    task_id = bob.submit().json()["id"]
    bob.claim()
    bob.report(task_id, "running")
    bob.report(task_id, "failed", error="<script>alert('x')</script>")
    Task.objects.update(completed_at=database_time("default") - timedelta(seconds=1))
    sweep_tenants()
    for shown in (page(admin), admin.get(f"{DASHBOARD}numbers/").json()["parts"]["details"]):
        assert "<script>alert" not in shown
        assert "&lt;script&gt;alert" in shown


@pytest.mark.any_database
def test_a_host_s_own_admin_site_has_the_dashboard_without_links_to_what_it_lacks(
    admin, failed, settings
):
    settings.ROOT_URLCONF = __name__
    shown = page(admin, "", "/ops/zndraw_joblib/jobinterval/")
    assert "no atom #" in shown
    assert "/task/" not in shown
    assert 'data-url="/ops/zndraw_joblib/jobinterval/numbers/?span=hour"' in shown
    url = f"/ops/zndraw_joblib/jobinterval/failures/{FailureGroup.objects.get().pk}/retry/"
    assert url in shown
    assert "3 tasks were submitted again." in admin.post(url, follow=True).content.decode()


@pytest.mark.any_database
def test_the_page_is_translated(admin, failed):
    with override("de"):
        shown = admin.get(DASHBOARD, headers={"Accept-Language": "de"}).content.decode()
    assert "Fehlschläge nach Fehler" in shown
    assert "Älteste" in shown


def test_a_worker_with_many_tasks_hides_none_of_the_others(admin, bob, alice, failed):
    """With one limit for all workers together, the last ones seemed to run nothing."""
    for name, person in {"Bulk": bob, "Single": alice}.items():
        person.register(schema={}, name=name)
    for _ in range(9):
        bob.submit(job="open:modifiers:Bulk")
    task_id = bob.submit(job="open:modifiers:Single").json()["id"]
    for _ in range(9):
        bob.claim()
    while (task := alice.claim()) and task["id"] != task_id:
        pass
    shown = page(admin)
    assert task_id in shown.replace("_2D", "-")
    assert f"/admin/zndraw_joblib/task/?held_by={bob.identity}" in shown


@pytest.mark.parametrize(
    "url",
    [
        f"{DASHBOARD}failures/%00/retry/",
        f"{DASHBOARD}failures/%F0%9F%92%A5/retry/",
        f"{DASHBOARD}failures/{'a' * 2000}/retry/",
        f"{DASHBOARD}?span=%00",
        f"{DASHBOARD}?job=%00",
        f"{DASHBOARD}?job=%7B{'0' * 32}%7D",
        f"{DASHBOARD}numbers/?job={'0' * 32}&job=%ED%A0%80",
    ],
)
def test_any_text_in_an_address_is_answered(admin, url):
    assert admin.get(url).status_code == 404


@pytest.mark.parametrize(
    "parameter", ["failure", "created_by", "held_by", "room_id", "age", "job__id__exact", "q",
                  "status__exact"]
)  # fmt: skip
@pytest.mark.parametrize("value", ["%00", "%ED%A0%80", "a" * 2000])
def test_any_text_in_a_filter_of_tasks_is_answered(admin, failed, parameter, value):
    answer = admin.get(f"/admin/zndraw_joblib/task/?{parameter}={value}", follow=True)
    assert answer.status_code == 200


def test_the_throughput_is_that_of_the_time_that_was_counted(admin, failed):
    """Of a week of which the sweeper counted an hour, the whole week would give too little."""
    now = database_time("default")
    StatisticsState.objects.update(since=now - timedelta(minutes=60), ended_until=now)
    shown = page(admin, "?span=week")
    assert re.findall(r"<dt>Ended a minute</dt><dd>([^<]+)</dd>", shown) == ["0.05"]
