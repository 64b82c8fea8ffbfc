"""Deletion of old tasks: `manage.py prune_tasks`, and the settings that the sweeper carries out."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from django.utils import timezone

from zndraw_joblib.models import (
    FileToDelete,
    IdempotencyKey,
    Job,
    Task,
    TaskAttempt,
    TaskFile,
    TaskLogChunk,
)
from zndraw_joblib.services import prune as prunes, sweep as sweeps
from zndraw_joblib.storage.files import file_storage
from zndraw_joblib.storage.ids import new_id

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def job():
    return Job.objects.create(room_id="open", category="modifiers", name="Rotate", schema={})


@pytest.fixture
def ended(job):
    """A function that makes tasks that ended some days ago; returns their ids."""

    def make(status="completed", days=40.0, number=1, **values):
        at = timezone.now() - timedelta(days=days)
        made = Task.objects.bulk_create(
            Task(job=job, room_id="open", payload={}, status=status, completed_at=at, **values)
            for _ in range(number)
        )
        return [task.pk for task in made]

    return make


def run(*arguments, **options):
    """The standard output of the command."""
    out = io.StringIO()
    call_command("prune_tasks", *arguments, stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue().strip()


def statuses():
    return sorted(Task.objects.values_list("status", flat=True))


def test_tasks_are_deleted_by_the_age_of_their_end_and_not_of_their_submit(ended):
    young = ended(days=29)
    old = ended(days=31)
    Task.objects.update(created_at=timezone.now() - timedelta(days=90))
    assert run("--older-than", "30d") == "deleted 1 task"
    assert list(Task.objects.values_list("pk", flat=True)) == young
    assert old != young


def test_unfinished_tasks_of_any_age_are_kept(job):
    long_ago = timezone.now() - timedelta(days=400)
    for status in ("pending", "claimed", "running"):
        Task.objects.create(
            job=job, room_id="open", payload={}, status=status, created_at=long_ago, run_at=long_ago
        )
    assert run("--older-than", "0m") == "deleted 0 tasks"
    assert statuses() == ["claimed", "pending", "running"]


def test_cancelled_tasks_count_like_completed_ones_and_failed_ones_may_be_kept_longer(ended):
    for status in ("completed", "cancelled", "failed"):
        ended(status)
    ended("failed", days=100)
    assert run("--older-than", "30d", "--keep-failed", "90d") == "deleted 3 tasks"
    assert statuses() == ["failed"]
    assert run("--older-than", "30d") == "deleted 1 task"


@pytest.mark.parametrize(
    ("age", "deleted"), [("2d", 0), ("1d", 1), ("37h", 0), ("35h", 1), ("2161m", 0), ("2159m", 1)]
)
def test_an_age_is_a_number_of_days_hours_or_minutes(ended, age, deleted):
    ended(days=1.5)
    assert run("--older-than", age, dry_run=True).startswith(str(deleted))


@pytest.mark.parametrize(
    "age", ["30", "", "d", "-1d", "1.5d", "1w", "3 d", "٣d", "99999999999d", "36501d"]
)
@pytest.mark.parametrize("option", ["--older-than", "--keep-failed"])
def test_any_other_age_is_refused_and_deletes_nothing(ended, option, age):
    ended()
    with pytest.raises(CommandError, match=r"is not an age|is more than"):
        run(*([] if option == "--older-than" else ["--older-than=1d"]), f"{option}={age}")
    assert Task.objects.count() == 1


def test_an_age_is_required(ended):
    with pytest.raises(CommandError, match="--older-than"):
        run()


def test_a_dry_run_counts_and_deletes_nothing(ended):
    ended(number=3)
    ended(days=1)
    assert run("--older-than", "30d", "--dry-run") == "3 tasks would be deleted"
    assert Task.objects.count() == 4


def test_log_attempts_files_and_keys_go_with_a_task_and_its_job_stays(ended):
    old, young = ended()[0], ended(days=1)[0]
    for task_id in (old, young):
        TaskAttempt.objects.create(task_id=task_id, attempt=1, outcome="lost")
        TaskLogChunk.objects.create(task_id=task_id, start=0, text="text")
        TaskFile.objects.create(
            task_id=task_id, attempt=1, name="a", size=1, content_type="a/b", path="none"
        )
        IdempotencyKey.objects.create(id=task_id.hex, request="", task_id=task_id)
    run("--older-than", "30d")
    for model in (TaskAttempt, TaskLogChunk, TaskFile, IdempotencyKey):
        assert list(model.objects.values_list("task_id", flat=True)) == [young], model
    assert Job.objects.count() == 1


@pytest.fixture
def with_file(settings, tmp_path, ended):
    """A function that makes an old task with a stored file; returns the path of its bytes."""
    settings.STORAGES = {
        **settings.STORAGES,
        "zndraw_joblib": {"BACKEND": "tests.storages.Local", "OPTIONS": {"location": tmp_path}},
    }

    def make(**values):
        (task_id,) = ended(**values)
        path = file_storage().save(f"{task_id}/a", ContentFile(b"text"))
        TaskFile.objects.create(
            task_id=task_id, attempt=1, name="a", size=4, content_type="a/b", path=path
        )
        return tmp_path / path

    return make


@pytest.mark.parametrize("prune", ["by command", "by the sweeper", "now"])
def test_the_bytes_of_files_are_deleted_with_their_tasks(with_file, settings_of, prune):
    old, young = with_file(), with_file(days=1)
    match prune:
        case "by command":
            run("--older-than", "30d")
        case "by the sweeper":
            settings_of(prune_after_days=30)
            report = sweeps.sweep_tenants()
            assert (report.pruned, report.files) == (1, 1)
        case "now":
            prunes.prune_now([Task.objects.earliest("completed_at").pk])
    assert not old.exists()
    assert young.exists()
    assert not FileToDelete.objects.exists()


def test_a_dry_run_deletes_no_bytes(with_file):
    path = with_file()
    run("--older-than", "30d", "--dry-run")
    assert path.exists()


def test_a_storage_that_is_away_does_not_keep_tasks_and_is_asked_again(with_file, monkeypatch):
    def fail(*args):
        raise RuntimeError("the storage is away")

    path = with_file()
    with monkeypatch.context() as patch:
        patch.setattr("tests.storages.Local.delete", fail)
        assert run("--older-than", "30d") == "deleted 1 task"
    assert not Task.objects.exists()
    assert path.exists()
    FileToDelete.objects.update(due_at=timezone.now() - timedelta(minutes=1))
    assert sweeps.sweep().files == 1
    assert not path.exists()


def test_a_retry_of_a_deleted_task_is_kept_and_its_document_changes(alice, bob, ended):
    bob.register(schema={})
    old = ended(number=2)
    retry = alice.submit().json()["id"]
    Task.objects.filter(pk=retry).update(retry_of=old[0])
    before = Task.objects.get(pk=retry).revision
    run("--older-than", "30d")
    task = Task.objects.get()
    assert (str(task.pk), task.retry_of_id) == (retry, None)
    assert task.revision > before
    assert alice.get(f"/tasks/{retry}").json()["retry_of"] is None
    assert alice.get(f"/tasks/{old[0]}").status_code == 404


def test_a_key_of_a_deleted_task_submits_anew(alice, bob):
    bob.register(schema={})
    path = "/rooms/open/tasks/open:modifiers:Rotate"

    def submit():
        return alice.send("post", path, {"payload": {}}, HTTP_IDEMPOTENCY_KEY="a").json()["id"]

    first = submit()
    alice.report(first, "cancelled")
    assert submit() == first
    run("--older-than", "0m")
    assert submit() != first


def test_many_tasks_go_in_chunks_and_a_run_that_was_ended_is_resumed(ended, monkeypatch):
    monkeypatch.setattr(prunes, "CHUNK", 2)
    # All at one time, so that a chunk ends between tasks of the same age.
    ended(number=5)
    ended("failed", number=3)
    chunks = prunes.prune(prunes.Retention(timedelta(days=30), timedelta(days=30)))
    assert next(chunks) == 2
    chunks.close()
    assert Task.objects.count() == 6
    assert run("--older-than", "30d") == "deleted 6 tasks"


def test_the_command_shows_a_bar_on_a_terminal_only(ended, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(prunes, "CHUNK", 2)
    for stream in (Terminal(), io.StringIO()):
        ended(number=4)
        call_command("prune_tasks", "--older-than", "30d", stdout=io.StringIO(), stderr=stream)
        shown = [part.rpartition("] ")[2] for part in stream.getvalue().split("\r")[1:]]
        expected = ["50 % of 4 tasks", "100 % of 4 tasks\n"] if stream.isatty() else []
        assert shown == expected


def test_tasks_that_a_model_of_the_site_protects_are_kept(ended, monkeypatch):
    """`IdempotencyKey` stands in for a model of the site. Control: else ProtectedError."""
    protected, other = ended(number=2)
    IdempotencyKey.objects.create(id="a", request="", task_id=protected)
    relation = IdempotencyKey._meta.get_field("task").remote_field
    monkeypatch.setattr(relation, "on_delete", models.PROTECT)
    assert run("--older-than", "30d", "--dry-run") == "1 task would be deleted"
    run("--older-than", "30d")
    assert list(Task.objects.values_list("pk", flat=True)) == [protected]
    assert prunes.prune_now([protected]) == set()
    assert other


def test_the_sweeper_prunes_by_the_settings_and_reports_how_many(ended, settings_of):
    for status in ("completed", "cancelled", "failed"):
        ended(status)
        ended(status, days=100)
    assert sweeps.sweep_tenants().pruned == 0
    settings_of(prune_after_days=30)
    assert sweeps.sweep_tenants().pruned == 4
    settings_of(prune_failed_after_days=90)
    assert str(sweeps.sweep_tenants()).endswith(" files=0 pruned=1")
    assert statuses() == ["failed"]


def test_a_sweep_leaves_the_rest_of_many_old_tasks_to_the_next(ended, settings_of, monkeypatch):
    monkeypatch.setattr(prunes, "CHUNK", 2)
    monkeypatch.setattr(sweeps, "PRUNE_SECONDS", 0)
    settings_of(prune_after_days=30)
    ended(number=5)
    assert [sweeps.sweep_tenants().pruned for _ in range(4)] == [2, 2, 1, 0]


def test_the_prune_of_a_task_now_needs_no_age_but_an_end(ended, job):
    pending = Task.objects.create(job=job, room_id="open", payload={}).pk
    (young,) = ended(days=0)
    assert prunes.prune_now([pending, young, new_id()]) == {young}
    assert list(Task.objects.values_list("pk", flat=True)) == [pending]


@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_prune_skips_a_task_that_another_transaction_has_locked(ended):
    import threading

    locked, free = ended(number=2)
    is_locked, may_end = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            Task.objects.select_for_update().get(pk=locked)
            is_locked.set()
            may_end.wait(10)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert is_locked.wait(10)
        assert run("--older-than", "30d") == "deleted 1 task"
    finally:
        may_end.set()
        holder.join()
    assert list(Task.objects.values_list("pk", flat=True)) == [locked]
    assert free


@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_a_chunk_is_found_by_its_index(ended, django_db_blocker):
    ended("failed", number=2000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE zndraw_joblib_task")
    retention = prunes.Retention(timedelta(days=30), None)
    for tasks in prunes._expired("default", retention):
        assert "joblib_task_ended" in tasks.order_by("completed_at")[:10].explain()
