"""The operators' dashboard: a page of the admin in place of the list of the statistics' rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import localize
from django.utils.timezone import localtime
from django.utils.translation import gettext as _, gettext_lazy

from zndraw_joblib.access import identity_labels
from zndraw_joblib.admin.base import person
from zndraw_joblib.admin.charts import CHARTS, both_quantiles, chart_document, chart_table
from zndraw_joblib.admin.failures import FailureRetries
from zndraw_joblib.admin.formats import and_more, breakable_name, duration
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import FailureGroup, Job, JobInterval, Task, Worker
from zndraw_joblib.services.dashboard import Dashboard, JobNumbers, read_dashboard
from zndraw_joblib.settings import get_settings

#: Seconds between two reloads of the numbers by the page.
RELOAD_SECONDS = 10
#: A warning says that the statistics lag behind when they do so by more than this.
MAX_LAG = timedelta(minutes=10)

SPAN_LABELS = {
    "hour": gettext_lazy("last hour"),
    "day": gettext_lazy("last day"),
    "week": gettext_lazy("last week"),
}


@admin.register(JobInterval)
class DashboardAdmin(FailureRetries):
    """The dashboard. Whoever may view tasks may view it."""

    def get_urls(self) -> list[URLPattern]:
        """The page, its numbers, and the retry of failures; no page of a single row."""
        view, name = self.admin_site.admin_view, self._page_name
        return [
            path("", view(self.changelist_view), name=name("changelist")),
            path("numbers/", view(self.numbers_view), name=name("numbers")),
            path("failures/<slug:group_id>/retry/", view(self.retry_view), name=name("retry")),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page with all numbers, which works without JavaScript too."""
        context = self._context(request)
        page = {
            **self.admin_site.each_context(request),
            **context,
            **(extra_context or {}),
            "title": _("Dashboard"),
            "opts": self.opts,
            "reload_seconds": RELOAD_SECONDS,
            "numbers_url": f"{self._page_url('numbers')}?{context['query']}",
            "chart_document": chart_document(context["dashboard"]),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/zndraw_joblib/dashboard.html", page)

    def numbers_view(self, request: HttpRequest) -> JsonResponse:
        """The parts of the page that change, and the values of the charts."""
        context = self._context(request)
        parts = {
            name: render_to_string(f"admin/zndraw_joblib/dashboard_{name}.html", context, request)
            for name in ("summary", "details")
        }
        document = {"parts": parts, "charts": chart_document(context["dashboard"])}
        return JsonResponse(document, headers={"Cache-Control": "no-store"})

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        """The values of the templates. Unknown values of parameters are a 404."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        span = request.GET.get("span", "hour")
        if span not in SPAN_LABELS:
            raise Http404
        try:
            job_id = UUID(request.GET["job"]) if request.GET.get("job") else None
            dashboard = read_dashboard(span, job_id)
        except (ValueError, Job.DoesNotExist) as error:
            raise Http404 from error
        may_view_workers = request.user.has_perm("zndraw_joblib.view_worker")
        query = {"span": span, **({"job": str(job_id)} if job_id else {})}
        return {
            "dashboard": dashboard,
            "query": urlencode(query),
            "span_label": SPAN_LABELS[span],
            "spans": [
                (label, "?" + urlencode({**query, "span": key}), key == span)
                for key, label in SPAN_LABELS.items()
            ],
            "all_jobs_url": "?" + urlencode({"span": span}),
            "problems": self._problems(dashboard),
            "unserved": [
                (line, self._tasks_url(line.job, TaskStatus.PENDING)) for line in dashboard.unserved
            ],
            "tiles": self._tiles(dashboard, span),
            "tables": [chart_table(dashboard, *chart) for chart in CHARTS],
            "jobs": [self._job_row(line, span, dashboard.now) for line in dashboard.jobs],
            "may_view_workers": may_view_workers,
            "workers": self._worker_rows(dashboard) if may_view_workers else [],
            "failures": [
                self._failure_row(request, group, job) for group, job in dashboard.failures
            ],
            "may_retry": self.has_administer_permission(request),
        }

    def _problems(self, dashboard: Dashboard) -> list[str]:
        """Texts of what keeps the numbers from being true."""
        last = dashboard.last_pass
        if last is None:
            return [
                _("The sweeper never ran. Start manage.py run_sweeper: without it no lost task is "
                  "recovered, and there are no statistics.")
            ]  # fmt: skip
        if dashboard.is_late:
            return [
                _("The sweeper's last pass ended %(age)s ago. Lost tasks are not recovered, and "
                  "the numbers are old. Start manage.py run_sweeper.")
                % {"age": duration(dashboard.now - last.ended_at)}
            ]  # fmt: skip
        state = dashboard.state
        if state and state.ended_until and dashboard.now - state.ended_until > MAX_LAG:
            return [
                _("Tasks that ended after %(time)s are not counted yet.")
                % {"time": localize(localtime(state.ended_until))}
            ]
        return []

    def _tiles(self, dashboard: Dashboard, span: str) -> list[tuple[str, str, str]]:
        """The large numbers: heading, value and the address of the list behind it."""
        job, gauge, total = dashboard.job, dashboard.gauge, dashboard.total
        oldest = gauge.oldest_due_at
        return [
            (_("Pending"), localize(gauge.pending), self._tasks_url(job, TaskStatus.PENDING)),
            (_("Scheduled"), localize(gauge.scheduled), self._tasks_url(job, TaskStatus.PENDING)),
            (_("Claimed"), localize(gauge.claimed), self._tasks_url(job, TaskStatus.CLAIMED)),
            (_("Running"), localize(gauge.running), self._tasks_url(job, TaskStatus.RUNNING)),
            (
                _("Oldest unclaimed task"),
                duration(dashboard.now - oldest) if oldest else "-",
                self._tasks_url(job, TaskStatus.PENDING),
            ),
            (_("Ended a minute"), localize(round(dashboard.ended_per_minute, 2)), ""),
            (
                _("Completed"),
                localize(total.completed),
                self._tasks_url(job, TaskStatus.COMPLETED, span),
            ),
            (_("Failed"), localize(total.failed), self._tasks_url(job, TaskStatus.FAILED, span)),
            (_("Queue delay: median and 95th percentile"), both_quantiles(total.delays), ""),
            (_("Run time: median and 95th percentile"), both_quantiles(total.run_times), ""),
            (_("Workers"), localize(dashboard.worker_count), self._list_url(Worker)),
        ]

    def _job_row(self, line: JobNumbers, span: str, now: datetime) -> dict[str, Any]:
        gauge, counts = line.gauge, line.counts
        oldest = gauge.oldest_due_at if gauge else None
        held = (gauge.claimed + gauge.running) if gauge else 0
        return {
            "name": breakable_name(line.job.full_name),
            "url": "?" + urlencode({"span": span, "job": str(line.job.pk)}),
            "page": self._object_url(Job, line.job.pk),
            "is_served": line.is_served,
            "numbers": [
                (gauge.pending if gauge else 0, self._tasks_url(line.job, TaskStatus.PENDING)),
                (held, self._tasks_url(line.job, TaskStatus.RUNNING)),
                (duration(now - oldest) if oldest else "-", ""),
                (counts.submitted, self._tasks_url(line.job, None, span)),
                (counts.completed, self._tasks_url(line.job, TaskStatus.COMPLETED, span)),
                (counts.failed, self._tasks_url(line.job, TaskStatus.FAILED, span)),
                (counts.cancelled, self._tasks_url(line.job, TaskStatus.CANCELLED, span)),
                (counts.attempts - counts.ended if counts.attempts > counts.ended else 0, ""),
                (both_quantiles(counts.delays), ""),
                (both_quantiles(counts.run_times), ""),
            ],
        }

    def _worker_rows(self, dashboard: Dashboard) -> list[dict[str, Any]]:
        labels = identity_labels(line.worker.identity for line in dashboard.workers)
        lease = get_settings().lease
        return [
            {
                "id": line.worker.pk,
                "url": self._object_url(Worker, line.worker.pk),
                "owner": person(line.worker.identity, labels),
                "age": duration(dashboard.now - line.worker.last_heartbeat),
                "is_alive": dashboard.now - line.worker.last_heartbeat <= lease,
                "tasks": [
                    {
                        "url": self._object_url(Task, task.pk),
                        "job": task.job.full_name,
                        "status": task.get_status_display(),
                        "age": duration(dashboard.now - task.started_at) if task.started_at else "",
                    }
                    for task in (line.held.tasks if line.held else [])
                ],
                "others": and_more(line.held.others) if line.held and line.held.others else "",
                "held_url": self._list_url(Task, held_by=line.worker.pk),
            }
            for line in dashboard.workers
        ]

    def _failure_row(
        self, request: HttpRequest, group: FailureGroup, job: Job | None
    ) -> dict[str, Any]:
        return {
            "group": group,
            "job": job.full_name if job else "",
            "tasks_url": self._list_url(Task, failure=group.pk),
            "example_url": self._object_url(Task, group.example),
            "retry_url": self._page_url("retry", group.pk),
        }

    def _tasks_url(self, job: Job | None, status: TaskStatus | None, span: str = "") -> str:
        """The list of the tasks of a job that were submitted, or ended with a status, in a span."""
        query = {
            "status__exact": status.value if status else "",
            "job__id__exact": str(job.pk) if job else "",
            "ended" if status else "age": span,
        }
        return self._list_url(Task, **{name: value for name, value in query.items() if value})

    def _list_url(self, model: Any, **query: str) -> str:
        """A list of the admin; empty where the site has not registered the model."""
        url = self._model_url(model._meta.model_name)
        return f"{url}?{urlencode(query)}" if url and query else url or ""

    def _object_url(self, model: Any, key: Any) -> str:
        url = self._model_url(model._meta.model_name)
        # Quoted as the admin's own links are, because the id of a worker is any text.
        return f"{url}{quote(key)}/change/" if url else ""
