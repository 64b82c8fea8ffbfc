"""`zndraw_joblib.testing.run_pending`: runs submitted tasks in the process of a test."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.test import TestCase
from django.utils import timezone

from tests.hostcode.jobs import Acts, Bare, Fails, Rotate, double, halve
from zndraw_joblib import asubmit, declare_job, signals, submit, wait_for
from zndraw_joblib.models import Task, TaskAttempt, Worker
from zndraw_joblib.testing import run_pending, running

pytestmark = pytest.mark.django_db

ROTATE, FAILS, ACTS = "shop:modifiers:Rotate", "shop:analysis:Fails", "shop:analysis:Acts"


@pytest.fixture(autouse=True)
def jobs(db):
    declare_job(ROTATE, Rotate)
    declare_job(FAILS, Fails)
    declare_job(ACTS, Acts)


def test_the_due_tasks_run_in_their_order_and_are_returned_with_their_results():
    submitted = [submit(ROTATE, Rotate(angle=angle)) for angle in (90, 450, 10)]
    ended = run_pending(Rotate)
    assert ended == submitted
    assert [task.status for task in ended] == ["completed"] * 3
    assert [task.result for task in ended] == [{"turned": 90}, {"turned": 90}, {"turned": 10}]
    assert ended[0].job_name == ROTATE
    assert wait_for(submitted[0]).result == {"turned": 90}
    assert run_pending(Rotate) == []
    assert not Worker.objects.exists()


def test_a_run_is_an_attempt_with_its_times():
    submit(ROTATE)
    (task,) = run_pending(Rotate)
    assert task.attempt == 1
    assert task.claimed_at <= task.started_at <= task.completed_at
    assert task.lease_expires_at is None


def test_only_the_given_jobs_and_the_given_room_run():
    declare_job("@global:modifiers:Rotate", Rotate)
    submit(FAILS)
    submit(ROTATE)
    lab = submit("@global:modifiers:Rotate", room_id="lab")
    assert run_pending(Rotate, room_id="lab") == [lab]
    assert len(run_pending(Rotate)) == 1
    assert Task.objects.get(status="pending").job_name == FAILS


def test_a_limit_is_the_number_of_attempts():
    first, _ = submit(ROTATE), submit(ROTATE)
    assert run_pending(Rotate, limit=1) == [first]
    assert run_pending(Rotate, limit=0) == []
    assert Task.objects.filter(status="pending").count() == 1


@pytest.mark.parametrize(("kind", "name"), [("value", "ValueError"), ("exit", "SystemExit")])
def test_a_failed_task_has_the_traceback(kind, name):
    submit(FAILS, {"kind": kind})
    (task,) = run_pending(Fails)
    assert task.status == "failed"
    assert task.error.startswith(f"{name}: ")
    assert "Traceback" in task.error
    assert "jobs.py" in task.error


def test_a_payload_that_the_class_refuses_fails_the_task():
    declare_job(ROTATE, {})
    submit(ROTATE, {"angle": "x"})
    (task,) = run_pending(Rotate)
    assert task.error.startswith("The payload was refused by Rotate")


def test_a_failed_task_with_retries_waits_for_its_backoff():
    submit(FAILS, retries=2)
    assert run_pending(Fails) == []
    task = Task.objects.get()
    assert (task.status, task.retries_left, task.attempt) == ("pending", 1, 1)
    assert task.run_at > timezone.now()
    (ended,) = run_pending(Fails, scheduled=True)
    assert (ended.status, ended.retries_left, ended.attempt) == ("failed", 0, 3)
    assert list(TaskAttempt.objects.values_list("outcome", flat=True)) == ["failed"] * 2


def test_a_task_that_gives_up_is_not_tried_again():
    submit(FAILS, {"kind": "give up"}, retries=2)
    (task,) = run_pending(Fails, scheduled=True)
    assert (task.status, task.retries_left, task.attempt) == ("failed", 2, 1)


def test_a_task_that_asks_for_a_later_retry_is_pending_until_then():
    submit(FAILS, {"kind": "later"}, retries=1)
    assert run_pending(Fails) == []
    task = Task.objects.get()
    assert task.run_at > timezone.now() + timedelta(minutes=50)
    assert "busy" in task.error


def test_a_scheduled_task_runs_only_if_the_caller_says_so():
    later = submit(ROTATE, delay=3600)
    soon = submit(ROTATE, delay=60)
    assert run_pending(Rotate) == []
    due = submit(ROTATE)
    assert run_pending(Rotate, scheduled=True) == [due, soon, later]


def test_a_task_that_ends_by_cancelled_is_cancelled():
    submit(FAILS, {"kind": "cancelled"})
    (task,) = run_pending(Fails)
    assert task.status == "cancelled"


def test_an_interrupt_ends_the_run():
    submit(FAILS, {"kind": "interrupt"})
    with pytest.raises(KeyboardInterrupt):
        run_pending(Fails)
    assert Task.objects.get().status == "failed"


def test_progress_is_that_of_the_last_report_within_the_limits():
    submit(ACTS, {"way": "progress"})
    (task,) = run_pending(Acts)
    assert task.status == "completed"
    assert task.progress == 1
    assert task.message == ("nearly\ufffd" + "x" * 2000)[:1000]


def test_progress_of_another_thread_is_kept():
    submit(ACTS, {"way": "thread"})
    (task,) = run_pending(Acts)
    assert (task.status, task.progress, task.message) == ("completed", 0.5, "in a thread")


def test_the_log_is_written(alice):
    submit(ACTS, {"way": "log"})
    (task,) = run_pending(Acts)
    assert task.status == "completed", task.error
    assert alice.get(f"/tasks/{task.id}/log").json()["text"] == "one\ntwo\n"


def test_files_are_stored(alice, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    submit(ACTS, {"way": "uploads"})
    (task,) = run_pending(Acts)
    assert task.result == 300_000, task.error
    (file,) = alice.get(f"/tasks/{task.id}/files").json()
    assert (file["name"], file["content_type"], file["attempt"]) == ("a.txt", "text/plain", 1)
    answer = alice.get(f"/tasks/{task.id}/files/a.txt")
    assert b"".join(answer.streaming_content) == b"x" * 300_000


@pytest.mark.parametrize("way", ["cancels_itself", "stops_at_the_checkpoint"])
def test_a_task_that_was_cancelled_meanwhile_stays_cancelled(way):
    submit(ACTS, {"way": way})
    (task,) = run_pending(Acts)
    assert (task.status, task.result) == ("cancelled", None)


def test_a_task_that_is_submitted_meanwhile_runs_too():
    submit(ACTS, {"way": "submits"})
    assert [task.payload["way"] for task in run_pending(Acts)] == ["submits", "progress"]


def test_a_coroutine_is_run_to_its_end_and_may_use_its_task():
    submit(ACTS, {"way": "coroutine"})
    (task,) = run_pending(Acts)
    assert (task.result, task.progress) == (7, 0.5), task.error


def test_the_queries_of_a_coroutine_see_the_rows_of_the_test():
    submit(ACTS, {"way": "queries"})
    task, other = run_pending(Acts)
    assert (task.result, task.progress) == (1, 0.5), task.error
    assert other.status == "completed"


def test_a_coroutine_that_exits_fails_its_task():
    submit(ACTS, {"way": "exits"})
    (task,) = run_pending(Acts)
    assert task.error.startswith("SystemExit: 3")


def test_an_interrupt_in_a_coroutine_ends_the_run():
    submit(ACTS, {"way": "interrupts"})
    with pytest.raises(KeyboardInterrupt):
        run_pending(Acts)
    assert Task.objects.get().status == "failed"


@pytest.mark.django_db(transaction=True)
async def test_an_async_test_runs_coroutines_too():
    await asubmit(ACTS, {"way": "queries"})
    task, _ = await sync_to_async(run_pending)(Acts)
    assert task.result == 1, task.error


def test_an_error_of_the_database_fails_the_task_alone():
    """As in a worker, which has no transaction open.

    Control: without savepoints, the report of the task raises `TransactionManagementError`.
    """
    for way in ("breaks_a_constraint", "passes_over_a_broken_constraint"):
        submit(ACTS, {"way": way})
    failed, completed = run_pending(Acts)
    assert failed.error.startswith("IntegrityError: ")
    assert (completed.status, completed.result) == ("completed", "done")


def test_a_result_without_json_fails_the_task():
    submit(ACTS, {"way": "nan"})
    assert run_pending(Acts)[0].status == "failed"


def test_a_result_beyond_the_limit_fails_the_task(settings_of):
    settings_of(max_result_bytes=100)
    submit(ACTS, {"way": "large"})
    (task,) = run_pending(Acts)
    assert task.status == "failed"
    assert "task.upload" in task.error


def test_functions_are_jobs_too():
    for function in (double, halve):
        declare_job(f"shop:modifiers:{function.__name__}", function)
    submit("shop:modifiers:double", {"number": 4})
    submit("shop:modifiers:halve", {"number": 4})
    assert [task.result for task in run_pending(double, halve)] == [8, 2.0]
    submit("shop:modifiers:double", {"number": 5})
    assert [task.result for task in run_pending()] == [10]


def test_without_jobs_the_tasks_of_all_declared_classes_run():
    declare_job("shop:modifiers:Bare", Bare)
    submit("shop:modifiers:Bare")
    submitted = [submit(ROTATE), submit(FAILS)]
    assert run_pending() == submitted


def test_without_declared_classes_nothing_runs(monkeypatch):
    monkeypatch.setattr(running, "declared_classes", {})
    submit(ROTATE)
    assert run_pending() == []


def test_a_class_without_run_is_a_type_error():
    with pytest.raises(TypeError, match="no method run"):
        run_pending(Bare)


def test_signals_are_sent_as_by_a_worker(django_capture_on_commit_callbacks):
    seen = []
    names = ["submitted", "claimed", "started", "progressed", "requeued", "finished"]
    receivers = []
    for name in names:

        def receive(sender, task, signal, name=name, **kwargs):
            seen.append((name, sender, task.status))

        receivers.append(receive)
        getattr(signals, f"task_{name}").connect(receive)
    with django_capture_on_commit_callbacks(execute=True):
        submit(ACTS, {"way": "progress"})
        run_pending(Acts)
        submit(FAILS, retries=1)
        run_pending(Fails)
    assert seen == [
        ("submitted", Task, "pending"),
        ("claimed", Task, "running"),
        ("started", Task, "running"),
        ("progressed", Task, "running"),
        ("finished", Task, "completed"),
        ("submitted", Task, "pending"),
        ("claimed", Task, "running"),
        ("started", Task, "running"),
        ("requeued", Task, "pending"),
    ]


@pytest.mark.django_db(transaction=True)
def test_tasks_run_without_a_transaction_too():
    submit(ROTATE)
    assert run_pending(Rotate)[0].status == "completed"


class OrderTests(TestCase):
    """As in a site that uses Django's own test runner."""

    def test_tasks_run_in_a_test_case(self):
        declare_job(ROTATE, Rotate)
        submit(ROTATE, {"angle": 361})
        (task,) = run_pending(Rotate)
        assert task.result == {"turned": 1}
