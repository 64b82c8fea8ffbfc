"""Workers and their heartbeats."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db import router, transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.bodies import EmptyBody, HeartbeatBody
from zndraw_joblib.api.documents import utc, worker_document
from zndraw_joblib.api.lookup import bounded, jobs, tasks, workers
from zndraw_joblib.api.pagination import page
from zndraw_joblib.exceptions import WorkerNotFound
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Worker, WorkerJobLink
from zndraw_joblib.settings import get_settings


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
        self.body(EmptyBody)
        settings = get_settings()
        with transaction.atomic(using=router.db_for_write(Worker)):
            made = workers().enlist(self.caller.identity, settings.max_workers_per_identity)
            document = worker_document(workers().with_job_count().get(pk=made.pk))
        document["heartbeat_interval_seconds"] = settings.heartbeat_interval_seconds
        return Response(document, status=201)

    @openapi.workers_heartbeat
    def partial_update(self, request: Request, worker_id: str) -> Response:
        """Say that a worker lives, and renew the leases of its tasks."""
        listed = self.body(HeartbeatBody).tasks
        grants = None if listed is None else [(grant.id, grant.attempt) for grant in listed]
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

    def _missing(self, grants: Any, renewed: set[tuple[UUID, int]]) -> dict[str, Any]:
        gone = [grant for grant in grants if grant not in renewed]
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


def worker_page(request: Request, found: Any) -> Response:
    """A page of workers."""
    rows, headers = page(found, request, "-created_at", "-id")
    return Response([worker_document(worker) for worker in rows], headers=headers)
