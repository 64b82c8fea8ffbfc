"""Jobs of a room, and submits of their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import router, transaction
from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.documents import job_document, job_summary, task_documents
from zndraw_joblib.api.lookup import bounded, jobs, task_page, task_path, workers
from zndraw_joblib.api.pagination import page
from zndraw_joblib.api.parsing import invalid, read_body, read_idempotency_key
from zndraw_joblib.api.problems import validation_problem
from zndraw_joblib.api.serializers import RegistrationBody, SubmissionBody
from zndraw_joblib.exceptions import (
    FieldError,
    InvalidCategory,
    InvalidPayload,
    JobNotFound,
    ValidationError,
    WorkerNotFound,
)
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.names import GLOBAL_ROOM, JobName, name_fault
from zndraw_joblib.schemas import schema_errors
from zndraw_joblib.services.submit import submit
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import canonical_json


class JobViewSet(JobLibView, ViewSet):
    """Jobs of a room."""

    throttle_scopes: ClassVar = {"register": "joblib_register", "submit": "joblib_submit"}

    @openapi.jobs_list
    def list(self, request: Request, room_id: str) -> Response:
        """The room's own jobs and the global ones."""
        self._offers(room_id)
        found = jobs().visible_from(room_id).with_worker_count()
        rows, headers = page(found, request, "room_id", "category", "name")
        return Response([job_summary(job) for job in rows], headers=headers)

    @openapi.jobs_register
    def register(self, request: Request, room_id: str) -> Response:
        """Offer a job in a room, by one of the caller's workers."""
        self.room(room_id, "register", JobNotFound)
        body = self.body(RegistrationBody)
        settings = get_settings()
        if body["category"] not in settings.allowed_categories:
            raise InvalidCategory(
                f"{body['category'][:100]!r} is not one of "
                f"{', '.join(settings.allowed_categories)}.",
                errors=[FieldError("Not an allowed category.", "/category")],
            )
        if fault := name_fault(body["name"]):
            raise invalid(f"name {fault}.", "/name")
        if errors := schema_errors(
            body["schema"],
            max_bytes=settings.max_schema_bytes,
            max_depth=settings.max_schema_depth,
        ):
            raise ValidationError(
                "schema is not accepted; see errors.",
                errors=below("/schema", errors),
            )
        name = JobName(room_id, body["category"], body["name"])
        with transaction.atomic(using=router.db_for_write(Job)):
            worker = self._worker(body.get("worker_id"))
            job, new = worker.register(
                name, body["schema"], settings.lease, settings.max_jobs_per_worker
            )
            # Here, so that an answer that cannot be read leaves nothing behind.
            job = jobs().with_worker_count().get(pk=job.pk)
        document = job_document(job) | {"worker_id": worker.pk}
        return Response(document, status=201 if new else 200)

    @openapi.jobs_retrieve
    def retrieve(self, request: Request, room_id: str, full_name: str) -> Response:
        """One job, with its schema."""
        self._offers(room_id)
        return Response(job_document(self._job(room_id, full_name, jobs().with_worker_count())))

    @openapi.jobs_tasks
    def tasks(self, request: Request, room_id: str, full_name: str) -> Response:
        """The room's tasks of one job, newest first."""
        self.room(room_id, "read", JobNotFound)
        job = self._job(room_id, full_name, jobs())
        return task_page(request, room_id, job)

    @openapi.tasks_submit
    def submit(self, request: Request, room_id: str, full_name: str) -> Response:
        """Submit a task of a job in a room, or with an array several, all or none."""
        self.room(room_id, "submit", JobNotFound)
        name = self._visible_name(room_id, full_name)
        body = read_body(request._request)
        if isinstance(body, list):
            valid, wrong = self.bodies(SubmissionBody, body)
            if wrong:
                raise validation_problem(wrong)
            return self._submit_many(room_id, name, [*valid.values()])
        payload = self.body(SubmissionBody).get("payload", {})
        try:
            made = self._submit(room_id, name, [payload], payload)
        except InvalidPayload as refusal:
            faults = [FieldError(e.detail, e.pointer.removeprefix("/0")) for e in refusal.errors]
            raise InvalidPayload(errors=faults) from refusal
        (document,) = task_documents(made)
        return accepted(document, task_path(document["id"]))

    def _submit_many(
        self, room_id: str, name: JobName, bodies: Sequence[dict[str, Any]]
    ) -> Response:
        payloads = [body.get("payload", {}) for body in bodies]
        made = self._submit(room_id, name, payloads, payloads)
        where = reverse("zndraw_joblib:job-tasks", args=[room_id, str(name)])
        return accepted(task_documents(made), where)

    def _submit(
        self, room_id: str, name: JobName, payloads: Sequence[dict[str, Any]], request: Any
    ) -> Sequence[Task]:
        key = read_idempotency_key(self.request._request)
        once = None if key is None else (key, canonical_json(request))
        return submit(room_id, name, payloads, self.caller.identity, once)

    def _offers(self, room_id: str) -> None:
        """See to it that the caller may see the room's jobs. The global ones are everybody's."""
        if room_id != GLOBAL_ROOM:
            self.room(room_id, "read", JobNotFound)

    def _job(self, room_id: str, full_name: str, among: Any) -> Job:
        job: Job | None = among.live().named(self._visible_name(room_id, full_name)).first()
        if job is None:
            raise JobNotFound
        return job

    def _visible_name(self, room_id: str, full_name: str) -> JobName:
        try:
            name = JobName.parse(full_name)
        except ValueError as error:
            raise JobNotFound(f"{error}.") from error
        if name.room_id not in {room_id, GLOBAL_ROOM}:
            raise JobNotFound
        return name

    def _worker(self, worker_id: str | None) -> Worker:
        identity = self.caller.identity
        worker_id = bounded(worker_id or identity)
        worker: Worker | None = workers().filter(pk=worker_id).first()
        if worker is None and worker_id == identity:
            limit = get_settings().max_workers_per_identity
            worker = workers().enlist(identity, limit, identity)
        if worker is None or worker.identity != identity:
            raise WorkerNotFound
        return worker


def accepted(document: Any, where: str) -> Response:
    """What was submitted, and where to look for it."""
    return Response(document, status=202, headers={"Location": where, "Retry-After": "1"})


def below(prefix: str, faults: Sequence[FieldError]) -> Sequence[FieldError]:
    """Faults of a part of the body, pointed at from the whole."""
    return [FieldError(fault.detail, f"{prefix}{fault.pointer}") for fault in faults]
