"""Jobs in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.admin.base import ReadOnlyAdmin
from zndraw_joblib.admin.filters import RoomFilter
from zndraw_joblib.admin.formats import indented_json
from zndraw_joblib.models import Job
from zndraw_joblib.names import nfc


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """Lists jobs with their number of workers."""

    list_display = ("full_name", "worker_count", "durable", "created_at", "retired_at")
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
        "json_schema",
    )
    ordering = ("room_id", "category", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Jobs with the annotation `worker_count`."""
        return Job.objects.with_worker_count()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """As Django's, for a term in the spelling in which names are stored."""
        return super().get_search_results(request, queryset, nfc(search_term))

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
