"""`zndraw_joblib.submit`: in the transaction of the site's code, which asks no hook."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import get_type_hints
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel

import zndraw_joblib
from tests.factories import SCHEMA
from tests.hostcode.transactions import rollback
from zndraw_joblib import asubmit, declare_job, submit
from zndraw_joblib.client.exceptions import RoundTripError
from zndraw_joblib.host.submitting import SubmitOptions
from zndraw_joblib.models import IdempotencyKey, Job, RoomBacklog, Task
from zndraw_joblib.services import submit as submissions

pytestmark = pytest.mark.django_db

NAME = "shop:modifiers:Rotate"


class Rotate(BaseModel):
    angle: float = 90.0


def rows():
    """The numbers of rows that a submit may leave."""
    return [model.objects.count() for model in (Task, IdempotencyKey, RoomBacklog)]


def test_submit_returns_the_pending_task(job, alice):
    task = submit(NAME, {"angle": 45}, created_by=alice.user)
    assert isinstance(task, Task)
    stored = Task.objects.get()
    for name in ("pk", "job_id", "room_id", "created_by", "payload", "status", "created_at"):
        assert getattr(task, name) == getattr(stored, name)
    assert task.status == "pending"
    assert task.room_id == "shop"
    assert task.job_name == NAME
    assert task.created_by == alice.identity
    assert alice.get(f"/tasks/{task.id}").json()["payload"] == {"angle": 45}


def test_a_payload_may_be_an_instance_or_left_out(job):
    assert submit(NAME, Rotate(angle=5)).payload == {"angle": 5.0}
    assert submit(job).payload == {}


def test_later_changes_of_a_payload_do_not_count(job):
    declare_job("shop:modifiers:Any", {})
    given = {"list": [1]}
    task = submit("shop:modifiers:Any", given)
    given["list"].append(2)
    assert task.payload == {"list": [1]}


def test_options_are_those_of_a_request(job):
    at = timezone.now() + timedelta(hours=1)
    task = submit(NAME, retries=3, run_at=at, timeout_seconds=5)
    assert (task.retries, task.retries_left, task.timeout_seconds) == (3, 3, 5)
    assert task.run_at == at
    later = submit(NAME, delay=60)
    assert 55 < (later.run_at - timezone.now()).total_seconds() < 65


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"retries": -1}, "/retries"),
        ({"retries": 101}, "/retries"),
        ({"delay": -1}, "/delay"),
        ({"delay": 1, "run_at": datetime(2030, 1, 1, tzinfo=UTC)}, "/delay"),
        ({"run_at": datetime(2030, 1, 1)}, "/run_at"),
        ({"timeout_seconds": 0}, "/timeout_seconds"),
        ({"payload": {"a": float("nan")}}, "/payload"),
        ({"payload": {"a": {1, 2}}}, "/payload"),
        ({"payload": {"a": "\ud800"}}, "/payload"),
        ({"payload": [1]}, "/payload"),
        ({"created_by": "x" * 256}, "/created_by"),
        ({"created_by": "a\x00"}, "/created_by"),
        ({"idempotency_key": ""}, "/idempotency_key"),
        ({"idempotency_key": "ö"}, "/idempotency_key"),
    ],
)
def test_an_invalid_argument_is_a_validation_error_that_names_it(job, options, pointer):
    with pytest.raises(zndraw_joblib.ValidationError) as caught:
        submit(NAME, **options)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert not Task.objects.exists()


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "payload", [{"a": "\x00"}, nested(64), nested(100_000), {"a": 10**301}, {"\x00": 1}]
)
def test_a_payload_that_a_request_may_not_have_is_refused(payload):
    declare_job("shop:modifiers:Any", {})
    with pytest.raises(zndraw_joblib.ValidationError):
        submit("shop:modifiers:Any", payload)


def test_an_instance_that_its_worker_would_not_get_back_is_refused(job):
    with pytest.raises(RoundTripError):
        submit(NAME, Rotate(angle=float("inf")))


def test_a_payload_that_breaks_the_schema_is_refused_as_over_http(job):
    with pytest.raises(zndraw_joblib.InvalidPayload) as caught:
        submit(NAME, {"angle": "x"})
    assert [error.pointer for error in caught.value.errors] == ["/payload/angle"]


@pytest.mark.parametrize("name", ["shop:modifiers:Other", "shop", "", "a:b:c:d", "@internal:a:b"])
def test_an_unknown_job_is_job_not_found(job, name):
    with pytest.raises(zndraw_joblib.JobNotFound):
        submit(name, {})


def test_a_class_in_place_of_a_name_is_a_type_error(job):
    with pytest.raises(TypeError, match=r"not <class .*Rotate'>"):
        submit(Rotate, {})  # type: ignore[arg-type]


def test_a_job_of_another_room_is_job_not_found(job):
    with pytest.raises(zndraw_joblib.JobNotFound):
        submit(NAME, {}, room_id="other")


def test_a_retired_job_is_job_not_found(job):
    Job.objects.update(retired_at=timezone.now())
    with pytest.raises(zndraw_joblib.JobNotFound):
        submit(NAME, {})


def test_a_global_job_needs_a_room(db):
    declare_job("@global:modifiers:Rotate", SCHEMA)
    with pytest.raises(zndraw_joblib.ValidationError) as caught:
        submit("@global:modifiers:Rotate", {})
    assert caught.value.errors[0].pointer == "/room_id"
    assert submit("@global:modifiers:Rotate", {}, room_id="lab").room_id == "lab"
    with pytest.raises(zndraw_joblib.InvalidRoomId):
        submit("@global:modifiers:Rotate", {}, room_id="a/b")


def test_a_full_room_refuses_a_task(job, settings_of):
    settings_of(max_pending_per_room=1)
    submit(NAME, {})
    with pytest.raises(zndraw_joblib.TooManyPending):
        submit(NAME, {})


def test_the_hooks_of_the_site_are_not_asked(job, settings_of):
    settings_of(room_access="tests.host.locked_room", is_admin="tests.host.is_admin")
    declare_job("locked:modifiers:Rotate", SCHEMA)
    submit("locked:modifiers:Rotate", {})


def by_name(request):
    return request.user.username


def test_the_identity_of_a_user_is_that_of_the_hook(job, alice, settings_of):
    settings_of(identity="tests.hostcode.test_submit.by_name")
    assert submit(NAME, created_by=alice.user).created_by == "alice"
    assert submit(NAME, created_by="somebody").created_by == "somebody"
    assert submit(NAME).created_by == ""
    with pytest.raises(ValueError, match="primary key"):
        submit(NAME, created_by=AnonymousUser())
    with pytest.raises(TypeError, match="not int"):
        submit(NAME, created_by=7)


def test_a_repeated_key_gives_the_first_task_also_over_http(job, bob):
    first = submit(NAME, {"angle": 1}, created_by=bob.user, idempotency_key="one")
    again = submit(NAME, {"angle": 1}, created_by=bob.user, idempotency_key="one")
    assert first.pk == again.pk
    url = f"/rooms/shop/tasks/{NAME}"
    over_http = bob.send(
        "post", url, {"payload": {"angle": 1}}, headers={"idempotency-key": '"one"'}
    )
    assert over_http.json()["id"] == str(first.pk)
    assert Task.objects.count() == 1
    with pytest.raises(zndraw_joblib.IdempotencyKeyReused):
        submit(NAME, {"angle": 2}, created_by=bob.user, idempotency_key="one")


@pytest.mark.django_db(transaction=True)
def test_a_rollback_leaves_nothing(job, settings_of, announced):
    settings_of(max_pending_per_room=10)
    with rollback():
        submit(NAME, {}, idempotency_key="one")
        assert rows() == [1, 1, 1]
    assert rows() == [0, 0, 0]
    assert announced == []


@pytest.mark.django_db(transaction=True)
def test_a_rollback_to_a_savepoint_leaves_nothing(job, announced):
    with transaction.atomic():
        kept = submit(NAME, {})
        with rollback():
            submit(NAME, {}, idempotency_key="one")
    assert rows() == [1, 0, 0]
    assert announced == [kept]


@pytest.mark.django_db(transaction=True)
def test_a_refused_submit_leaves_the_transaction_usable(job, settings_of):
    settings_of(max_pending_per_room=1)
    with transaction.atomic():
        submit(NAME, {})
        for payload, problem in [
            ({}, zndraw_joblib.TooManyPending),
            ({"angle": "x"}, zndraw_joblib.InvalidPayload),
        ]:
            with pytest.raises(problem):
                submit(NAME, payload, idempotency_key="one")
    assert Task.objects.count() == 1
    assert not IdempotencyKey.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_task_is_announced_after_the_commit(job, announced):
    with transaction.atomic():
        task = submit(NAME, {})
        assert announced == []
    assert announced == [task]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_was_rolled_back_is_not_cached(job, monkeypatch):
    """The revision of a schema that is rolled back may be given to another schema.

    Control: with `JobCache.read` caching before the commit, the last submit is accepted.
    """
    monkeypatch.setattr(submissions, "job_cache", submissions.JobCache())
    text = {"properties": {"angle": {"type": "string"}}}
    with rollback():
        declare_job(NAME, text)
        submit(NAME, {"angle": "x"})
    declare_job(NAME, {"properties": {"angle": {"type": "integer"}}})
    with pytest.raises(zndraw_joblib.InvalidPayload):
        submit(NAME, {"angle": "x"})


@pytest.mark.django_db(transaction=True)
def test_a_job_that_was_committed_is_cached(job, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(submissions, "job_cache", submissions.JobCache())
    with transaction.atomic():
        submit(NAME, {})
    with django_assert_num_queries(1):
        submit(NAME, {})


@pytest.mark.django_db(transaction=True)
def test_a_schema_that_changed_in_the_transaction_counts(job):
    submit(NAME, {"angle": 1})
    with transaction.atomic():
        declare_job(NAME, {"properties": {"angle": {"type": "string"}}})
        submit(NAME, {"angle": "x"})
        with pytest.raises(zndraw_joblib.InvalidPayload):
            submit(NAME, {"angle": 1})
    submit(NAME, {"angle": "x"})


@pytest.mark.django_db(transaction=True)
async def test_asubmit_joins_the_transaction_of_sync_code(job):
    task = await asubmit(NAME, {"angle": 1}, created_by="me")
    assert await Task.objects.aget() == task

    def begin():
        atomic = transaction.atomic()
        atomic.__enter__()
        return atomic

    atomic = await sync_to_async(begin)()
    await asubmit(NAME, {"angle": 1})
    await sync_to_async(atomic.__exit__)(ValueError, ValueError(), None)
    assert await sync_to_async(Task.objects.count)() == 1


def test_asubmit_has_the_options_of_submit():
    parameters = inspect.signature(submit).parameters.values()
    options = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert options == set(get_type_hints(SubmitOptions))


def test_a_task_in_a_room_of_its_name_in_another_form_is_found(db):
    declare_job("Gro\u0308ße:modifiers:Rotate", SCHEMA)
    assert submit("Größe:modifiers:Rotate", {}).room_id == "Größe"


def test_a_uuid_is_no_json(job):
    with pytest.raises(zndraw_joblib.ValidationError, match="UUID is not JSON serializable"):
        submit(NAME, {"order": uuid4()})
