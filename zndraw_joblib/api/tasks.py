"""Views of tasks: claims, reports, lookups and lists."""

from __future__ import annotations

from itertools import chain
from typing import Any, ClassVar
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.awaited import UntilChange, UntilEnd, UntilWork
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.bodies import EmptyBody
from zndraw_joblib.api.conditional import known_tags
from zndraw_joblib.api.documents import task_document, task_tag
from zndraw_joblib.api.lists import attempt_page, submitted_page, task_page
from zndraw_joblib.api.lookup import accepted, parse_task_id
from zndraw_joblib.api.parsing import (
    invalid_fields,
    read_body,
    read_idempotency_key,
    read_traceparent,
)
from zndraw_joblib.api.paths import request_path, task_path
from zndraw_joblib.api.problems import type_url
from zndraw_joblib.api.task_bodies import ClaimBody, ListedReportBody, LookupBody, ReportBody
from zndraw_joblib.exceptions import ProblemException, TaskNotFound
from zndraw_joblib.services.claim import claim, jobs_of_worker
from zndraw_joblib.services.lookup import find_task, find_tasks
from zndraw_joblib.services.report import report, report_each
from zndraw_joblib.services.retry import retry
from zndraw_joblib.storage.fields import json_dumps
from zndraw_joblib.storage.rows import Report, TaskRow


class TaskViewSet(JobLibView, ViewSet):
    """Tasks."""

    throttle_scopes: ClassVar = {
        "claim": "joblib_work",
        "retry": "joblib_submit",
        "partial_update": "joblib_work",
        "report_many": "joblib_work",
    }
    unthrottled: ClassVar = {"partial_update", "report_many"}

    @openapi.tasks_list
    def list(self, request: Request, room_id: str) -> Response:
        """The tasks of a room, newest first."""
        self.caller.require("read", room_id, hidden=TaskNotFound)
        return task_page(request, room_id)

    @openapi.tasks_submitted
    def submitted(self, request: Request) -> Response:
        """The caller's own tasks in all rooms, newest first; for administrators all tasks."""
        return submitted_page(request, self.caller)

    @openapi.tasks_claim
    def claim(self, request: Request) -> Response:
        """Claim the oldest pending tasks among the worker's jobs, one unless `limit` is given."""
        body = self.body(ClaimBody)
        granted = claim(self.caller, body.worker_id, body.limit or 1, start=body.start)
        documents = [task_document(task) for task in granted]
        answer: dict[str, Any] = {"task": documents[0] if documents else None}
        response = Response(answer if body.limit is None else answer | {"tasks": documents})
        if not granted:
            jobs = jobs_of_worker(self.caller, body.worker_id)
            until = UntilWork(
                body.worker_id or self.caller.identity, jobs, tenant=self.caller.tenant
            )
            response.waits_for = until  # type: ignore[attr-defined]
        return response

    @openapi.tasks_retrieve
    def retrieve(self, request: Request, task_id: str) -> Response:
        """One task; `Prefer: wait=N` waits for its end.

        With `If-None-Match` it waits for the next change, if the tag is the present one.
        """
        task = find_task(self.caller, parse_task_id(task_id))
        header = request.headers.get("If-None-Match")
        known = known_tags(header, task_tag(task))
        tenant = self.caller.tenant
        until: UntilEnd | UntilChange | None = None
        if task_tag(task) in known:
            response = Response(status=304)
            until = UntilChange(
                task.id, task.room_id, task.revision, known, self.caller.visible, tenant=tenant
            )
        else:
            response = Response(task_document(task))
            if header is None:
                until = UntilEnd({task.id: task.room_id}, self.caller.visible, tenant=tenant)
        response.headers["ETag"] = task_tag(task)
        # Not stored, because a browser would send the tag of a stored answer by itself, and a wait
        # for the end would become a wait for any change.
        response.headers["Cache-Control"] = "private, no-store"
        if until and not task.is_terminal:
            response.waits_for = until  # type: ignore[attr-defined]
        return response

    @openapi.tasks_attempts
    def attempts(self, request: Request, task_id: str) -> Response:
        """The attempts of a task, oldest first."""
        return attempt_page(request, find_task(self.caller, parse_task_id(task_id)))

    @openapi.tasks_retry
    def retry(self, request: Request, task_id: str) -> Response:
        """Submit the payload of an ended task again, as a new task."""
        self.body(EmptyBody)
        key = read_idempotency_key(request._request)
        context = read_traceparent(request._request)
        task = retry(self.caller, parse_task_id(task_id), key, context)
        return accepted(task_document(task), task_path(self.mount, task.id))

    @openapi.tasks_lookup
    def lookup(self, request: Request) -> Response:
        """The tasks that exist and that the caller may read, in the order of `ids`, each once.

        `Prefer: wait=N` waits until one of the tasks ends. The answer comes at once if one has
        ended already, or if no task is left.
        """
        body = self.body(LookupBody)
        found = find_tasks(self.caller, body.ids, include_result=body.include_result)
        response = Response(
            [task_document(task, include_result=body.include_result) for task in found]
        )
        if found and not any(task.is_terminal for task in found):
            rooms = {task.id: task.room_id for task in found}
            until = UntilEnd(
                rooms,
                self.caller.visible,
                many=True,
                include_result=body.include_result,
                tenant=self.caller.tenant,
            )
            response.waits_for = until  # type: ignore[attr-defined]
        return response

    @openapi.tasks_report
    def partial_update(self, request: Request, task_id: str) -> Response:
        """Report on a task, or cancel it."""
        body = self.body(ReportBody)
        task = report(self.caller, parse_report(parse_task_id(task_id), body))
        return Response(task_document(task))

    @openapi.tasks_report_many
    def report_many(self, request: Request) -> Response:
        """Report on several tasks; each report is carried out alone and has its own result.

        The list is refused as a whole only if no report in it is valid.
        """
        entries = read_body(request._request, ListedReportBody.free_text)
        valid, errors = self.bodies(ListedReportBody, entries)
        if not valid:
            raise invalid_fields(chain.from_iterable(errors.values()))
        reports = [parse_report(body.id, body) for body in valid.values()]
        results = {
            index: self._result(given.task_id, outcome)
            for index, given, outcome in zip(
                valid, reports, report_each(self.caller, reports), strict=True
            )
        }
        for index, error in errors.items():
            task_id = ListedReportBody.id_of(entries[index])
            path = request_path(request)
            results[index] = self._refused(task_id, invalid_fields(error), path)
        return Response([results[index] for index in range(len(entries))])

    def _result(self, task_id: UUID, outcome: TaskRow | ProblemException) -> dict[str, Any]:
        """The result of one report of a list."""
        if isinstance(outcome, ProblemException):
            return self._refused(task_id, outcome, task_path(self.mount, task_id))
        return {"id": task_id, "status": 200, "task": task_document(outcome)}

    def _refused(
        self, task_id: UUID | None, problem: ProblemException, path: str
    ) -> dict[str, Any]:
        """The result of a report that was refused."""
        document = problem.document(type_url(type(problem), self.mount), path)
        return {"id": task_id, "status": problem.status, "problem": document}


def parse_report(task_id: UUID, body: ReportBody) -> Report:
    """The report that a validated body describes."""
    return Report(
        task_id,
        body.status,
        body.attempt,
        body.error,
        None if body.result is None else json_dumps(body.result),
        body.progress,
        body.message,
        body.retry is not False,
        body.retry_after,
    )
