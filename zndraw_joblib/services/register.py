"""Registers a job, which a worker then offers in a room."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import router, transaction

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import (
    FieldError,
    InvalidCategory,
    SchemaConflict,
    TooManyJobs,
    ValidationError,
    WorkerNotFound,
)
from zndraw_joblib.models import Job, Worker, WorkerJobLink
from zndraw_joblib.names import JobName, name_error, nfc
from zndraw_joblib.schemas import schema_errors
from zndraw_joblib.services.workers import own_worker
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import canonical_json
from zndraw_joblib.text import Message


def register(
    caller: Caller,
    room_id: str,
    category: str,
    name: str,
    schema: dict[str, Any],
    worker_id: str | None,
) -> tuple[Job, Worker, bool]:
    """Register a job for one of the caller's workers.

    Returns the job with `worker_count`, the worker, and whether the job is new. `worker_id` None is
    the caller's default worker.

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
) -> tuple[Job, bool]:
    """Link a worker to a job; creates a job that is new, and revives one that was retired.

    Returns the job, and whether it was created or revived. If no live worker is registered with
    another schema, this schema replaces it, and stale workers are unlinked. A worker is live while
    its last heartbeat is at most `lease` old.

    Raises
    ------
    SchemaConflict
        A live worker, perhaps this one, has registered another schema.
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
        wanted = Job(room_id=name.room_id, category=name.category, name=name.name)
        wanted.schema = schema
        jobs = Job.objects.using(using)
        jobs.bulk_create([wanted], ignore_conflicts=True)
        job: Job = jobs.named(name).select_for_update().get()
        if canonical_json(job.schema) != canonical_json(schema):
            _replace_schema(job, schema, links.filter(job=job), workers.stale(lease))
        new = job.pk == wanted.pk or job.retired_at is not None
        job.retired_at = None
        job.save(using=using, update_fields=["schema", "revision", "retired_at"])
        links.bulk_create([WorkerJobLink(worker=worker, job=job)], ignore_conflicts=True)
        own = links.filter(worker=worker)
        if max_jobs is not None and own[: max_jobs + 1].count() > max_jobs:
            raise TooManyJobs(Message("A worker offers at most {limit} jobs.", limit=max_jobs))
        return job, new


def _replace_schema(job: Job, schema: dict[str, Any], links: Any, stale: Any) -> None:
    """Set another schema, unless a live worker offers the job with the present one."""
    if links.exclude(worker__in=stale).exists():
        raise SchemaConflict(
            Message(
                "{job} is registered with another schema by a live worker; register the "
                "same schema, or stop the workers that offer the other one.",
                job=job.full_name,
            )
        )
    links.delete()
    job.schema = schema
    job.revision += 1
