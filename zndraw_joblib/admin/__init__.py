"""Jobs, workers and tasks in Django's admin: for looking, cancelling and requeueing."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _, ngettext

from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Job, Task, Worker
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.ids import first_id
from zndraw_joblib.storage.rows import TaskRow

#: What the clocks of servers and database may differ by.
CLOCKS_DIFFER = timedelta(hours=1)
#: Rows that the paginator counts; what lies beyond is reached by filters.
MAX_COUNTED = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts up to `MAX_COUNTED` rows, never a whole table."""

    @cached_property
    def count(self) -> int:
        """The number of rows, or `MAX_COUNTED` when there are more."""
        rows: Any = self.object_list
        return len(rows.order_by().values_list("pk")[:MAX_COUNTED])


def duration(span: timedelta) -> str:
    """A span of time in a few characters: ``42 ms``, ``3.1 s``, ``2:05:09``."""
    seconds = max(span.total_seconds(), 0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def age(moment: datetime | None) -> str:
    """How long ago, or a dash."""
    return duration(timezone.now() - moment) if moment else "-"


def text(value: str) -> SafeString:
    """A text as it is, escaped."""
    return format_html('<pre class="joblib-text">{}</pre>', value)


def indented(value: Any) -> SafeString:
    """JSON, indented and escaped."""
    return text(json.dumps(value, indent=2, ensure_ascii=False))


class AgeFilter(admin.SimpleListFilter):
    """By the age of a task."""

    title = _("age")
    parameter_name = "age"
    spans: ClassVar = {
        "hour": (_("last hour"), timedelta(hours=1)),
        "day": (_("last day"), timedelta(days=1)),
        "week": (_("last week"), timedelta(days=7)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """The spans and what is older than all of them."""
        return [*((key, name) for key, (name, _span) in self.spans.items()), ("older", _("older"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Tasks of that age."""
        span = self.value()
        if span == "older":
            return queryset.filter(created_at__lt=Now() - self.spans["week"][1])
        if span in self.spans:
            length = self.spans[span][1]
            # Ids begin with the time of the clock that made them, and theirs is the index.
            first = first_id(timezone.now() - length - CLOCKS_DIFFER)
            return queryset.filter(pk__gte=first, created_at__gte=Now() - length)
        return queryset


class ExactFilter(admin.SimpleListFilter):
    """By a value that the address gives, such as a room: listing all there are would scan."""

    template = "admin/zndraw_joblib/exact_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """A single entry keeps the filter shown; its template is a text box."""
        return [("", "")]

    def choices(self, changelist: Any) -> Any:
        """What the text box must keep of the address."""
        kept = changelist.get_filters_params().items()
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "others": [(name, values) for name, values in kept if name != self.parameter_name],
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Rows with exactly that value."""
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class RoomFilter(ExactFilter):
    """By room."""

    title = _("room")
    parameter_name = "room_id"


class LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Nothing is added, changed or deleted by hand: the verbs keep the state machine."""

    paginator = CappedPaginator
    show_full_result_count = False
    # Facets count the whole table once for each value.
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    actions: Any = None

    class Media:
        """The colours."""

        css: ClassVar = {"all": ["zndraw_joblib/admin.css"]}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """No."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """No: fields are shown, not edited."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """No: history stays."""
        return False


@admin.register(Job)
class JobAdmin(LookOnly):
    """Jobs."""

    list_display = ("full_name", "workers_", "created_at", "retired_at")
    list_filter = (RoomFilter, "category", ("retired_at", admin.EmptyFieldListFilter))
    search_fields = ("=id", "=room_id", "name")
    fields = ("id", "full_name", "workers_", "created_at", "retired_at", "schema_")
    ordering = ("room_id", "category", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Jobs with their number of workers."""
        counted: QuerySet[Job] = Job.objects.with_worker_count()
        return counted

    @admin.display(description=_("workers"), ordering="worker_count")
    def workers_(self, job: Any) -> int:
        """How many workers offer the job."""
        count: int = job.worker_count
        return count

    @admin.display(description=_("schema"))
    def schema_(self, job: Job) -> SafeString:
        """The JSON Schema of a payload."""
        return indented(job.schema)


@admin.register(Worker)
class WorkerAdmin(LookOnly):
    """Workers."""

    list_display = ("id", "identity", "alive", "heartbeat_age", "jobs_", "created_at")
    search_fields = ("=id", "=identity")
    fields = ("id", "identity", "alive", "last_heartbeat", "heartbeat_age", "offers", "created_at")
    ordering = ("-created_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        """Workers with their number of jobs."""
        counted: QuerySet[Worker] = Worker.objects.with_job_count()
        return counted

    @admin.display(description=_("alive"), boolean=True)
    def alive(self, worker: Worker) -> bool:
        """Whether its last heartbeat is recent."""
        return worker.is_alive(get_settings().lease)

    @admin.display(description=_("last heartbeat"), ordering="last_heartbeat")
    def heartbeat_age(self, worker: Worker) -> str:
        """How long ago the last heartbeat came."""
        return age(worker.last_heartbeat)

    @admin.display(description=_("jobs"), ordering="job_count")
    def jobs_(self, worker: Any) -> int:
        """How many jobs it offers."""
        count: int = worker.job_count
        return count

    @admin.display(description=_("jobs"))
    def offers(self, worker: Worker) -> SafeString:
        """The names of its jobs."""
        return text("\n".join(job.full_name for job in worker.jobs.all()))


@admin.register(Task)
class TaskAdmin(LookOnly):
    """Tasks."""

    list_display = (
        "id",
        "coloured_status",
        "job_name",
        "room_id",
        "attempt",
        "age_",
        "duration_",
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
        "age_",
        "duration_",
        "payload_",
        "error_",
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exactly that id or room: each by its index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(room_id=term)
        with suppress(ValueError):
            found |= Q(pk=UUID(term))
        return queryset.filter(found), False

    @admin.display(description=_("job"), ordering="job")
    def job_name(self, task: Task) -> str:
        """The job's full name."""
        return task.job_name

    @admin.display(description=_("status"), ordering="status")
    def coloured_status(self, task: Task) -> SafeString:
        """The status on its colour."""
        return format_html(
            '<span class="joblib-status joblib-{}">{}</span>', task.status, task.status
        )

    @admin.display(description=_("age"), ordering="id")
    def age_(self, task: Task) -> str:
        """How long ago it was submitted."""
        return age(task.created_at)

    @admin.display(description=_("duration"))
    def duration_(self, task: Task) -> str:
        """How long it ran, or has been running."""
        if task.started_at is None:
            return "-"
        return duration((task.completed_at or timezone.now()) - task.started_at)

    @admin.display(description=_("payload"))
    def payload_(self, task: Task) -> SafeString:
        """The payload as JSON."""
        return indented(task.payload)

    @admin.display(description=_("error"))
    def error_(self, task: Task) -> SafeString:
        """The error text."""
        return text(task.error or "")

    def has_administer_permission(self, request: HttpRequest) -> bool:
        """Who may cancel and requeue."""
        return bool(request.user.has_perm("zndraw_joblib.administer"))

    @admin.action(description=_("Cancel the selected tasks"), permissions=["administer"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Cancel what has not ended."""
        return self._confirmed(request, queryset, "cancel", Task.cancel, TaskStatus.CANCELLED)

    @admin.action(description=_("Requeue the selected tasks"), permissions=["administer"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Take claimed and running tasks from their workers."""
        return self._confirmed(request, queryset, "requeue", Task.requeue, TaskStatus.PENDING)

    def _confirmed(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        action: str,
        verb: Callable[[Task], TaskRow | None],
        status: TaskStatus,
    ) -> HttpResponse | None:
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
            % {"n": len(changed), "s": status},
            messages.SUCCESS if changed else messages.WARNING,
        )
        if left := len(tasks) - len(changed):
            self.message_user(
                request,
                ngettext(
                    "%(n)d task was not in a state that allows it.",
                    "%(n)d tasks were not in a state that allows it.",
                    left,
                )
                % {"n": left},
                messages.WARNING,
            )
        return None


def log_change(request: HttpRequest, obj: Model, message: str) -> None:
    """Note in the admin's history who did what."""
    LogEntry.objects.create(
        user_id=str(request.user.pk),
        content_type=get_content_type_for_model(obj),
        object_id=str(obj.pk),
        object_repr=str(obj)[:200],
        action_flag=CHANGE,
        change_message=message,
    )
