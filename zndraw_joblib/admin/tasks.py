"""Tasks in the admin, with actions that cancel and requeue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _, ngettext

from zndraw_joblib.admin.base import MAX_COUNTED, ReadOnlyAdmin, log_change
from zndraw_joblib.admin.filters import AgeFilter, RoomFilter
from zndraw_joblib.admin.formats import duration, indented_json, preformatted, time_since
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import STATUS_LABELS, Task
from zndraw_joblib.storage.rows import TaskRow


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    """Lists tasks; administrators of the job server cancel and requeue them."""

    list_display = (
        "id",
        "coloured_status",
        "job_name",
        "room_id",
        "attempt",
        "age",
        "run_time",
        "created_by",
    )
    list_filter = (
        ("status", admin.ChoicesFieldListFilter),
        ("job", admin.RelatedFieldListFilter),
        RoomFilter,
        AgeFilter,
    )
    list_select_related = ("job",)
    search_fields = ("=id", "=room_id")
    search_help_text = _("The id of a task, or a room")
    ordering = ("-id",)
    actions = ("cancel", "requeue")
    fields = (
        "id",
        "job_name",
        "room_id",
        "coloured_status",
        "created_by",
        "worker_id",
        "worker_identity",
        "attempt",
        "retries_left",
        "lease_expires_at",
        "created_at",
        "started_at",
        "completed_at",
        "age",
        "run_time",
        "payload_json",
        "error_text",
    )

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

    @admin.display(description=_("job"), ordering="job")
    def job_name(self, task: Task) -> str:
        """The job's full name."""
        return task.job_name

    @admin.display(description=_("status"), ordering="status")
    def coloured_status(self, task: Task) -> SafeString:
        """The status, with a CSS class for its colour."""
        return format_html(
            '<span class="joblib-status joblib-{}">{}</span>',
            task.status,
            task.get_status_display(),
        )

    @admin.display(description=_("age"), ordering="id")
    def age(self, task: Task) -> str:
        """The time since the submit."""
        return time_since(task.created_at)

    @admin.display(description=_("duration"))
    def run_time(self, task: Task) -> str:
        """The time from start to end, or until now while the task runs."""
        if task.started_at is None:
            return "-"
        return duration((task.completed_at or timezone.now()) - task.started_at)

    @admin.display(description=_("payload"))
    def payload_json(self, task: Task) -> SafeString:
        """The payload as JSON."""
        return indented_json(task.payload)

    @admin.display(description=_("error"))
    def error_text(self, task: Task) -> SafeString:
        """The error with its line breaks."""
        return preformatted(task.error or "")

    def has_administer_permission(self, request: HttpRequest) -> bool:
        """Whether the user may cancel and requeue; the actions name it by ``permissions=``."""
        return bool(request.user.has_perm("zndraw_joblib.administer"))

    @admin.action(description=_("Cancel the selected tasks"), permissions=["administer"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Cancel tasks that have not ended."""
        return self._confirm_and_apply(
            request, queryset, "cancel", Task.cancel, TaskStatus.CANCELLED
        )

    @admin.action(description=_("Requeue the selected tasks"), permissions=["administer"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Take claimed and running tasks from their workers, so that another worker claims them."""
        return self._confirm_and_apply(
            request, queryset, "requeue", Task.requeue, TaskStatus.PENDING
        )

    def _confirm_and_apply(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        action: str,
        verb: Callable[[Task], TaskRow | None],
        status: TaskStatus,
    ) -> HttpResponse | None:
        """Ask for confirmation, then apply the verb, which returns None in a wrong status."""
        tasks = list(queryset.select_related("job")[:MAX_COUNTED])
        if request.POST.get("confirmed") != "yes":
            context = {
                **self.admin_site.each_context(request),
                "title": _("Are you sure?"),
                "opts": self.model._meta,
                "action": action,
                "tasks": tasks,
                "checkbox": ACTION_CHECKBOX_NAME,
                "media": self.media,
            }
            return TemplateResponse(request, "admin/zndraw_joblib/confirm.html", context)
        changed = [task for task in tasks if verb(task) is not None]
        for task in changed:
            log_change(request, task, f"{action}: now {status}")
        self.message_user(
            request,
            ngettext("%(n)d task is now %(s)s.", "%(n)d tasks are now %(s)s.", len(changed))
            % {"n": len(changed), "s": STATUS_LABELS[status]},
            messages.SUCCESS if changed else messages.WARNING,
        )
        if unchanged := len(tasks) - len(changed):
            self.message_user(
                request,
                ngettext(
                    "%(n)d task was not in a state that allows it.",
                    "%(n)d tasks were not in a state that allows it.",
                    unchanged,
                )
                % {"n": unchanged},
                messages.WARNING,
            )
        return None
