"""The endpoints. Rules live in the verbs of the models; views read, ask and answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.db import router, transaction
from django.http import HttpResponse
from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.pagination import page
from zndraw_joblib.api.parsing import invalid, read_idempotency_key
from zndraw_joblib.api.problems import explain
from zndraw_joblib.api.serializers import (
    ClaimBody,
    HeartbeatBody,
    RegistrationBody,
    ReportBody,
    SubmissionBody,
)
from zndraw_joblib.api.waiting import UntilEnd, UntilWork
from zndraw_joblib.documents import (
    job_document,
    job_summary,
    rfc3339,
    task_document,
    worker_document,
)
from zndraw_joblib.exceptions import (
    FieldError,
    Forbidden,
    InvalidCategory,
    InvalidPayload,
    InvalidTaskTransition,
    JobNotFound,
    LeaseLost,
    TaskNotFound,
    TooManyPending,
    ValidationError,
    WorkerNotFound,
)
from zndraw_joblib.fields import canonical_json
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import (
    MAX_IDENTITY_LENGTH,
    IdempotencyKey,
    Job,
    RoomBacklog,
    Task,
    Worker,
    WorkerJobLink,
    new_id,
)
from zndraw_joblib.names import GLOBAL_ROOM, JobName, name_fault
from zndraw_joblib.querysets import TaskQuerySet
from zndraw_joblib.settings import get_settings
from zndraw_joblib.validation import payload_faults, schema_faults


def jobs() -> Any:
    """Jobs on the database that is written to."""
    return Job.objects.using(router.db_for_write(Job))


def tasks() -> TaskQuerySet:
    """Tasks on the database that is written to, with their jobs."""
    return Task.objects.using(router.db_for_write(Task))


def workers() -> Any:
    """Workers on the database that is written to."""
    return Worker.objects.using(router.db_for_write(Worker))


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
        if faults := schema_faults(
            body["schema"],
            max_bytes=settings.max_schema_bytes,
            max_depth=settings.max_schema_depth,
        ):
            raise ValidationError(
                "schema is not accepted; see errors.",
                errors=below("/schema", faults),
            )
        name = JobName(room_id, body["category"], body["name"])
        with transaction.atomic(using=router.db_for_write(Job)):
            worker = self._worker(body.get("worker_id"))
            job, new = worker.register(
                name, body["schema"], settings.lease, settings.max_jobs_per_worker
            )
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
        return task_page(request, tasks().readable().filter(job=job, room_id=room_id))

    @openapi.tasks_submit
    def submit(self, request: Request, room_id: str, full_name: str) -> Response:
        """Submit a task of a job in a room."""
        self.room(room_id, "submit", JobNotFound)
        name = self._visible_name(room_id, full_name)
        payload = self.body(SubmissionBody).get("payload", {})
        key = read_idempotency_key(request._request)
        settings = get_settings()
        using = router.db_for_write(Task)
        try:
            with transaction.atomic(using=using):
                task_id = self._submit(room_id, name, payload, key)
        except TooManyPending:
            limit = settings.max_pending_per_room or 0
            RoomBacklog.objects.using(using).note_full(room_id, limit)
            raise
        return Response(
            task_document(tasks().readable().get(pk=task_id)),
            status=202,
            headers={
                "Location": reverse("zndraw_joblib:task", args=[task_id]),
                "Retry-After": "1",
            },
        )

    def _submit(
        self, room_id: str, name: JobName, payload: dict[str, Any], key: str | None
    ) -> UUID:
        """Accept a task, or find the one that this key made; returns its id."""
        settings, identity, using = get_settings(), self.caller.identity, tasks().db
        task_id = new_id()
        if key is not None:
            kept = IdempotencyKey.objects.using(using).reserve(
                IdempotencyKey.digest(identity, room_id, str(name), key),
                IdempotencyKey.digest(canonical_json(payload)),
                task_id,
                settings.idempotency_key_ttl,
            )
            if kept != task_id:
                return kept
        job = jobs().lock_shared(name)
        if job is None:
            raise JobNotFound
        if faults := self._faults(job, payload):
            raise InvalidPayload(errors=below("/payload", faults))
        if settings.max_pending_per_room is not None:
            RoomBacklog.objects.using(using).admit(room_id, settings.max_pending_per_room)
        job.submit(room_id, payload, identity, settings.task_max_retries, task_id)
        return task_id

    def _faults(self, job: Job, payload: dict[str, Any]) -> Sequence[FieldError]:
        limit = get_settings().max_payload_bytes
        if len(json.dumps(payload, ensure_ascii=False).encode()) > limit:
            return [FieldError(f"The payload must have at most {limit} bytes of JSON.")]
        return payload_faults(job.schema, payload)

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


class TaskViewSet(JobLibView, ViewSet):
    """Tasks."""

    throttle_scopes: ClassVar = {"claim": "joblib_work", "partial_update": "joblib_work"}

    @openapi.tasks_list
    def list(self, request: Request, room_id: str) -> Response:
        """The tasks of a room, newest first."""
        self.room(room_id, "read", TaskNotFound)
        return task_page(request, tasks().readable().filter(room_id=room_id))

    @openapi.tasks_claim
    def claim(self, request: Request) -> Response:
        """Claim the oldest pending task among the worker's jobs."""
        identity = self.caller.identity
        worker_id = bounded(self.body(ClaimBody).get("worker_id") or identity)
        task = tasks().claim(worker_id, identity, get_settings().lease)
        if task:
            return Response({"task": task_document(task)})
        worker = workers().filter(pk=worker_id, identity=identity).first()
        if worker is None and worker_id != identity:
            raise WorkerNotFound
        response = Response({"task": None})
        offered = worker.jobs.values_list("pk", flat=True) if worker else ()
        response.waits_for = UntilWork(tuple(offered))  # type: ignore[attr-defined]
        return response

    @openapi.tasks_retrieve
    def retrieve(self, request: Request, task_id: str) -> Response:
        """One task; `Prefer: wait=N` waits for its end."""
        task = tasks().readable().filter(pk=parse_task_id(task_id)).first()
        if task is None or not self.caller.sees(task):
            raise TaskNotFound
        response = Response(task_document(task))
        if not task.is_terminal:
            response.waits_for = UntilEnd(task.pk, self.caller.sees)  # type: ignore[attr-defined]
        return response

    @openapi.tasks_report
    def partial_update(self, request: Request, task_id: str) -> Response:
        """Report on a task, or cancel it."""
        pk = parse_task_id(task_id)
        body = self.body(ReportBody)
        status, attempt = TaskStatus(body["status"]), body.get("attempt")
        error = cut(body.get("error"), get_settings().max_error_bytes)
        granted = tasks().filter(pk=pk)
        if attempt is not None:
            granted = granted.filter(attempt=attempt)
        # Nearly every report is the worker's own, and needs no look at the task first.
        changed = report(granted.filter(worker_identity=self.caller.identity), status, error)
        if not changed:
            changed = self._report_otherwise(granted, pk, status, attempt, error)
        return Response(task_document(changed[0]))

    def _report_otherwise(
        self,
        granted: TaskQuerySet,
        pk: UUID,
        status: TaskStatus,
        attempt: int | None,
        error: str | None,
    ) -> Sequence[Task]:
        """Report as somebody else, answer a repeated report, or say why it is refused."""
        task = tasks().readable().filter(pk=pk).first()
        if task is None or not self.caller.sees(task):
            raise TaskNotFound
        may = self.caller.runs(task) or self.caller.is_admin
        if status == TaskStatus.CANCELLED:
            may = may or task.created_by == self.caller.identity
        if may and not self.caller.runs(task) and (changed := report(granted, status, error)):
            return changed
        if attempt is not None and (attempt < task.attempt or (may and attempt > task.attempt)):
            raise LeaseLost(
                f"Attempt {attempt} is not the current one, {task.attempt}; drop the result."
            )
        # Of a task that was never granted nobody is the worker: its state alone says no.
        if not may and task.attempt:
            raise Forbidden("Only the owner of the task's worker may report on it.")
        if may and task.status == status:
            return [task]
        raise InvalidTaskTransition(f"A task that is {task.status} cannot become {status}.")


