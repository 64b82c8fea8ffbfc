"""Filters of the admin's lists."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.lifecycle import TERMINAL_STATUSES
from zndraw_joblib.models import FailedTask, FailureGroup, Job
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.conditions import IsLeased
from zndraw_joblib.storage.ids import first_id

#: Assumed bound on the difference between the clocks of servers and database.
MAX_CLOCK_DIFFERENCE = timedelta(hours=1)
#: Most jobs that the filter of tasks lists.
MAX_JOBS = 50


class AgeFilter(admin.SimpleListFilter):
    """Filters tasks by their age."""

    title = _("age")
    parameter_name = "age"
    spans: ClassVar = {
        "hour": (_("last hour"), timedelta(hours=1)),
        "day": (_("last day"), timedelta(days=1)),
        "week": (_("last week"), timedelta(days=7)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """The spans, and an entry for older tasks."""
        return [*((key, name) for key, (name, _span) in self.spans.items()), ("older", _("older"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The tasks of the selected age."""
        span = self.value()
        if span == "older":
            return queryset.filter(created_at__lt=Now() - self.spans["week"][1])
        if span in self.spans:
            length = self.spans[span][1]
            # Two conditions: the index of ids, which begin with the time of a server's clock, finds
            # recent rows; `created_at`, from the database's clock, decides.
            first = first_id(timezone.now() - length - MAX_CLOCK_DIFFERENCE)
            return queryset.filter(pk__gte=first, created_at__gte=Now() - length)
        return queryset


class EndedFilter(admin.SimpleListFilter):
    """Filters ended tasks by the time of their end."""

    title = _("end")
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """The spans of `AgeFilter`."""
        return [(key, name) for key, (name, _span) in AgeFilter.spans.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The tasks that ended in the selected span."""
        if span := AgeFilter.spans.get(self.value() or ""):
            # With the statuses, because they are first in the index of ended tasks.
            return queryset.filter(
                status__in=sorted(TERMINAL_STATUSES), completed_at__gte=Now() - span[1]
            )
        return queryset


class ExactFilter(admin.SimpleListFilter):
    """Filters by a typed value, because listing all values would scan the table."""

    template = "admin/zndraw_joblib/exact_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """A single entry, because Django hides a filter that has none."""
        return [("", "")]

    def choices(self, changelist: Any) -> Any:
        """The values of the template, a text box that keeps the other filters."""
        others = changelist.get_filters_params()
        others.pop(self.parameter_name, None)
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "others": list(others.items()),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows with exactly the typed value."""
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class StatusFilter(admin.ChoicesFieldListFilter):
    """Filters tasks by their status."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """The tasks in the selected status."""
        found = super().queryset(request, queryset)
        if found is not None and TERMINAL_STATUSES.issuperset(self.lookup_val or [None]):
            # Says what holds for each of them, because the index of ended tasks is partial.
            return found.filter(completed_at__isnull=False)
        return found


class CreatorFilter(ExactFilter):
    """Filters by the identity of the submitter."""

    title = _("created by")
    parameter_name = "created_by"


class FailureFilter(admin.SimpleListFilter):
    """Filters by a group of failures with the same error; shown only where one was chosen."""

    title = _("error")
    parameter_name = "failure"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The chosen group; none otherwise, which hides the filter."""
        chosen = FailureGroup.objects.filter(pk=request.GET.get(self.parameter_name, ""))
        return [(group.pk, group.error[:80] or "-") for group in chosen]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The tasks of the group."""
        if group := self.value():
            return queryset.filter(pk__in=FailedTask.objects.filter(group=group).values("task_id"))
        return queryset


class RoomFilter(ExactFilter):
    """Filters by the id of a room."""

    title = _("room")
    parameter_name = "room_id"


class WorkerFilter(ExactFilter):
    """Filters by the worker that holds the tasks, because ended ones have no index of workers."""

    title = _("held by worker")
    parameter_name = "held_by"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The tasks that the typed worker holds."""
        value = self.value()
        if not value:
            return queryset
        return queryset.filter(IsLeased(), worker_id=value)


class JobFilter(admin.RelatedFieldListFilter):
    """Filters tasks by one of `MAX_JOBS` jobs, or by another one whose page links here."""

    def field_choices(
        self, field: Any, request: HttpRequest, model_admin: Any
    ) -> list[tuple[str, Any]]:
        """The first jobs that are not retired, and the selected one."""
        jobs = list(Job.objects.live()[:MAX_JOBS])
        if selected := request.GET.get(self.lookup_kwarg):
            with suppress(ValidationError):
                jobs += Job.objects.filter(pk=selected).exclude(pk__in=[job.pk for job in jobs])
        return [(job.pk, str(job)) for job in jobs]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """The tasks of the selected job."""
        found = super().queryset(request, queryset)
        if found is not None and self.lookup_val:
            # True for each task, because the index of a job's tasks contains those with a room.
            return found.filter(room_id__gt="")
        return found
