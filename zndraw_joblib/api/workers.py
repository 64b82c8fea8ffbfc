"""Views of workers and their heartbeats."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi
from zndraw_joblib.api.awaited import UntilStop
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.bodies import EmptyBody
from zndraw_joblib.api.documents import utc, worker_document
from zndraw_joblib.api.pagination import page
from zndraw_joblib.api.task_bodies import HeartbeatBody
from zndraw_joblib.api.waiting import wait_of
from zndraw_joblib.models import Worker
from zndraw_joblib.services import workers
from zndraw_joblib.services.register import withdraw
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.waits import GrantState
from zndraw_joblib.storage.workers import WorkerQuerySet


class WorkerViewSet(JobLibView, ViewSet):
    """Workers."""

    throttle_scopes: ClassVar = {
        "create": "joblib_register",
        "partial_update": "joblib_work",
        "destroy": "joblib_work",
        "withdraw": "joblib_work",
    }
    unthrottled: ClassVar = {"partial_update", "destroy"}

    def get_queryset(self) -> QuerySet[Any]:
        """Workers."""
        none: QuerySet[Any] = Worker.objects.none()
        return none

    @openapi.workers_list
    def list(self, request: Request) -> Response:
        """The caller's workers, or all for an administrator; newest first."""
        return worker_page(request, workers.visible_workers(self.caller))

    @openapi.workers_of_room
    def of_room(self, request: Request, room_id: str) -> Response:
        """The workers that offer a job in a room, or a global one; newest first."""
        return worker_page(request, workers.workers_of_room(self.caller, room_id))

    @openapi.workers_create
    def create(self, request: Request) -> Response:
        """Make a worker for one process."""
        self.body(EmptyBody)
        made = workers.create_own_worker(self.caller)
        settings = get_settings()
        document = worker_document(made) | {
            "heartbeat_interval_seconds": settings.heartbeat_interval_seconds,
            "worker_timeout_seconds": settings.worker_timeout_seconds,
            "max_result_bytes": settings.max_result_bytes,
        }
        return Response(document, status=201)

    @openapi.workers_heartbeat
    def partial_update(self, request: Request, worker_id: str) -> Response:
        """Send a heartbeat of a worker, and renew the leases of its tasks.

        `Prefer: wait=N` waits until one of the listed tasks is lost or cancelled.
        """
        listed = self.body(HeartbeatBody).tasks
        grants = None if listed is None else [(grant.id, grant.attempt) for grant in listed]
        reply = workers.heartbeat(self.caller, worker_id, grants)
        document: dict[str, Any] = {
            "id": reply.worker_id,
            "last_heartbeat": utc(reply.last_heartbeat),
        }
        if grants is None:
            response = Response(document)
            response.never_waits = True  # type: ignore[attr-defined]
            return response
        # A worker that waits knows which tasks it ended itself; another has always been told.
        ended = [] if wait_of(request._request) else [GrantState.ENDED]
        document["lost"] = reply.in_state(GrantState.LOST, *ended)
        document["cancelled"] = reply.in_state(GrantState.CANCELLED)
        response = Response(document)
        if not document["lost"] and not document["cancelled"]:
            held = workers.granted(self.caller, reply.worker_id, grants)
            response.waits_for = UntilStop(held, self.caller.tenant)  # type: ignore[attr-defined]
        return response

    @openapi.workers_delete
    def destroy(self, request: Request, worker_id: str) -> Response:
        """Remove a worker; its claimed tasks are pending again."""
        workers.remove_worker(self.caller, worker_id)
        return Response(status=204)

    @openapi.workers_withdraw
    def withdraw(self, request: Request, worker_id: str, full_name: str) -> Response:
        """Offer a job by a worker no more; the worker keeps the tasks that it holds."""
        withdraw(self.caller, worker_id, full_name)
        return Response(status=204)


def worker_page(request: Request, found: WorkerQuerySet) -> Response:
    """A page of workers."""
    rows, headers = page(found.with_job_count(), request, "-created_at", "-id")
    return Response([worker_document(worker) for worker in rows], headers=headers)