class WorkerViewSet(JobLibView, ViewSet):
    """Workers."""

    throttle_scopes: ClassVar = {
        "create": "joblib_register",
        "partial_update": "joblib_work",
        "destroy": "joblib_work",
    }

    @openapi.workers_list
    def list(self, request: Request) -> Response:
        """The caller's workers, or all for an admin; newest first."""
        found = workers() if self.caller.is_admin else self._own()
        return worker_page(request, found.with_job_count())

    @openapi.workers_of_room
    def of_room(self, request: Request, room_id: str) -> Response:
        """The workers that offer a job in a room, or a global one; newest first."""
        self.room(room_id, "read", WorkerNotFound)
        offering = WorkerJobLink.objects.filter(job__in=jobs().visible_from(room_id))
        return worker_page(
            request, workers().with_job_count().filter(pk__in=offering.values("worker"))
        )

    @openapi.workers_create
    def create(self, request: Request) -> Response:
        """Make a worker of its own for one process."""
        self.body(openapi.EmptyBody)
        settings = get_settings()
        made = workers().enlist(self.caller.identity, settings.max_workers_per_identity)
        document = worker_document(workers().with_job_count().get(pk=made.pk))
        document["heartbeat_interval_seconds"] = settings.heartbeat_interval_seconds
        return Response(document, status=201)

    @openapi.workers_heartbeat
    def partial_update(self, request: Request, worker_id: str) -> Response:
        """Say that a worker lives, and renew the leases of its tasks."""
        listed = self.body(HeartbeatBody).get("tasks")
        grants = None if listed is None else [(grant["id"], grant["attempt"]) for grant in listed]
        with transaction.atomic(using=router.db_for_write(Worker)):
            beaten = self._own().filter(pk=bounded(worker_id)).beat()
            if not beaten:
                raise WorkerNotFound
            renewed = {task.pk for task in beaten[0].renew(get_settings().lease, grants)}
            document = {"id": beaten[0].pk, "last_heartbeat": rfc3339(beaten[0].last_heartbeat)}
            if grants is not None:
                document |= self._missing(grants, renewed)
        return Response(document)

    @openapi.workers_delete
    def destroy(self, request: Request, worker_id: str) -> Response:
        """Remove a worker; its claimed tasks go back to pending."""
        removable = workers() if self.caller.is_admin else self._own()
        worker = removable.filter(pk=bounded(worker_id)).first()
        if worker is None:
            raise WorkerNotFound
        worker.deregister()
        return Response(status=204)

    def _own(self) -> Any:
        return workers().filter(identity=self.caller.identity)

    def _missing(self, grants: Any, renewed: set[UUID]) -> dict[str, Any]:
        gone = [(pk, attempt) for pk, attempt in grants if pk not in renewed]
        cancelled = set(
            tasks()
            .granted(gone)
            .filter(status=TaskStatus.CANCELLED, worker_identity=self.caller.identity)
            .values_list("pk", flat=True)
            if gone
            else ()
        )
        return {
            "lost": [str(pk) for pk, _ in gone if pk not in cancelled],
            "cancelled": [str(pk) for pk, _ in gone if pk in cancelled],
        }


