"""The endpoints. Rules live in the verbs of the models; views read, ask and answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import EllipsisType
from typing import Any, ClassVar
from unicodedata import category
from uuid import UUID

from django.db import router, transaction
from django.http import HttpResponse
from django.urls import get_script_prefix, get_urlconf, reverse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.pagination import Page, page
from zndraw_joblib.api.parsing import invalid, read_body, read_idempotency_key
from zndraw_joblib.api.problems import explain, type_url
from zndraw_joblib.api.serializers import (
    ClaimBody,
    HeartbeatBody,
    ListedReportBody,
    RegistrationBody,
    ReportBody,
    SubmissionBody,
)
from zndraw_joblib.api.waiting import UntilEnd, UntilWork
from zndraw_joblib.documents import (
    job_document,
    job_summary,
    task_document,
    utc,
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
    ProblemException,
    TaskNotFound,
    ValidationError,
    WorkerNotFound,
)
from zndraw_joblib.fields import canonical_json
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import (
    MAX_IDENTITY_LENGTH,
    Job,
    Task,
    Worker,
    WorkerJobLink,
)
from zndraw_joblib.names import GLOBAL_ROOM, JobName, name_fault
from zndraw_joblib.querysets import TaskQuerySet
from zndraw_joblib.settings import get_settings
from zndraw_joblib.statements import Report
from zndraw_joblib.submissions import submit
from zndraw_joblib.validation import schema_faults

#: Stands for a task in a path.
NO_TASK = UUID(int=0)


def jobs() -> Any:
    """Jobs on the database that is written to."""
    return Job.objects.using(router.db_for_write(Job))


def tasks() -> TaskQuerySet:
    """Tasks on the database that is written to."""
    # As `Task.objects.using` does, at an eighth of its cost.
    return TaskQuerySet(Task, using=router.db_for_write(Task))


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
            return self._submit_many(room_id, name, self.bodies(SubmissionBody, body))
        payload = self.body(SubmissionBody).get("payload", {})
        try:
            (task,) = self._submit(room_id, name, [payload], payload)
        except InvalidPayload as refusal:
            faults = [FieldError(e.detail, e.pointer.removeprefix("/0")) for e in refusal.errors]
            raise InvalidPayload(errors=faults) from refusal
        return accepted(task_document(task), task_path(task.pk))

    def _submit_many(
        self, room_id: str, name: JobName, bodies: Sequence[dict[str, Any]]
    ) -> Response:
        payloads = [body.get("payload", {}) for body in bodies]
        made = self._submit(room_id, name, payloads, payloads)
        where = reverse("zndraw_joblib:job-tasks", args=[room_id, str(name)])
        return accepted([task_document(task) for task in made], where)

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


class TaskViewSet(JobLibView, ViewSet):
    """Tasks."""

    throttle_scopes: ClassVar = {
        "claim": "joblib_work",
        "partial_update": "joblib_work",
        "report_many": "joblib_work",
    }

    @openapi.tasks_list
    def list(self, request: Request, room_id: str) -> Response:
        """The tasks of a room, newest first."""
        self.room(room_id, "read", TaskNotFound)
        return task_page(request, room_id)

    @openapi.tasks_claim
    def claim(self, request: Request) -> Response:
        """Claim the oldest pending tasks among the worker's jobs, one unless `limit` is given."""
        identity = self.caller.identity
        body = self.body(ClaimBody)
        worker_id = bounded(body.get("worker_id") or identity)
        settings, limit = get_settings(), body.get("limit")
        if limit is not None and limit > settings.max_batch_size:
            raise invalid(f"limit must be at most {settings.max_batch_size}.", "/limit")
        granted = tasks().claim_many(
            worker_id, identity, settings.lease, limit or 1, body.get("start", False)
        )
        documents = [task_document(task) for task in granted]
        answer: dict[str, Any] = {"task": documents[0] if documents else None}
        response = Response(answer if limit is None else answer | {"tasks": documents})
        if not granted:
            response.waits_for = UntilWork(self._offered(worker_id))  # type: ignore[attr-defined]
        return response

    def _offered(self, worker_id: str) -> tuple[UUID, ...]:
        """The jobs of one of the caller's workers. The default worker need not exist."""
        identity = self.caller.identity
        links = WorkerJobLink.objects.using(tasks().db)
        offered = links.filter(worker=worker_id, worker__identity=identity)
        found = tuple(offered.values_list("job_id", flat=True))
        mine = workers().filter(pk=worker_id, identity=identity)
        if not found and worker_id != identity and not mine.exists():
            raise WorkerNotFound
        return found

    @openapi.tasks_retrieve
    def retrieve(self, request: Request, task_id: str) -> Response:
        """One task; `Prefer: wait=N` waits for its end."""
        pk = parse_task_id(task_id)
        task = tasks().read([pk]).get(pk)
        if task is None or not self.caller.sees(task):
            raise TaskNotFound
        response = Response(task_document(task))
        if not task.is_terminal:
            until = UntilEnd(task.pk, task.room_id, self.caller.sees)
            response.waits_for = until  # type: ignore[attr-defined]
        return response

    @openapi.tasks_report
    def partial_update(self, request: Request, task_id: str) -> Response:
        """Report on a task, or cancel it."""
        body = self.body(ReportBody)
        status, said = parse_report(parse_task_id(task_id), body)
        # Nearly every report is the worker's own, and needs no look at the task first.
        moved = tasks().report(status, [said], self.caller.identity)
        task = moved[0] if moved else self._report_otherwise(status, said)
        return Response(task_document(task))

    @openapi.tasks_report_many
    def report_many(self, request: Request) -> Response:
        """Report on several tasks; each report stands alone and has its own result."""
        bodies = self.bodies(ListedReportBody, read_body(request._request))
        said = [parse_report(body["id"], body) for body in bodies]
        return Response([result for wave in waves(said) for result in self._report_wave(wave)])

    def _report_wave(self, wave: Sequence[tuple[TaskStatus, Report]]) -> Iterator[dict[str, Any]]:
        by_status = defaultdict(list)
        for status, said in wave:
            by_status[status].append(said)
        done: dict[UUID, Task] = {}
        for status, reports in by_status.items():
            moved = tasks().report(status, reports, self.caller.identity)
            done.update((task.pk, task) for task in moved)
        left = [said.task_id for _, said in wave if said.task_id not in done]
        known = tasks().read(left) if left else {}
        for status, said in wave:
            result: dict[str, Any] = {"id": said.task_id, "status": 200}
            try:
                task = done.get(said.task_id) or self._report_otherwise(
                    status, said, known.get(said.task_id)
                )
            except ProblemException as problem:
                result["status"] = problem.status
                result["problem"] = problem.document(
                    type_url(type(problem)), task_path(said.task_id)
                )
            else:
                result["task"] = task_document(task)
            yield result

    def _report_otherwise(
        self, status: TaskStatus, said: Report, task: Task | EllipsisType | None = ...
    ) -> Task:
        """Report as somebody else, answer a repeated report, or say why it is refused.

        `task` is the task as it was read, None when there is none; left out, it is read.
        """
        if task is ...:
            task = tasks().read([said.task_id]).get(said.task_id)
        if task is None or not self.caller.sees(task):
            raise TaskNotFound
        runs, also = self.caller.runs(task), self.caller.is_admin
        may = runs or also
        if status == TaskStatus.CANCELLED:
            also = also or task.created_by == self.caller.identity
            # A task that was taken from its worker is not the worker's to cancel any more.
            may = also or (runs and task.status != TaskStatus.PENDING)
        if also:
            granted = tasks().filter(pk=task.pk).by_attempt(said.attempt)
            if moved := granted.move(status, said.error):
                return moved[0]
        if (may or runs) and said.attempt not in {None, task.attempt}:
            raise LeaseLost(
                f"Attempt {said.attempt} is not the current one, {task.attempt}; drop the result."
            )
        if not may:
            if status == TaskStatus.CANCELLED:
                raise Forbidden("Only its submitter, or the worker that holds it, may cancel it.")
            raise Forbidden("Only the owner of the task's worker may report on it.")
        if task.status == status:
            return task
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
        with transaction.atomic(using=router.db_for_write(Worker)):
            made = workers().enlist(self.caller.identity, settings.max_workers_per_identity)
            document = worker_document(workers().with_job_count().get(pk=made.pk))
        document["heartbeat_interval_seconds"] = settings.heartbeat_interval_seconds
        return Response(document, status=201)

    @openapi.workers_heartbeat
    def partial_update(self, request: Request, worker_id: str) -> Response:
        """Say that a worker lives, and renew the leases of its tasks."""
        listed = self.body(HeartbeatBody).get("tasks")
        grants = None if listed is None else [(grant["id"], grant["attempt"]) for grant in listed]
        beat = workers().beat(bounded(worker_id), self.caller.identity)
        if beat is None:
            raise WorkerNotFound
        document = {"id": beat.worker_id, "last_heartbeat": utc(beat.last_heartbeat)}
        lease, renewed = get_settings().lease, set()
        if beat.holds and grants != []:
            renewed = tasks().renew(beat.worker_id, lease, grants)
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
            "lost": [pk for pk, _ in gone if pk not in cancelled],
            "cancelled": [pk for pk, _ in gone if pk in cancelled],
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


