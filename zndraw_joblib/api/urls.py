"""``path("", include("zndraw_joblib.api.urls"))`` in the host's urls."""

from __future__ import annotations

from zndraw_joblib.api.base import UnknownURL
from zndraw_joblib.api.events import EventViewSet
from zndraw_joblib.api.files import FileViewSet
from zndraw_joblib.api.jobs import JobViewSet
from zndraw_joblib.api.logs import LogViewSet
from zndraw_joblib.api.paths import API, VERSION
from zndraw_joblib.api.routes import CatchAll, Route, WaitingRoute
from zndraw_joblib.api.tasks import TaskViewSet
from zndraw_joblib.api.views import MeView, ProblemTypeView
from zndraw_joblib.api.workers import WorkerViewSet

app_name = "zndraw_joblib"

_ROOM = f"{API}rooms/<str:room_id>"
_JOB = f"{_ROOM}/jobs/<str:full_name>"

urlpatterns = [
    # The most frequent routes come first, because Django tries them in this order.
    WaitingRoute(f"{API}tasks/claim", TaskViewSet, "claim", waits="POST", post="claim"),
    WaitingRoute(f"{API}tasks/lookup", TaskViewSet, "lookup", waits="POST", post="lookup"),
    WaitingRoute(
        f"{API}tasks/<str:task_id>",
        TaskViewSet,
        "task",
        waits="GET",
        get="retrieve",
        patch="partial_update",
    ),
    Route(f"{_ROOM}/tasks/<str:full_name>", JobViewSet, "submit", post="submit"),
    WaitingRoute(
        f"{API}workers/<str:worker_id>",
        WorkerViewSet,
        "worker",
        waits="PATCH",
        patch="partial_update",
        delete="destroy",
    ),
    WaitingRoute(
        f"{API}tasks/<str:task_id>/log",
        LogViewSet,
        "log",
        waits="GET",
        get="retrieve",
        post="write",
    ),
    Route(f"{API}tasks", TaskViewSet, "tasks", get="submitted", patch="report_many"),
    Route(f"{API}tasks/<str:task_id>/files", FileViewSet, "files", get="list"),
    Route(
        f"{API}tasks/<str:task_id>/files/<str:name>",
        FileViewSet,
        "file",
        get="retrieve",
        put="upload",
    ),
    Route(f"{_ROOM}/jobs", JobViewSet, "jobs", get="list", put="register"),
    Route(_JOB, JobViewSet, "job", get="retrieve", delete="destroy"),
    Route(f"{_JOB}/tasks", JobViewSet, "job-tasks", get="tasks"),
    Route(f"{_ROOM}/events", EventViewSet, "room-events", get="stream"),
    Route(f"{_ROOM}/tasks", TaskViewSet, "room-tasks", get="list"),
    Route(f"{_ROOM}/workers", WorkerViewSet, "room-workers", get="of_room"),
    Route(f"{API}workers", WorkerViewSet, "workers", get="list", post="create"),
    Route(
        f"{API}workers/<str:worker_id>/jobs/<str:full_name>",
        WorkerViewSet,
        "worker-job",
        delete="withdraw",
    ),
    Route(f"{API}tasks/<str:task_id>/attempts", TaskViewSet, "task-attempts", get="attempts"),
    Route(f"{API}tasks/<str:task_id>/retry", TaskViewSet, "task-retry", post="retry"),
    Route(f"{VERSION}/me", MeView, "me"),
    Route(f"{VERSION}/problems/<str:slug>", ProblemTypeView, "problem"),
    CatchAll(API.removesuffix("/"), UnknownURL, "unknown"),
]
