"""The actions `retry` and `prune` on tasks in the admin; see test_admin for the others."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission
from rest_framework.exceptions import APIException

from zndraw_joblib.models import Job, Task, TaskLogChunk

pytestmark = pytest.mark.django_db

TASKS = "/admin/zndraw_joblib/task/"


@pytest.fixture
def task_ids(bob):
    """The ids of a failed, a cancelled and a pending task."""
    bob.register(schema={})
    tasks = [bob.submit(angle=number).json()["id"] for number in range(3)]
    bob.claim()
    bob.report(tasks[0], "running")
    bob.report(tasks[0], "failed", error="no")
    bob.report(tasks[1], "cancelled")
    return tasks


def run_action(client, action, ids, **more):
    answer = client.post(TASKS, {"action": action, "_selected_action": ids, **more}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("action", ["retry", "prune"])
def test_an_action_changes_nothing_before_it_is_confirmed(admin, task_ids, action):
    asked = run_action(admin, action, task_ids)
    assert "Are you sure?" in asked
    assert {"retry": "submitted again", "prune": "deleted for good"}[action] in asked
    assert all(task_id in asked for task_id in task_ids)
    assert Task.objects.count() == 3
    assert not LogEntry.objects.exists()


def test_retry_submits_each_ended_task_again_and_adds_to_the_history(admin, root, task_ids):
    done = run_action(admin, "retry", task_ids, confirmed="yes")
    assert "2 tasks were submitted again." in done
    assert "1 task was not: A task that is pending has not ended." in done
    made = Task.objects.filter(retry_of__isnull=False).order_by("id")
    assert [str(task.retry_of_id) for task in made] == task_ids[1::-1]
    assert {(task.status, task.created_by) for task in made} == {("pending", root.identity)}
    assert sorted(task.payload["angle"] for task in made) == [0, 1]
    entries = {entry.object_id: entry for entry in LogEntry.objects.all()}
    assert entries.keys() == {*task_ids[:2]}
    for task in made:
        entry = entries[str(task.retry_of_id)]
        assert (entry.action_flag, entry.user_id) == (CHANGE, root.user.pk)
        assert entry.change_message == f"retry: new task {task.pk}"


def test_retry_says_why_it_was_refused(admin, task_ids):
    Job.objects.update(retired_at="2026-01-01T00:00Z")
    done = run_action(admin, "retry", task_ids[:2], confirmed="yes")
    assert "0 tasks were submitted again." in done
    assert "2 tasks were not: " in done
    assert not LogEntry.objects.exists()


class Locked(APIException):
    status_code = 423
    default_detail = "The room is locked."


def locked(request, room_id, action):
    raise Locked


def test_retry_shows_the_refusal_of_a_hook(admin, task_ids, settings_of):
    settings_of(room_access=f"{__name__}.locked")
    assert "1 task was not: The room is locked." in run_action(
        admin, "retry", task_ids[:1], confirmed="yes"
    )


def test_prune_deletes_ended_tasks_and_adds_to_the_history(admin, root, task_ids):
    TaskLogChunk.objects.create(task_id=task_ids[0], start=0, text="a")
    done = run_action(admin, "prune", task_ids, confirmed="yes")
    assert "2 tasks were deleted." in done
    assert "1 task was not in a state that allows it." in done
    assert [str(pk) for pk in Task.objects.values_list("pk", flat=True)] == task_ids[2:]
    assert not TaskLogChunk.objects.exists()
    entries = LogEntry.objects.all()
    assert {entry.object_id for entry in entries} == {*task_ids[:2]}
    assert {(entry.action_flag, entry.user_id) for entry in entries} == {(DELETION, root.user.pk)}


def confirm(client, asked):
    """Submit the form of a confirmation as a browser does."""
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', asked)
    return client.post(TASKS, {name: html.unescape(value) for name, value in fields}, follow=True)


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("action", "status"), [("cancel", "pending"), ("requeue", "claimed"), ("prune", "failed")]
)
def test_an_action_on_more_tasks_than_a_form_may_have_fields(admin, task_ids, action, status):
    """Control: Django refuses a form with a field for each task by 400."""
    Task.objects.exclude(pk=task_ids[2]).delete()
    job = Job.objects.get()
    ended = "2026-01-01T00:00Z" if status == "failed" else None
    Task.objects.bulk_create(
        Task(job=job, room_id="open", payload={}, status=status, completed_at=ended)
        for _ in range(1_100)
    )
    asked = run_action(admin, action, task_ids[2:], select_across="1")
    assert "and 1001 more" in asked
    other = Task.objects.create(
        job=job, room_id="open", payload={}, status=status, completed_at=ended
    )
    done = confirm(admin, asked)
    assert done.status_code == 200
    number = 1_101 if action == "cancel" else 1_100
    assert f"{number} tasks " in done.content.decode()
    assert LogEntry.objects.count() == number
    # A task that came after the question is not part of it.
    other.refresh_from_db()
    assert other.status == status


@pytest.mark.parametrize("ids", ["x", ",", "01a2190e-1c67-75f3-8ce6-7f78b5cc8cfc"])
def test_a_confirmation_of_unknown_tasks_changes_nothing(admin, task_ids, ids):
    run_action(admin, "prune", task_ids, confirmed="yes", task_ids=ids)
    assert Task.objects.count() == 3


def test_a_confirmation_keeps_a_name_from_turning_the_status_around(admin, task_ids):
    Job.objects.update(name="\u202egnp")
    asked = run_action(admin, "prune", task_ids[:1])
    assert "<bdi>open:modifiers:\u202egnp</bdi>, <bdi>open</bdi>: failed</li>" in asked


@pytest.mark.parametrize("action", ["retry", "prune"])
@pytest.mark.parametrize(
    "permissions", [["view_task"], ["view_task", "delete_task", "change_task"]]
)
def test_actions_need_the_permission_to_administer(client, people, task_ids, action, permissions):
    staff = people("staff", is_staff=True).user
    staff.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(staff)
    assert f'value="{action}"' not in client.get(TASKS).content.decode()
    run_action(client, action, task_ids, confirmed="yes")
    assert Task.objects.count() == 3
    assert not LogEntry.objects.exists()


def test_staff_with_the_permission_to_administer_may_retry_and_prune(client, people, task_ids):
    staff = people("staff", is_staff=True).user
    staff.user_permissions.set(
        Permission.objects.filter(
            codename__in=["view_task", "administer"], content_type__app_label="zndraw_joblib"
        )
    )
    client.force_login(staff)
    run_action(client, "retry", task_ids[:1], confirmed="yes")
    assert Task.objects.count() == 4
    run_action(client, "prune", task_ids[:1], confirmed="yes")
    assert Task.objects.count() == 3