def accepted(document: Any, where: str) -> Response:
    """What was submitted, and where to look for it."""
    return Response(document, status=202, headers={"Location": where, "Retry-After": "1"})


def task_path(task_id: UUID) -> str:
    """Where a task is found."""
    return _path_of_no_task(get_script_prefix(), get_urlconf()).replace(str(NO_TASK), str(task_id))


@lru_cache(maxsize=64)
def _path_of_no_task(prefix: str, urlconf: Any) -> str:
    # Reversed once for each place that the site lies at, as it takes long.
    return reverse("zndraw_joblib:task", urlconf, args=[NO_TASK])


def parse_report(task_id: UUID, body: dict[str, Any]) -> tuple[TaskStatus, Report]:
    """The status that a report asks for, and the rest of it."""
    error = body.get("error")
    if error:
        error = cut(error, get_settings().max_error_bytes)
    return TaskStatus(body["status"]), Report(task_id, body.get("attempt"), error)


def waves(
    said: Sequence[tuple[TaskStatus, Report]],
) -> Iterator[list[tuple[TaskStatus, Report]]]:
    """Reports in order, cut where a task comes again: those of a wave do not touch each other."""
    wave: list[tuple[TaskStatus, Report]] = []
    seen: set[UUID] = set()
    for status, report in said:
        if report.task_id in seen:
            yield wave
            wave, seen = [], set()
        wave.append((status, report))
        seen.add(report.task_id)
    yield wave


