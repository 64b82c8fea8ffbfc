"""`declare_job`: jobs of the site's own code, which need no worker."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.signals import post_migrate
from django.utils import timezone
from pydantic import BaseModel

import zndraw_joblib
from tests.factories import SCHEMA
from tests.hostcode.transactions import rollback
from zndraw_joblib import declare_job, submit, sweep
from zndraw_joblib.host import declarations
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.models import Job, Worker

pytestmark = pytest.mark.django_db

NAME = "shop:modifiers:Rotate"


class Rotate(BaseModel):
    angle: float = 90.0


def test_a_declared_job_is_durable_and_takes_tasks():
    job = declare_job(NAME, Rotate)
    assert job.schema == Rotate.model_json_schema()
    assert (job.full_name, job.durable, job.retry) == (NAME, True, None)
    assert Job.objects.get() == job
    sweep()
    assert submit(NAME, {"angle": 1.5}).status == "pending"


def test_a_job_that_is_not_durable_is_retired_by_a_sweep():
    declare_job(NAME, {}, durable=False)
    sweep()
    with pytest.raises(zndraw_joblib.JobNotFound):
        submit(NAME)
    # Declared again, it is revived.
    declare_job(NAME, {})
    submit(NAME)


def test_a_repeated_declaration_changes_nothing():
    first = declare_job(NAME, SCHEMA, retry=3)
    again = declare_job(NAME, SCHEMA)
    assert first == again
    assert again.revision == 0
    assert again.retry == RetryPolicy(3)


@pytest.mark.parametrize(
    "retry", [RetryPolicy(2, 1.0), {"max_retries": 2, "backoff_seconds": 1}, 2]
)
def test_retries_are_a_policy_or_its_fields_or_a_number(retry):
    declare_job(NAME, {}, retry=retry)
    task = submit(NAME)
    assert (task.retries, task.retries_left) == (2, 2)


def test_a_declaration_gives_another_schema_unless_a_live_worker_offers_the_job(bob):
    declare_job("open:modifiers:Rotate", {})
    bob.register()
    with pytest.raises(zndraw_joblib.SchemaConflict):
        declare_job("open:modifiers:Rotate", {"type": "object"})
    declare_job("open:modifiers:Rotate", dict(reversed(SCHEMA.items())))
    Worker.objects.update(last_heartbeat=timezone.now() - timedelta(hours=1))
    assert declare_job("open:modifiers:Rotate", {"type": "object"}).schema == {"type": "object"}


def test_a_worker_may_offer_a_declared_job(bob):
    declare_job("open:modifiers:Rotate", SCHEMA, retry=1)
    answer = bob.register()
    assert answer.status_code == 200
    assert answer.json()["durable"] is True
    assert answer.json()["retry"]["max_retries"] == 1
    task = submit("open:modifiers:Rotate", {})
    assert bob.claim()["id"] == str(task.pk)


@pytest.mark.parametrize(
    ("name", "schema", "options", "problem"),
    [
        ("shop", {}, {}, "ValidationError"),
        ("shop:modifiers:a:b", {}, {}, "ValidationError"),
        ("shop:modifiers:", {}, {}, "ValidationError"),
        ("shop:modifiers:a@b", {}, {}, "ValidationError"),
        ("shop:unknown:Rotate", {}, {}, "InvalidCategory"),
        (":modifiers:Rotate", {}, {}, "InvalidRoomId"),
        ("@internal:modifiers:Rotate", {}, {}, "InvalidRoomId"),
        (NAME, {"type": "nonsense"}, {}, "ValidationError"),
        (NAME, {"const": float("nan")}, {}, "ValidationError"),
        (NAME, {"x": "y" * 70_000}, {}, "ValidationError"),
        (NAME, {}, {"retry": -1}, "ValidationError"),
        (NAME, {}, {"retry": {"retries": 1}}, "ValidationError"),
        (NAME, {}, {"retry": RetryPolicy(1, backoff_seconds=float("inf"))}, "ValidationError"),
    ],
)
def test_a_declaration_is_checked_as_a_registration(name, schema, options, problem):
    with pytest.raises(getattr(zndraw_joblib, problem)):
        declare_job(name, schema, **options)
    assert not Job.objects.exists()


def test_a_class_without_a_schema_of_objects_is_a_type_error():
    with pytest.raises(TypeError):
        declare_job(NAME, int)


def test_both_spellings_of_a_name_are_one_job():
    one = declare_job("Gro\u0308ße:modifiers:Rotate", {})
    assert declare_job("Größe:modifiers:Rotate", {}) == one
    assert one.room_id == "Größe"


@pytest.mark.django_db(transaction=True)
def test_a_rollback_undoes_a_declaration():
    with rollback():
        declare_job(NAME, {})
    assert not Job.objects.exists()
    with transaction.atomic():
        declare_job(NAME, {})
    submit(NAME)


@pytest.fixture
def starting(monkeypatch):
    """A function that returns a context in which Django is starting, as in `AppConfig.ready`."""
    monkeypatch.setattr(declarations, "_after_migrate", {})

    @contextmanager
    def start():
        apps.ready = False
        try:
            yield
        finally:
            apps.ready = True

    yield start
    post_migrate.disconnect(
        sender=apps.get_app_config("zndraw_joblib"), dispatch_uid="zndraw_joblib.declare_jobs"
    )


def test_a_declaration_in_ready_is_carried_out_after_migrate(starting, django_assert_num_queries):
    with starting(), django_assert_num_queries(0):
        job = declare_job(NAME, SCHEMA, retry=1)
        with pytest.raises(zndraw_joblib.InvalidCategory):
            declare_job("shop:unknown:Rotate", SCHEMA)
    assert (job.full_name, job.durable, job.retry) == (NAME, True, RetryPolicy(1))
    assert not Job.objects.exists()
    for _ in range(2):
        call_command("migrate", verbosity=0)
        assert submit(NAME, {"angle": 1}).retries == 1


@pytest.mark.django_db(transaction=True)
def test_a_declaration_in_ready_lets_migrations_be_undone(starting):
    with starting():
        declare_job(NAME, SCHEMA)
    with connection.schema_editor() as editor:
        editor.execute("ALTER TABLE zndraw_joblib_job RENAME TO undone")
    try:
        declarations.declare_after_migrate(using="default")
    finally:
        with connection.schema_editor() as editor:
            editor.execute("ALTER TABLE undone RENAME TO zndraw_joblib_job")
    declarations.declare_after_migrate(using="other")
    assert not Job.objects.exists()
    declarations.declare_after_migrate(using="default")
    assert Job.objects.exists()


def test_a_live_worker_with_another_schema_does_not_stop_migrate(bob, starting, caplog):
    """The worker runs the earlier version of the code, which a deployment replaces later."""
    bob.register()
    name = "open:modifiers:Rotate"
    with starting():
        declare_job(name, {"type": "object", "required": ["x"]})
        declare_job("open:modifiers:Other", {})
    call_command("migrate", verbosity=0)
    assert f"{name} is not declared: {name} is registered with another schema" in caplog.text
    assert Job.objects.get(name="Rotate").schema == SCHEMA
    assert Job.objects.filter(name="Other").exists()
