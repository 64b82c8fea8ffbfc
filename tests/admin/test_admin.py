from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.translation import override

from zndraw_joblib.models import Job, Task
from zndraw_joblib.storage.clock import Now

TASKS = "/admin/zndraw_joblib/task/"


@pytest.fixture
def task_ids(bob):
    """The ids of a failed, a claimed and a pending task."""
    bob.register(schema={})
    tasks = [bob.submit(text="<script>alert(1)</script>").json()["id"] for _ in range(3)]
    bob.claim()
    bob.report(tasks[0], "running")
    bob.report(tasks[0], "failed", error="<b>bold</b>")
    bob.claim()
    return tasks


def page(client, url):
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("model", ["job", "worker", "task"])
def test_lists_and_details_are_read_only(admin, task_ids, model):
    listing = page(admin, f"/admin/zndraw_joblib/{model}/")
    assert "joblib" in listing
    from django.apps import apps

    row = apps.get_model("zndraw_joblib", model).objects.first()
    detail = page(admin, f"/admin/zndraw_joblib/{model}/{row.pk}/change/")
    assert 'name="_save"' not in detail
    assert admin.get(f"/admin/zndraw_joblib/{model}/add/").status_code == 403
    assert admin.post(f"/admin/zndraw_joblib/{model}/{row.pk}/delete/").status_code == 403


def test_payload_and_error_are_escaped(admin, task_ids):
    detail = page(admin, f"{TASKS}{task_ids[0]}/change/")
    assert "<script>alert(1)" not in detail
    assert "&lt;script&gt;alert(1)" in detail
    assert "&lt;b&gt;bold&lt;/b&gt;" in detail
    assert "joblib-failed" in detail


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 3),
        ("?status__exact=pending", 1),
        ("?room_id=open", 3),
        ("?room_id=elsewhere", 0),
        ("?age=hour", 3),
        ("?age=older", 0),
        ("?ended=hour", 1),
        ("?q=open", 3),
        ("?q=nothing", 0),
    ],
)
def test_filters_and_search_select_tasks(admin, task_ids, query, count):
    assert page(admin, TASKS + query).count('class="action-select"') == count


def test_the_filter_of_ends_goes_by_the_time_of_the_end(admin):
    """The tasks were submitted a month ago and ended since."""
    job = Job.objects.create(room_id="open", category="modifiers", name="Old", schema={})
    Task.objects.bulk_create(
        Task(
            job=job,
            room_id="open",
            payload={},
            status="failed",
            created_at=Now() - timedelta(days=30),
            completed_at=Now() - timedelta(hours=hours),
        )
        for hours in (0, 2, 50)
    )
    for query, count in (("ended=hour", 1), ("ended=day", 2), ("ended=week", 3), ("age=week", 0)):
        shown = page(admin, f"{TASKS}?status__exact=failed&{query}")
        assert shown.count('class="action-select"') == count, query


def test_a_list_of_ends_begins_with_the_latest(admin):
    job = Job.objects.create(room_id="open", category="modifiers", name="Old", schema={})
    late, early = (
        Task.objects.create(
            job=job,
            room_id="open",
            payload={},
            status="failed",
            completed_at=Now() - timedelta(minutes=minutes),
        )
        for minutes in (1, 20)
    )
    shown = page(admin, f"{TASKS}?status__exact=failed&ended=hour")
    assert shown.index(str(late.pk)) < shown.index(str(early.pk))
    shown = page(admin, f"{TASKS}?status__exact=failed")
    assert shown.index(str(early.pk)) < shown.index(str(late.pk))


def test_search_finds_a_task_by_its_id(admin, task_ids):
    found = page(admin, f"{TASKS}?q={task_ids[1]}")
    assert found.count('class="action-select"') == 1
    assert task_ids[1] in found


def test_the_list_sends_no_more_queries_for_more_tasks_and_counts_no_table(admin, bob, task_ids):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            page(admin, TASKS)
        return captured

    before = len(queries())
    for _ in range(10):
        bob.submit()
    after = queries()
    assert len(after) == before
    counts = [q["sql"] for q in after if "COUNT(" in q["sql"] and "joblib_task" in q["sql"]]
    assert not counts, counts


def run_action(client, action, ids, **more):
    return client.post(
        TASKS, {"action": action, "_selected_action": ids, **more}, follow=True
    ).content.decode()


def test_cancel_asks_for_confirmation_and_adds_to_the_history(admin, task_ids):
    asked = run_action(admin, "cancel", task_ids)
    assert "Are you sure?" in asked
    assert Task.objects.filter(status="cancelled").count() == 0
    done = run_action(admin, "cancel", task_ids, confirmed="yes")
    assert "2 tasks are now cancelled." in done
    assert "1 task was not in a state that allows it." in done
    assert Task.objects.filter(status="cancelled").count() == 2
    entries = LogEntry.objects.filter(object_id__in=task_ids[1:])
    assert {entry.change_message for entry in entries} == {"cancel: now cancelled"}
    assert entries.count() == 2


def test_requeue_takes_claimed_tasks_from_their_worker(admin, task_ids, bob):
    assert "1 task is now pending." in run_action(admin, "requeue", task_ids, confirmed="yes")
    assert Task.objects.get(pk=task_ids[0]).status == "failed"
    task = Task.objects.get(pk=task_ids[1])
    assert (task.status, task.worker_id) == ("pending", None)
    assert LogEntry.objects.get().object_id == task_ids[1]
    assert bob.claim()["attempt"] == 2


def test_actions_need_the_permission_to_administer(client, people, task_ids):
    from django.contrib.auth.models import Permission

    staff = people("staff", is_staff=True).user
    staff.user_permissions.add(
        Permission.objects.get(codename="view_task", content_type__app_label="zndraw_joblib")
    )
    client.force_login(staff)
    assert 'value="cancel"' not in page(client, TASKS)
    run_action(client, "cancel", task_ids, confirmed="yes")
    assert not Task.objects.filter(status="cancelled").exists()


@pytest.mark.parametrize("model", ["job", "worker", "task"])
def test_the_admin_is_german_for_a_german_reader(admin, task_ids, settings, model):
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    from django.apps import apps

    row = apps.get_model("zndraw_joblib", model).objects.first()
    addresses = [
        "/admin/",
        *(f"/admin/zndraw_joblib/{model}/{x}" for x in ("", f"{row.pk}/change/")),
    ]
    shown = {}
    for language in ("en", "de"):
        admin.defaults["HTTP_ACCEPT_LANGUAGE"] = language
        with override(None):  # The middleware leaves the language of the request active.
            shown[language] = " ".join(page(admin, address) for address in addresses)
    for english, german in (
        ("Tasks", "Aufgaben"),
        ("Created at", "Erstellt am"),
        ("Job server", "Job-Server"),
        *(
            [
                ("pending", "wartend"),
                ("Lease expires at", "Reservierung endet am"),
                ("Prune the selected tasks", "Ausgewählte Aufgaben löschen"),
                ("Retries left", "Verbleibende Wiederholungen"),
            ]
            * (model == "task")
        ),
    ):
        assert english in shown["en"], english
        assert german in shown["de"], german
        assert f">{english}<" not in shown["de"], english
