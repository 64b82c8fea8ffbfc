"""Views of the jobs of a room, and of submits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.documents import job_document, job_summary, task_document
from zndraw_joblib.api.job_bodies import RegistrationBody, SubmissionBody, parts_to_repeat
from zndraw_joblib.api.lists import task_page
from zndraw_joblib.api.lookup import accepted
from zndraw_joblib.api.pagination import page
from zndraw_joblib.api.parsing import (
    invalid_fields,
    read_body,
    read_idempotency_key,
    read_traceparent,
)
from zndraw_joblib.api.paths import job_tasks_path, task_path
from zndraw_joblib.models import Job, Task
from zndraw_joblib.services.jobs import offered_job, offered_jobs, retire, room_job
from zndraw_joblib.services.register import register
from zndraw_joblib.services.submit import Submission, submit, submit_one


class JobViewSet(JobLibView, ViewSet):
    """Jobs of a room."""

    throttle_scopes: ClassVar = {
        "register": "joblib_register",
        "destroy": "joblib_register",
        "submit": "joblib_submit",
    }

    def get_queryset(self) -> QuerySet[Any]:
        """Jobs, or tasks where the request is about these."""
        return (Task if self.action in {"submit", "tasks"} else Job).objects.none()

    @openapi.jobs_list
    def list(self, request: Request, room_id: str) -> Response:
        """The room's own jobs and the global ones."""
        jobs = offered_jobs(self.caller, room_id)
        rows, headers = page(jobs, request, "room_id", "category", "name")
        return Response([job_summary(job) for job in rows], headers=headers)

    @openapi.jobs_register
    def register(self, request: Request, room_id: str) -> Response:
        """Offer a job in a room, by one of the caller's workers."""
        body = self.body(RegistrationBody)
        job, worker, new = register(
            self.caller,
            room_id,
            body.category,
            body.name,
            body.json_schema,
            body.worker_id,
            retry=None if body.retry is None else body.retry.policy(),
            durable=body.durable,
        )
        document = job_document(job) | {"worker_id": worker.pk}
        return Response(document, status=201 if new else 200)

    @openapi.jobs_retrieve
    def retrieve(self, request: Request, room_id: str, full_name: str) -> Response:
        """One job, with its schema."""
        return Response(job_document(offered_job(self.caller, room_id, full_name)))

    @openapi.jobs_retire
    def destroy(self, request: Request, room_id: str, full_name: str) -> Response:
        """Retire a job; its tasks stay, and a registration revives it."""
        retire(self.caller, room_id, full_name)
        return Response(status=204)

    @openapi.jobs_tasks
    def tasks(self, request: Request, room_id: str, full_name: str) -> Response:
        """The room's tasks of one job, newest first."""
        return task_page(request, room_id, room_job(self.caller, room_id, full_name))

    @openapi.tasks_submit
    def submit(self, request: Request, room_id: str, full_name: str) -> Response:
        """Submit a task of a job in a room, or with an array several, all or none."""
        body = read_body(request._request)
        if isinstance(body, list):
            valid, errors = self.bodies(SubmissionBody, body)
            if errors:
                raise invalid_fields(chain.from_iterable(errors.values()))
            tasks = submit(self._submission(room_id, full_name, list(valid.values())))
            location = job_tasks_path(self.mount, room_id, full_name)
            return accepted([task_document(task) for task in tasks], location)
        one = self.body(SubmissionBody)
        task = submit_one(self._submission(room_id, full_name, one))
        return accepted(task_document(task), task_path(self.mount, task.id))

    def _submission(
        self, room_id: str, full_name: str, given: SubmissionBody | Sequence[SubmissionBody]
    ) -> Submission:
        several = given if isinstance(given, Sequence) else [given]
        key = read_idempotency_key(self.request._request)
        body = [] if key is None else parts_to_repeat(several, many=several is given)
        context = read_traceparent(self.request._request)
        tasks = [entry.task(context) for entry in several]
        return Submission(self.caller, room_id, full_name, tasks, key, body)
