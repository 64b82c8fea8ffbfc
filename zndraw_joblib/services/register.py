"""Registers a job, which a worker then offers in a room, and withdraws it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, timedelta
from typing import Any

from django.db import router, transaction

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import (
    FieldError,
    InvalidCategory,
    JobNotFound,
    SchemaConflict,
    TooManyJobs,
    ValidationError,
    WorkerNotFound,
)
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.models import Job, Worker, WorkerJobLink
from zndraw_joblib.names import JobName, name_error, nfc
from zndraw_joblib.schemas import same_meaning, schema_errors
from zndraw_joblib.services.workers import checked_worker_id, own_worker, visible_workers
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import json_dumps
from zndraw_joblib.storage.locking import delete_in_order
from zndraw_joblib.text import Message


def register(
    caller: Caller,
    room_id: str,
    category: str,
    name: str,
    schema: dict[str, Any],
    worker_id: str | None,
    *,
    retry: RetryPolicy | None = None,
    durable: bool | None = None,
) -> tuple[Job, Worker, bool]:
    """Register a job for one of the caller's workers.

    Returns the job with `worker_count`, the worker, and whether the job is new. `worker_id` None is
    the caller's default worker. `retry` and `durable` None stay as they were.

    Raises
    ------
    InvalidRoomId, Forbidden
        The caller may not register in this room.
    InvalidCategory, ValidationError
        The category is not allowed, or the name or the schema is not accepted.
    SchemaConflict, TooManyJobs, TooManyWorkers, WorkerNotFound
        As in `offer`.
    """
    room_id, category, name = nfc(room_id), nfc(category), nfc(name)
    caller.require("register", room_id)
    check_registration(category, name, schema)
    settings = get_settings()
    using = router.db_for_write(Job)
    with transaction.atomic(using=using):
        worker = own_worker(caller, worker_id)
        job, new = offer(
            worker,
            JobName(room_id, category, name),
            schema,
            settings.lease,
            settings.max_jobs_per_worker,
            retry=retry,
            durable=durable,
        )
        # Read in the transaction, because a failed read must undo the registration.
        counted: Job = Job.objects.using(using).with_worker_count().get(pk=job.pk)
        return counted, worker, new


def check_registration(category: str, name: str, schema: dict[str, Any]) -> None:
    """Check the category, the name and the schema; raises as `register` does."""
    settings = get_settings()
    if category not in settings.allowed_categories:
        raise InvalidCategory(
            Message(
                "{category} is not one of {allowed}.",
                category=repr(category[:100]),
                allowed=", ".join(settings.allowed_categories),
            ),
            errors=[FieldError(Message("Not an allowed category."), "/category")],
        )
    if error := name_error(name):
        detail = Message("name {error}.", error=error)
        raise ValidationError(detail, errors=[FieldError(detail, "/name")])
    errors = schema_errors(
        schema, max_bytes=settings.max_schema_bytes, max_depth=settings.max_schema_depth
    )
    if errors:
        raise ValidationError(
            Message("schema is not accepted; see errors."),
            errors=[FieldError(error.detail, f"/schema{error.pointer}") for error in errors],
        )


def offer(
    worker: Worker,
    name: JobName,
    schema: dict[str, Any],
    lease: timedelta,
    max_jobs: int | None = None,
    *,
    retry: RetryPolicy | None = None,
    durable: bool | None = None,
) -> tuple[Job, bool]:
    """Link a worker to a job; creates a job that is new, and revives one that was retired.

    Returns the job, and whether it was created or revived. While a live worker offers the job, its
    schema stays as it is. Otherwise this schema takes over, and stale workers are unlinked if it
    means something else. A worker is live while its last heartbeat is at most `lease` old. `retry`
    and `durable` None stay as they were.

    Raises
    ------
    SchemaConflict
        A live worker, perhaps this one, has registered a schema that means something else.
    TooManyJobs
        The worker would offer more than `max_jobs`.
    WorkerNotFound
        The worker was removed meanwhile.
    """
    using = router.db_for_write(Job, instance=worker)
    workers = Worker.objects.db_manager(using)
    links = WorkerJobLink.objects.using(using)
    with transaction.atomic(using=using):
        # The heartbeat locks the worker's row, so that the sweeper cannot remove the worker before
        # the link is made, and two registrations of a worker cannot both be its last allowed job.
        if workers.record_heartbeat(worker.pk, worker.identity) is None:
            raise WorkerNotFound
        job, new = _put_job(using, name, schema, lease, retry, durable)
        links.bulk_create([WorkerJobLink(worker=worker, job=job)], ignore_conflicts=True)
        own = links.filter(worker=worker)
        if max_jobs is not None and own[: max_jobs + 1].count() > max_jobs:
            raise TooManyJobs(Message("A worker offers at most {limit} jobs.", limit=max_jobs))
        return job, new


def declare(
    caller: Caller,
    name: JobName,
    schema: dict[str, Any],
    *,
    retry: RetryPolicy | None = None,
    durable: bool = True,
) -> Job:
    """Create, revive or change a job without a worker; raises as `check_declaration`.

    Raises
    ------
    SchemaConflict
        A live worker offers the job with a schema that means something else.
    """
    check_declaration(caller, name, schema)
    using = router.db_for_write(Job)
    with transaction.atomic(using=using):
        return _put_job(using, name, schema, get_settings().lease, retry, durable)[0]


def check_declaration(caller: Caller, name: JobName, schema: dict[str, Any]) -> None:
    """Check a declaration without a query; raises as `register` does."""
    caller.require("register", name.room_id)
    check_registration(name.category, name.name, schema)


def _put_job(
    using: str,
    name: JobName,
    schema: dict[str, Any],
    lease: timedelta,
    retry: RetryPolicy | None,
    durable: bool | None,
) -> tuple[Job, bool]:
    """Create, revive or change a job, in the caller's transaction; as `offer`."""
    wanted = Job(room_id=name.room_id, category=name.category, name=name.name, schema=schema)
    jobs = Job.objects.using(using)
    jobs.bulk_create([wanted], ignore_conflicts=True)
    job: Job = jobs.named(name).select_for_update().get()
    if json_dumps(job.schema) != json_dumps(schema):
        links = WorkerJobLink.objects.using(using).filter(job=job)
        _replace_schema(job, schema, links, Worker.objects.using(using).stale(lease))
    new = job.pk == wanted.pk or job.retired_at is not None
    job.retired_at = None
    changed = ["schema", "revision", "retired_at"]
    if retry is not None:
        job.set_retry(retry)
        changed += asdict(retry)
    if durable is not None:
        job.durable = durable
        changed.append("durable")
    job.save(using=using, update_fields=changed)
    return job, new


