"""The page of a task: its result, progress, attempts, log and files, and downloads of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.forms import Script
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    JsonResponse,
)
from django.template.defaultfilters import filesizeformat
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _

from zndraw_joblib.access import identity_labels
from zndraw_joblib.admin.base import person
from zndraw_joblib.admin.formats import (
    MAX_LISTED,
    MAX_SHOWN,
    html_table,
    indented_json,
    preformatted,
    progress_bar,
)
from zndraw_joblib.admin.task_columns import TaskColumns
from zndraw_joblib.models import OUTCOME_LABELS, Task, TaskFile, TaskLogChunk
from zndraw_joblib.services.attempts import attempts_of
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.fields import json_bytes
from zndraw_joblib.storage.logs import MAX_OFFSET

#: The downloads of a task: a function and the content type, by the name of the file.
DOWNLOADS: dict[str, tuple[Callable[[Task], bytes], str]] = {
    "result.json": (lambda task: json_bytes(task.result), "application/json"),
    "payload.json": (lambda task: json_bytes(task.payload), "application/json"),
    "log.txt": (lambda task: log_tail(task, None)[0].encode(), "text/plain; charset=utf-8"),
}


def log_tail(task: Task, limit: int | None) -> tuple[str, int]:
    """The last `limit` bytes of a task's log in UTF-8 (None: all), and the offset of its end.

    The text begins with a whole character.
    """
    parts: list[bytes] = []
    size = end = 0
    chunks = TaskLogChunk.objects.using(task._state.db).filter(task=task).order_by("-start")
    for start, text in chunks.values_list("start", "text").iterator(chunk_size=16):
        parts.append(text.encode())
        size += len(parts[-1])
        end = end or start + size
        if limit is not None and size >= limit:
            break
    whole = b"".join(reversed(parts))
    kept = whole[max(0, size - limit) if limit is not None else 0 :]
    return kept.decode(errors="ignore"), end


class TaskPage(TaskColumns):
    """Fields of the page of a task."""

    identity_fields = ("created_by", "worker_identity", "worker_id")

    class Media:
        js: ClassVar = (Script("zndraw_joblib/admin_task.js", type="module"),)

    fieldsets = (
        (
            None,
            {
                "fields": (
                    "id",
                    "job_link",
                    "room_id",
                    "coloured_status",
                    "progress_shown",
                    "message_text",
                    "submitter",
                    "created_at",
                    "run_at",
                    "started_at",
                    "completed_at",
                    "age",
                    "run_time",
                    "traceparent",
                )
            },
        ),
        (
            _("Result"),
            {"fields": ("result_json", "error_text", "file_table", "log_text", "payload_json")},
        ),
        (
            _("Attempts"),
            {
                "fields": (
                    "attempt",
                    "worker_label",
                    "worker_owner",
                    "lease_expires_at",
                    "timeout_seconds",
                    "retries",
                    "retries_left",
                    "attempt_table",
                    "retry_of_link",
                    "retried_by_links",
                )
            },
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        """Django's pages, the downloads of a task, and its present state for ``admin_task.js``."""
        download = self.admin_site.admin_view(self.download)
        live = self.admin_site.admin_view(self.live)
        return [
            path("<uuid:task_id>/download/<str:part>", download, name=self._page_name("download")),
            path("<uuid:task_id>/live", live, name=self._page_name("live")),
            *super().get_urls(),
        ]

    def live(self, request: HttpRequest, task_id: UUID) -> HttpResponse:
        """The status, the progress and the log from an offset on, for ``admin_task.js``."""
        task = self._viewed(request, task_id)
        try:
            offset = min(max(int(request.GET.get("offset", "")), 0), MAX_OFFSET)
        except ValueError:
            return HttpResponseBadRequest()
        log = TaskLogChunk.objects.read(task.pk, offset, get_settings().max_log_bytes)
        if log is None:
            raise Http404
        document = {
            "status": task.status,
            "label": task.get_status_display(),
            "progress": task.progress,
            "message": task.message or "",
            "text": log.text,
            "cut": log.offset > offset,
            "next_offset": log.next_offset,
            "ended": log.ended,
        }
        return JsonResponse(document)

    def _viewed(self, request: HttpRequest, task_id: UUID) -> Task:
        """The task of a request by a user who may view it."""
        task = self.get_object(request, str(task_id))
        if not self.has_view_permission(request, task):
            raise PermissionDenied
        if task is None:
            raise Http404
        found: Task = task
        return found

    def download(self, request: HttpRequest, task_id: UUID, part: str) -> HttpResponse:
        """One of `DOWNLOADS`, as a file that no browser shows in a page of the site."""
        task = self._viewed(request, task_id)
        if part not in DOWNLOADS:
            raise Http404
        content, content_type = DOWNLOADS[part]
        return HttpResponse(
            content(task),
            content_type=content_type,
            headers={
                "Content-Disposition": f'attachment; filename="{task_id}-{part}"',
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "private, no-store",
            },
        )

    @admin.display(description=_("progress"))
    def progress_shown(self, task: Task) -> SafeString | str:
        """How far the task is, as a bar."""
        return progress_bar(task.progress)

    @admin.display(description=_("message"))
    def message_text(self, task: Task) -> SafeString:
        """The worker's message with its line breaks."""
        return preformatted(task.message or "")

    @admin.display(description=_("created by"), ordering="created_by")
    def submitter(self, task: Any) -> str:
        """The identity of the submitter, with its name."""
        return person(task.created_by, task.identity_labels)

    @admin.display(description=_("worker"))
    def worker_label(self, task: Any) -> str:
        """The worker of the latest attempt; a default worker has the name of its identity."""
        return person(task.worker_id, task.identity_labels)

    @admin.display(description=_("identity of the worker"))
    def worker_owner(self, task: Any) -> str:
        """The identity that was granted the latest attempt, with its name."""
        return person(task.worker_identity, task.identity_labels)

    @admin.display(description=_("payload"))
    def payload_json(self, task: Task) -> SafeString:
        """The payload as JSON."""
        return indented_json(task.payload, self._page_url("download", task.pk, "payload.json"))

    @admin.display(description=_("result"))
    def result_json(self, task: Task) -> SafeString | str:
        """The result as JSON; a dash without one."""
        if task.result is None:
            return "-"
        return indented_json(task.result, self._page_url("download", task.pk, "result.json"))

    @admin.display(description=_("error"))
    def error_text(self, task: Task) -> SafeString:
        """The error with its line breaks."""
        return preformatted(task.error or "")

    @admin.display(description=_("log"))
    def log_text(self, task: Task) -> SafeString | str:
        """The end of the log, with a link to all of it; it grows until the task ends."""
        if task.is_terminal and not task.log_size:
            return "-"
        text, end = log_tail(task, MAX_SHOWN)
        cut = format_html(
            '<p><a href="{}">{}</a></p>',
            self._page_url("download", task.pk, "log.txt"),
            gettext("The end of the log; download all that is kept"),
        )
        shown = preformatted(text) if task.is_terminal else self._growing(task, text, end)
        return format_html("{}{}", cut if task.log_size > MAX_SHOWN else "", shown)

    def _growing(self, task: Task, text: str, end: int) -> SafeString:
        """The log of a task that has not ended. The attributes are read by ``admin_task.js``."""
        texts = {
            "live": gettext("Refreshes by itself while the task has not ended."),
            "ended": gettext("The task has ended. Reload the page for its result."),
            "offline": gettext("The server cannot be reached; trying again."),
            "refused": gettext("No longer refreshing: sign in again, or reload the page."),
            "cut": gettext("[text left out here]"),
        }
        return format_html(
            '<pre class="joblib-text joblib-growing" tabindex="0" data-url="{}" data-offset="{}"'
            ' data-texts="{}">{}</pre><p class="joblib-live" role="status"></p>',
            self._page_url("live", task.pk),
            str(end),
            json.dumps({key: str(value) for key, value in texts.items()}),
            text,
        )

    @admin.display(description=_("files"))
    def file_table(self, task: Task) -> SafeString | str:
        """The files; those of the latest attempt that has them link to the API."""
        stored = TaskFile.objects.using(task._state.db).filter(task=task)
        files = stored.order_by("-attempt", "name")[:MAX_LISTED]
        latest = {file.name: file for file in reversed(files)}
        return html_table(
            [_("name"), _("size"), _("content type"), _("attempt"), _("created at")],
            (
                (
                    _file_link(file) if latest[file.name] is file else file.name,
                    filesizeformat(file.size),
                    file.content_type,
                    file.attempt,
                    _local(file.created_at),
                )
                for file in files
            ),
            stored.count() - len(files),
        )

    @admin.display(description=_("attempts"))
    def attempt_table(self, task: Task) -> SafeString | str:
        """The latest attempts, each with its outcome."""
        earlier = max(0, task.attempt - MAX_LISTED)
        attempts = attempts_of(task, after=earlier)
        labels = identity_labels(attempt.worker_id or "" for attempt in attempts)
        return html_table(
            [
                _("attempt"),
                _("worker"),
                _("claimed at"),
                _("started at"),
                _("ended at"),
                _("outcome"),
                _("error"),
            ],
            (
                (
                    attempt.attempt,
                    person(attempt.worker_id, labels),
                    *map(_local, (attempt.claimed_at, attempt.started_at, attempt.ended_at)),
                    OUTCOME_LABELS[attempt.outcome] if attempt.outcome else "-",  # type: ignore[index]
                    preformatted(attempt.error or ""),
                )
                for attempt in attempts
            ),
            earlier,
        )

    @admin.display(description=_("retry of"))
    def retry_of_link(self, task: Task) -> SafeString | str:
        """A link to the task that this one repeats."""
        return self._task_links([task.retry_of_id] if task.retry_of_id else [])

    @admin.display(description=_("retried by"))
    def retried_by_links(self, task: Task) -> SafeString | str:
        """Links to the tasks that repeat this one."""
        retries = Task.objects.using(task._state.db).filter(retry_of=task).order_by("pk")
        return self._task_links(retries.values_list("pk", flat=True)[:MAX_LISTED])

    def _task_links(self, ids: Iterable[UUID]) -> SafeString | str:
        link = partial(self._page_url, "change")
        links = [(link(task_id), task_id) for task_id in ids]
        return format_html_join(" ", '<a href="{}">{}</a>', links) or "-"


def _file_link(file: TaskFile) -> SafeString | str:
    """A link to a download by the API; the name alone where the site mounts the API elsewhere."""
    try:
        url = reverse("zndraw_joblib:file", args=(file.task_id, file.name))
    except NoReverseMatch:
        return file.name
    return format_html('<a href="{}">{}</a>', url, file.name)


def _local(moment: Any) -> str:
    """A time in the active time zone with its seconds; a dash for None."""
    return "-" if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"
