"""Tasks in the admin."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.admin.filters import (
    AgeFilter,
    CreatorFilter,
    EndedFilter,
    FailureFilter,
    JobFilter,
    RoomFilter,
    StatusFilter,
    WorkerFilter,
)
from zndraw_joblib.admin.task_actions import TaskActions
from zndraw_joblib.admin.task_page import TaskPage
from zndraw_joblib.models import Task


@admin.register(Task)
class TaskAdmin(TaskActions, TaskPage):
    """Lists tasks; administrators of the job server cancel, requeue, retry and prune them."""

    list_display = (
        "short_id",
        "status_and_progress",
        "job_link",
        "room_link",
        "age",
        "run_time",
        "submitter_link",
    )
    list_filter = (
        ("status", StatusFilter),
        ("job", JobFilter),
        RoomFilter,
        CreatorFilter,
        WorkerFilter,
        AgeFilter,
        EndedFilter,
        FailureFilter,
    )
    list_select_related = ("job",)
    search_fields = ("=id", "=room_id")
    search_help_text = _("The id of a task, or a room")
    ordering = ("-id",)
    common_filters = (
        (_("pending"), "status__exact=pending"),
        (_("running"), "status__exact=running"),
        (_("failed in the last day"), "status__exact=failed&ended=day"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Tasks without the columns that a list does not show and that may be large."""
        return super().get_queryset(request).defer("payload", "result", "error", "message")

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """The latest end first where ends are filtered, because their index has this order."""
        if EndedFilter.parameter_name in request.GET:
            return ("-completed_at", "-id")
        return self.ordering

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The tasks with exactly this id or room, because both have an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        matches = Q(room_id=term)
        with suppress(ValueError):
            matches |= Q(pk=UUID(term))
        return queryset.filter(matches), False