class ProblemTypeView(JobLibView):
    """What a problem's `type` leads to; for everybody."""

    authentication_classes = ()
    permission_classes = ()

    @openapi.problem_types
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Explain a problem type."""
        return explain(request._request, slug)


class MeView(JobLibView):
    """The caller."""

    @openapi.me
    def get(self, request: Request) -> Response:
        """Who the caller is to the job server."""
        return Response({"id": self.caller.identity})


def report(held: TaskQuerySet, status: TaskStatus, error: str | None) -> Sequence[Task]:
    """Move tasks as a report says."""
    match status:
        case TaskStatus.RUNNING:
            return held.start()
        case TaskStatus.COMPLETED:
            return held.complete()
        case TaskStatus.FAILED:
            return held.fail(error)
        case _:
            return held.cancel(error)


def below(prefix: str, faults: Sequence[FieldError]) -> Sequence[FieldError]:
    """Faults of a part of the body, pointed at from the whole."""
    return [FieldError(fault.detail, f"{prefix}{fault.pointer}") for fault in faults]


def cut(text: str | None, limit: int) -> str | None:
    """The first `limit` bytes of a text in UTF-8, whole characters only."""
    return text and text.encode()[:limit].decode(errors="ignore")


def bounded(worker_id: str | None) -> str:
    """A worker's id as the database can look it up."""
    if not worker_id or len(worker_id) > MAX_IDENTITY_LENGTH or not worker_id.isprintable():
        raise WorkerNotFound
    return worker_id


def parse_task_id(text: str) -> UUID:
    """A task's id from a path."""
    try:
        return UUID(text)
    except ValueError as error:
        raise TaskNotFound from error


def task_page(request: Request, found: TaskQuerySet) -> Response:
    """A page of tasks; ``?status=`` filters."""
    status = request.query_params.get("status")
    if status is not None:
        if status not in set(TaskStatus):
            raise invalid(f"status must be one of {', '.join(TaskStatus)}.", "/status")
        found = found.filter(status=status)
    rows, headers = page(found, request, "-created_at", "-id")
    return Response([task_document(task) for task in rows], headers=headers)


def worker_page(request: Request, found: Any) -> Response:
    """A page of workers."""
    rows, headers = page(found, request, "-created_at", "-id")
    return Response([worker_document(worker) for worker in rows], headers=headers)
