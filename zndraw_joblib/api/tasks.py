"""Claims, reports and looks at tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import Any, ClassVar
from uuid import UUID

from django.utils.encoding import escape_uri_path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import UUIDField
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.documents import task_document, task_documents
from zndraw_joblib.api.lookup import bounded, parse_task_id, task_page, task_path, tasks, workers
from zndraw_joblib.api.parsing import invalid, read_body
from zndraw_joblib.api.problems import type_url, validation_problem
from zndraw_joblib.api.serializers import ClaimBody, ListedReportBody, LookupBody, ReportBody
from zndraw_joblib.api.waiting import UntilEnd, UntilWork
from zndraw_joblib.exceptions import (
    Forbidden,
    InvalidTaskTransition,
    LeaseLost,
    ProblemException,
    TaskNotFound,
    WorkerNotFound,
)
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task, WorkerJobLink
from zndraw_joblib.services.lookup import find_task, find_tasks
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.statements import Report


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
        documents = task_documents(granted)
        answer: dict[str, Any] = {"task": documents[0] if documents else None}
        response = Response(answer if limit is None else answer | {"tasks": documents})
        if not granted:
            response.waits_for = UntilWork(worker_id, self._offered(worker_id))  # type: ignore[attr-defined]
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
        task = find_task(parse_task_id(task_id), self.caller)
        response = Response(task_document(task))
        if not task.is_terminal:
            until = UntilEnd({task.id: task.room_id}, self.caller.visible)
            response.waits_for = until  # type: ignore[attr-defined]
        return response

    @openapi.tasks_lookup
    def lookup(self, request: Request) -> Response:
        """Those of the tasks that the caller may read, in the order of `ids`, each once.

        `Prefer: wait=N` waits until the first of them ends; it answers at once if one has ended
        already, or if there is none to wait for.
        """
        found = find_tasks(self.body(LookupBody)["ids"], self.caller)
        response = Response(task_documents(found))
        if found and not any(task.is_terminal for task in found):
            rooms = {task.id: task.room_id for task in found}
            until = UntilEnd(rooms, self.caller.visible, many=True)
            response.waits_for = until  # type: ignore[attr-defined]
        return response

    @openapi.tasks_report
    def partial_update(self, request: Request, task_id: str) -> Response:
        """Report on a task, or cancel it."""
        body = self.body(ReportBody)
        status, said = parse_report(parse_task_id(task_id), body)
        # Nearly every report is the worker's own, and needs no look at the task first.
        moved = tasks().report(status, [said], self.caller.identity)
        (document,) = task_documents(moved or [self._report_otherwise(status, said)])
        return Response(document)

    @openapi.tasks_report_many
    def report_many(self, request: Request) -> Response:
        """Report on several tasks; each report stands alone and has its own result.

        Only a list in which no report can be read is refused as a whole.
        """
        entries = read_body(request._request)
        valid, faults = self.bodies(ListedReportBody, entries)
        if not valid:
            raise validation_problem(faults)
        said = [parse_report(body["id"], body) for body in valid.values()]
        done = [result for wave in waves(said) for result in self._report_wave(wave)]
        results = dict(zip(valid, done, strict=True))
        for index, fault in faults.items():
            # Pointers are into the whole body.
            refusal = refused(validation_problem({index: fault}), escape_uri_path(request.path))
            known = isinstance(entries[index], dict) and "id" not in fault
            task_id = UUIDField().to_internal_value(entries[index]["id"]) if known else None
            results[index] = {"id": task_id, **refusal}
        return Response([results[index] for index in range(len(entries))])

    def _report_wave(self, wave: Sequence[tuple[TaskStatus, Report]]) -> Iterator[dict[str, Any]]:
        by_status = defaultdict(list)
        for status, said in wave:
            by_status[status].append(said)
        done: dict[UUID, dict[str, Any]] = {}
        for status, reports in by_status.items():
            moved = task_documents(tasks().report(status, reports, self.caller.identity))
            done.update((document["id"], document) for document in moved)
        left = [said.task_id for _, said in wave if said.task_id not in done]
        known = tasks().read(left) if left else {}
        for status, said in wave:
            result: dict[str, Any] = {"id": said.task_id, "status": 200}
            try:
                result["task"] = done.get(said.task_id) or task_document(
                    self._report_otherwise(status, said, known.get(said.task_id))
                )
            except ProblemException as problem:
                result |= refused(problem, task_path(said.task_id))
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


def refused(problem: ProblemException, path: str) -> dict[str, Any]:
    """What the result of a report says when it was refused."""
    document = problem.document(type_url(type(problem)), path)
    return {"status": problem.status, "problem": document}


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


def cut(text: str, limit: int) -> str:
    """The first `limit` bytes of a text in UTF-8, whole characters only."""
    return text.encode()[:limit].decode(errors="ignore")
