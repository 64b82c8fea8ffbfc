"""Jobs in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.access import identity_labels
from zndraw_joblib.admin.base import ReadOnlyAdmin, person_name
from zndraw_joblib.admin.filters import RoomFilter
from zndraw_joblib.admin.formats import (
    MAX_LISTED,
    breakable_name,
    coloured_status,
    html_table,
    indented_json,
    link,
    short_id,
    time_since,
)
from zndraw_joblib.admin.held import held_links
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.names import GLOBAL_ROOM, nfc
from zndraw_joblib.services.held import held_tasks
from zndraw_joblib.storage.lists import Filter, newest

#: Tasks that the page of a job shows.
MAX_TASKS = 20


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """Lists jobs with their number of workers."""

    list_display = (
        "full_name",
        "worker_count",
        "task_list",
        "durable",
        "created_at",
        "retired_at",
    )
    list_filter = (
        RoomFilter,
        "category",
        "durable",
        ("retired_at", admin.EmptyFieldListFilter),
    )
    search_fields = ("=id", "=room_id", "name")
    fields = (
        "id",
        "full_name",
        "worker_count",
        "durable",
        "retry_policy",
        "created_at",
        "retired_at",
        "task_table",
        "worker_table",
        "json_schema",
    )
    common_filters = ((_("in use"), "retired_at__isempty=1"),)
    ordering = ("room_id", "category", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Jobs with the annotation `worker_count`."""
        return Job.objects.with_worker_count()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """As Django's, for a term in the spelling in which names are stored."""
        return super().get_search_results(request, queryset, nfc(search_term))

    @admin.display(description=_("full name"), ordering="name")
    def full_name(self, job: Job) -> SafeString:
        """``room:category:Name``."""
        return breakable_name(job.full_name)

    @admin.display(description=_("workers"), ordering="worker_count")
    def worker_count(self, job: Any) -> int:
        """The number of workers that offer the job."""
        count: int = job.worker_count
        return count

    @admin.display(description=_("retries"))
    def retry_policy(self, job: Job) -> str:
        """How often, and after how long, the job's failed tasks are tried again."""
        if (policy := job.retry) is None:
            return "-"
        return _(
            "%(retries)d, after %(first)s s, then %(factor)s times as long each, at most %(most)s s"
        ) % {
            "retries": policy.max_retries,
            "first": f"{policy.backoff_seconds:g}",
            "factor": f"{policy.backoff_factor:g}",
            "most": f"{policy.max_backoff_seconds:g}",
        }

    @admin.display(description=_("schema"))
    def json_schema(self, job: Job) -> SafeString:
        """The JSON Schema of the job's payloads."""
        return indented_json(job.schema)

    @admin.display(description=_("tasks"))
    def task_list(self, job: Job) -> SafeString:
        """A link to the list of the job's tasks."""
        return self._tasks_link(job, _("tasks"))

    @admin.display(description=_("latest tasks"))
    def task_table(self, job: Job) -> SafeString:
        """The latest tasks of the job, and a link to the list of all."""
        tasks = latest_tasks(job)
        labels = identity_labels(task.created_by for task in tasks)
        url = self._model_url("task")
        table = html_table(
            [_("id"), _("status"), _("room"), _("age"), _("created by")],
            (
                (
                    link(url, f"{task.pk}/change/", short_id(task.pk)),
                    coloured_status(task),
                    task.room_id,
                    time_since(task.created_at),
                    person_name(task.created_by, labels),
                )
                for task in tasks
            ),
        )
        return format_html("{}<p>{}</p>", table, self._tasks_link(job, _("all tasks")))

    @admin.display(description=_("workers"))
    def worker_table(self, job: Job) -> SafeString | str:
        """The workers that offer the job, with the tasks that they hold."""
        offering = Worker.objects.using(job._state.db).filter(links__job=job)
        workers = list(offering.order_by("-last_heartbeat", "pk")[:MAX_LISTED])
        labels = identity_labels(worker.identity for worker in workers)
        held = held_tasks(workers)
        url, tasks_url = self._model_url("worker"), self._model_url("task")
        return html_table(
            [_("worker"), _("identity"), _("heartbeat's age"), _("holds")],
            (
                (
                    link(url, f"{quote(worker.pk)}/change/", worker.pk),
                    person_name(worker.identity, labels),
                    time_since(worker.last_heartbeat),
                    held_links(worker.pk, held.get(worker.pk), tasks_url),
                )
                for worker in workers
            ),
            job.worker_count - len(workers),  # type: ignore[attr-defined]
        )

    def _tasks_link(self, job: Job, shown: object) -> SafeString:
        return link(self._model_url("task"), f"?job__id__exact={job.pk}", shown)


def latest_tasks(job: Job) -> list[Task]:
    """The latest tasks of a job, newest first.

    Those of a global job are in many rooms, and no index has them by time. They are looked for
    among the latest tasks of all jobs, up to `storage.lists.MAX_READ`.
    """
    tasks = Task.objects.using(job._state.db).defer("payload", "result", "error", "message")
    if job.room_id == GLOBAL_ROOM:
        ids = newest(None, Filter(job_id=job.pk), MAX_TASKS, None).ids
        return list(tasks.filter(pk__in=ids).order_by("-pk"))
    in_room = tasks.filter(job=job, room_id=job.room_id)
    return list(in_room.order_by("-created_at", "-pk")[:MAX_TASKS])