def below(prefix: str, faults: Sequence[FieldError]) -> Sequence[FieldError]:
    """Faults of a part of the body, pointed at from the whole."""
    return [FieldError(fault.detail, f"{prefix}{fault.pointer}") for fault in faults]


def cut(text: str, limit: int) -> str:
    """The first `limit` bytes of a text in UTF-8, whole characters only."""
    return text.encode()[:limit].decode(errors="ignore")


def bounded(worker_id: str | None) -> str:
    """A worker's id as the database can look it up."""
    if not worker_id or len(worker_id) > MAX_IDENTITY_LENGTH or _has_controls(worker_id):
        raise WorkerNotFound
    return worker_id


def _has_controls(text: str) -> bool:
    """Whether it holds control characters or surrogates; other unprintable ones may be a name."""
    return not text.isprintable() and any(category(char) in {"Cc", "Cs"} for char in text)


def parse_task_id(text: str) -> UUID:
    """A task's id from a path."""
    try:
        return UUID(text)
    except ValueError as error:
        raise TaskNotFound from error


def task_page(request: Request, room_id: str, job: Job | None = None) -> Response:
    """A page of a room's tasks, or of one job's; ``?status=`` filters."""
    status = request.query_params.get("status")
    if status is not None and status not in set(TaskStatus):
        raise invalid(f"status must be one of {', '.join(TaskStatus)}.", "/status")
    asked = Page(Task, request, "-created_at", "-id")
    if job is None and status is None:
        before = (asked.after[0], asked.after[1]) if asked.after else None
        ids = tasks().newest(room_id, asked.limit + 1, before)
    else:
        found = tasks().filter(room_id=room_id)
        found = found if job is None else found.filter(job=job)
        found = found if status is None else found.filter(status=status)
        ids = asked.of(found.values_list("pk", flat=True))
    listed = tasks().listed(ids[: asked.limit])
    headers = asked.link(listed[-1]) if listed and len(ids) > asked.limit else {}
    # One may have gone on to another status in between.
    documents = [task_document(task) for task in listed if status in {None, task.status}]
    return Response(documents, headers=headers)


def worker_page(request: Request, found: Any) -> Response:
    """A page of workers."""
    rows, headers = page(found, request, "-created_at", "-id")
    return Response([worker_document(worker) for worker in rows], headers=headers)