def _replace_schema(job: Job, schema: dict[str, Any], links: Any, stale: Any) -> None:
    """Set a schema that is written otherwise, unless a live worker offers the job.

    Raises
    ------
    SchemaConflict
        A live worker offers the job, and its schema means something else.
    """
    live = links.exclude(worker__in=stale).order_by("-worker__last_heartbeat")
    latest: WorkerJobLink | None = live.select_related("worker").first()
    same = same_meaning(job.schema, schema)
    if latest is not None:
        if same:
            return
        others = live.count() - 1
        seen = latest.worker.last_heartbeat.astimezone(UTC).isoformat(timespec="seconds")
        raise SchemaConflict(
            Message(
                "{job} is registered with another schema by the live worker {worker}, last seen "
                "at {seen}{others}; register the same schema, or withdraw or stop these workers.",
                job=job.full_name,
                worker=latest.worker_id,
                seen=seen.replace("+00:00", "Z"),
                others=Message(", and by {number} more", number=others) if others else "",
            )
        )
    if not same:
        delete_in_order(links)
        job.revision += 1
    job.schema = schema


def withdraw(caller: Caller, worker_id: str, full_name: str) -> None:
    """Make a worker that the caller owns or administers offer a job no more.

    The worker keeps the tasks of the job that it holds. Pending ones wait for other workers, or for
    the next registration. A job without workers and unfinished tasks is retired by the next sweep.

    Raises
    ------
    WorkerNotFound
        The worker does not exist, or the caller neither owns it nor is an administrator.
    JobNotFound
        The worker does not offer such a job.
    """
    own = visible_workers(caller).filter(pk=checked_worker_id(worker_id))
    try:
        name = JobName.parse(full_name)
    except ValueError:
        name = None
    if name is not None:
        using = router.db_for_write(Job)
        links = WorkerJobLink.objects.using(using).filter(
            worker__in=own, job__in=Job.objects.using(using).named(name)
        )
        # The number of deleted rows decides, because another request may withdraw the job as well.
        if links.delete()[0]:
            return
    raise (
        JobNotFound(Message("The worker does not offer such a job."))
        if own.exists()
        else WorkerNotFound
    )
