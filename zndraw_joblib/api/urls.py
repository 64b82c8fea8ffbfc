"""``path("", include("zndraw_joblib.api.urls"))`` in the host's urls."""

from __future__ import annotations

from django.urls import path, re_path

from zndraw_joblib.api.base import UnknownURL
from zndraw_joblib.api.jobs import JobViewSet
from zndraw_joblib.api.routes import WaitingRoute
from zndraw_joblib.api.tasks import TaskViewSet
from zndraw_joblib.api.views import MeView, ProblemTypeView
from zndraw_joblib.api.workers import WorkerViewSet

app_name = "zndraw_joblib"

_PREFIX = "v1/joblib/"

urlpatterns = [
    # The most frequent routes come first, because Django tries them in this order.
    WaitingRoute(f"{_PREFIX}tasks/claim", TaskViewSet.as_view({"post": "claim"}), "claim"),
    WaitingRoute(f"{_PREFIX}tasks/lookup", TaskViewSet.as_view({"post": "lookup"}), "lookup"),
    WaitingRoute(
        f"{_PREFIX}tasks/<str:task_id>",
        TaskViewSet.as_view({"get": "retrieve", "patch": "partial_update"}),
        "task",
    ),
    path(
        f"{_PREFIX}rooms/<str:room_id>/tasks/<str:full_name>",
        JobViewSet.as_view({"post": "submit"}),
        name="submit",
    ),
    path(
        f"{_PREFIX}workers/<str:worker_id>",
        WorkerViewSet.as_view({"patch": "partial_update", "delete": "destroy"}),
        name="worker",
    ),
    path(f"{_PREFIX}tasks", TaskViewSet.as_view({"patch": "report_many"}), name="tasks"),
    path(
        f"{_PREFIX}rooms/<str:room_id>/jobs",
        JobViewSet.as_view({"get": "list", "put": "register"}),
        name="jobs",
    ),
    path(
        f"{_PREFIX}rooms/<str:room_id>/jobs/<str:full_name>",
        JobViewSet.as_view({"get": "retrieve"}),
        name="job",
    ),
    path(
        f"{_PREFIX}rooms/<str:room_id>/jobs/<str:full_name>/tasks",
        JobViewSet.as_view({"get": "tasks"}),
        name="job-tasks",
    ),
    path(
        f"{_PREFIX}rooms/<str:room_id>/tasks",
        TaskViewSet.as_view({"get": "list"}),
        name="room-tasks",
    ),
    path(
        f"{_PREFIX}rooms/<str:room_id>/workers",
        WorkerViewSet.as_view({"get": "of_room"}),
        name="room-workers",
    ),
    path(
        f"{_PREFIX}workers",
        WorkerViewSet.as_view({"get": "list", "post": "create"}),
        name="workers",
    ),
    path(
        f"{_PREFIX}workers/<str:worker_id>/jobs/<str:full_name>",
        WorkerViewSet.as_view({"delete": "withdraw"}),
        name="worker-job",
    ),
    path("v1/me", MeView.as_view(), name="me"),
    path("v1/problems/<str:slug>", ProblemTypeView.as_view(), name="problem"),
    # `[\s\S]`, because a dot does not match a newline.
    re_path(r"^v1/joblib(?:/[\s\S]*)?$", UnknownURL.as_view(), name="unknown"),
]
