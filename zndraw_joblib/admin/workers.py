"""Workers in the admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.admin.base import ReadOnlyAdmin, person, person_name
from zndraw_joblib.admin.formats import link, time_since
from zndraw_joblib.admin.held import held_links
from zndraw_joblib.models import Worker
from zndraw_joblib.services.held import held_tasks
from zndraw_joblib.settings import get_settings


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    """Lists workers with the tasks that they hold, their last heartbeat and their jobs."""

    list_display = ("id", "owner_name", "alive", "heartbeat_age", "holds", "job_count", "age")
    search_fields = ("=id", "=identity")
    fields = (
        "id",
        "owner",
        "alive",
        "heartbeat_age",
        "last_heartbeat",
        "holds",
        "job_links",
        "created_at",
    )
    ordering = ("-created_at", "-id")
    identity_fields = ("identity",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        """Workers with the annotation `job_count`."""
        counted: QuerySet[Worker] = Worker.objects.with_job_count()
        return counted

    def add_labels(self, rows: Iterable[Any]) -> None:
        """Give workers their names and the tasks that they hold."""
        super().add_labels(rows)
        held = held_tasks(rows)
        for worker in rows:
            worker.held = held.get(worker.pk)

    @admin.display(description=_("identity"), ordering="identity")
    def owner(self, worker: Any) -> str:
        """The identity of the owner, with its name."""
        return person(worker.identity, worker.identity_labels)

    @admin.display(description=_("identity"), ordering="identity")
    def owner_name(self, worker: Any) -> SafeString | str:
        """The name of the owner."""
        return person_name(worker.identity, worker.identity_labels)

    @admin.display(description=_("alive"), boolean=True)
    def alive(self, worker: Worker) -> bool:
        """Whether the last heartbeat is less than a lease old."""
        return worker.is_alive(get_settings().lease)

    @admin.display(description=_("heartbeat's age"), ordering="-last_heartbeat")
    def heartbeat_age(self, worker: Worker) -> str:
        """The time since the last heartbeat."""
        return time_since(worker.last_heartbeat)

    @admin.display(description=_("age"), ordering="-created_at")
    def age(self, worker: Worker) -> str:
        """The time since the first registration."""
        return time_since(worker.created_at)

    @admin.display(description=_("holds"))
    def holds(self, worker: Any) -> SafeString | str:
        """Links to the tasks that the worker holds."""
        return held_links(worker.pk, worker.held, self._model_url("task"))

    @admin.display(description=_("jobs"), ordering="job_count")
    def job_count(self, worker: Any) -> int:
        """The number of jobs that the worker offers."""
        count: int = worker.job_count
        return count

    @admin.display(description=_("jobs"))
    def job_links(self, worker: Worker) -> SafeString | str:
        """Links to the jobs that the worker offers."""
        url = self._model_url("job")
        links = ((link(url, f"{job.pk}/change/", job.full_name),) for job in worker.jobs.all())
        return format_html_join("", "<div>{}</div>", links) or "-"
