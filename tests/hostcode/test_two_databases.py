"""`submit` where the job server's tables are in a database of their own."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from django.test import TestCase, override_settings
from django.utils import timezone

import zndraw_joblib
from tests.factories import SCHEMA
from tests.hostcode.transactions import rollback
from zndraw_joblib import declare_job, submit
from zndraw_joblib.models import Job, RoomBacklog, Task

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "jobs"])

NAME = "shop:modifiers:Rotate"


class JobsRouter:
    """As in docs/how-to/databases.md."""

    def db_for_read(self, model, **hints):
        return "jobs" if model._meta.app_label == "zndraw_joblib" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return (db == "jobs") == (app_label == "zndraw_joblib")


@pytest.fixture(scope="module", autouse=True)
def two_databases(django_db_setup, django_db_blocker, tmp_path_factory):
    """The database `jobs` is SQLite, whatever the site's is."""
    config = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": tmp_path_factory.mktemp("jobs") / "jobs.sqlite3",
    }
    known = connections.settings
    known["jobs"] = connections.configure_settings({"default": {}, "jobs": config})["jobs"]
    with override_settings(DATABASE_ROUTERS=["tests.hostcode.test_two_databases.JobsRouter"]):
        with django_db_blocker.unblock():
            call_command("migrate", database="jobs", verbosity=0)
        yield
    with django_db_blocker.unblock():
        connections["jobs"].close()
    del connections["jobs"]
    del known["jobs"]


@pytest.fixture(autouse=True)
def job(db):
    return declare_job(NAME, SCHEMA)


def test_without_a_transaction_the_task_is_inserted_at_once():
    task = submit(NAME, {})
    assert Task.objects.get() == task


def test_a_rollback_of_the_sites_transaction_leaves_nothing(announced, settings_of):
    settings_of(max_pending_per_room=10)
    with rollback():
        submit(NAME, {})
    assert Task.objects.count() == 0
    assert not RoomBacklog.objects.filter(places__lt=10).exists()
    assert announced == []


def test_the_task_is_inserted_and_announced_after_the_commit(announced):
    with transaction.atomic():
        task = submit(NAME, {"angle": 3}, created_by="me", retries=2, delay=60)
        assert (task.status, task.room_id, task.job_name) == ("pending", "shop", NAME)
        assert Task.objects.count() == 0
    stored = Task.objects.get()
    assert stored == task
    assert stored.payload == task.payload == {"angle": 3}
    assert stored.retries == task.retries == 2
    assert stored.run_at > timezone.now()
    assert announced == [task]


@pytest.mark.parametrize("order", [("default", "jobs"), ("jobs", "default")])
@pytest.mark.parametrize("rolled_back", ["default", "jobs"])
def test_a_rollback_of_either_leaves_nothing(order, rolled_back, announced):
    outer, inner = order
    with transaction.atomic(using=outer):
        with transaction.atomic(using=inner):
            submit(NAME, {})
            if rolled_back == inner:
                transaction.set_rollback(True, using=inner)
        if rolled_back == outer:
            transaction.set_rollback(True, using=outer)
    assert Task.objects.count() == 0
    assert announced == []


@pytest.mark.parametrize("order", [("default", "jobs"), ("jobs", "default")])
def test_both_commits_insert_the_task(order, announced):
    with transaction.atomic(using=order[0]), transaction.atomic(using=order[1]):
        task = submit(NAME, {})
    assert Task.objects.get() == task
    assert announced == [task]


def test_a_transaction_on_the_job_server_alone_is_joined(announced):
    with rollback(using="jobs"):
        submit(NAME, {})
        assert Task.objects.count() == 1
    assert Task.objects.count() == 0
    assert announced == []


def test_refusals_come_before_the_commit(settings_of):
    settings_of(max_pending_per_room=1)
    submit(NAME, {})
    with transaction.atomic():
        with pytest.raises(zndraw_joblib.InvalidPayload) as caught:
            submit(NAME, {"angle": "x"})
        assert caught.value.errors[0].pointer == "/payload/angle"
        with pytest.raises(zndraw_joblib.JobNotFound):
            submit("shop:modifiers:Other", {})
        with pytest.raises(zndraw_joblib.TooManyPending):
            submit(NAME, {})
    assert Task.objects.count() == 1


def test_a_task_that_was_checked_is_accepted_although_the_room_is_full_by_now(settings_of):
    settings_of(max_pending_per_room=2)
    with transaction.atomic():
        submit(NAME, {})
        submit(NAME, {})
        submit(NAME, {})
    assert Task.objects.count() == 3
    with pytest.raises(zndraw_joblib.TooManyPending):
        submit(NAME, {})


def test_a_job_that_is_retired_before_the_commit_is_told_by_an_exception():
    def order():
        with transaction.atomic():
            submit(NAME, {})
            Job.objects.update(retired_at=timezone.now())

    with pytest.raises(zndraw_joblib.JobNotFound):
        order()
    assert Task.objects.count() == 0


def test_a_key_in_the_sites_transaction_is_refused():
    with transaction.atomic(), pytest.raises(ValueError, match="idempotency_key"):
        submit(NAME, {}, idempotency_key="one")
    assert submit(NAME, {}, idempotency_key="one") == submit(NAME, {}, idempotency_key="one")


@pytest.mark.django_db(transaction=False, databases=["default", "jobs"])
def test_in_a_test_case_the_task_is_inserted_where_both_commits_are_simulated(announced):
    """Both databases are in the transaction of the test, which never commits."""
    with (
        TestCase.captureOnCommitCallbacks(using="jobs", execute=True),
        TestCase.captureOnCommitCallbacks(execute=True),
    ):
        with transaction.atomic():
            task = submit(NAME, {})
        with rollback():
            submit(NAME, {})
        assert Task.objects.count() == 0
    assert Task.objects.get() == task
    assert announced == [task]
