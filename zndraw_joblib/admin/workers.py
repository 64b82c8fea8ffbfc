"""Workers in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.admin.base import ReadOnlyAdmin, person
from zndraw_joblib.admin.formats import preformatted, time_since
from zndraw_joblib.models import Worker
from zndraw_joblib.settings import get_settings


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    """Lists workers with their last heartbeat and their number of jobs."""

    list_display = ("id", "owner", "alive", "heartbeat_age", "job_count", "created_at")
    search_fields = ("=id", "=identity")
    fields = (
        "id",
        "owner",
        "alive",
        "last_heartbeat",
        "job_names",
        "created_at",
    )
    ordering = ("-created_at", "-id")
    identity_fields = ("identity",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        """Workers with the annotation `job_count`."""
        counted: QuerySet[Worker] = Worker.objects.with_job_count()
        return counted

    @admin.display(description=_("identity"), ordering="identity")
    def owner(self, worker: Any) -> str:
        """The identity of the owner, with its name."""
        return person(worker.identity, worker.identity_labels)

    @admin.display(description=_("alive"), boolean=True)
    def alive(self, worker: Worker) -> bool:
        """Whether the last heartbeat is less than a lease old."""
        return worker.is_alive(get_settings().lease)

    @admin.display(description=_("last heartbeat"), ordering="last_heartbeat")
    def heartbeat_age(self, worker: Worker) -> str:
        """The time since the last heartbeat."""
        return time_since(worker.last_heartbeat)

    @admin.display(description=_("jobs"), ordering="job_count")
    def job_count(self, worker: Any) -> int:
        """The number of jobs that the worker offers."""
        count: int = worker.job_count
        return count

    @admin.display(description=_("jobs"))
    def job_names(self, worker: Worker) -> SafeString:
        """The full names of the jobs that the worker offers."""
        return preformatted("\n".join(job.full_name for job in worker.jobs.all()))
