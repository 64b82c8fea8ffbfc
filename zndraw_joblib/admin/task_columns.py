"""Columns of the list of tasks; the page of a task has some of them, too."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.admin.base import ReadOnlyAdmin, person_name
from zndraw_joblib.admin.formats import (
    breakable_name,
    coloured_status,
    duration,
    link,
    progress_bar,
    short_id,
    time_since,
)
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task


class TaskColumns(ReadOnlyAdmin):
    """Columns that are narrow enough for a list of 1,280 pixels."""

    @admin.display(description=_("id"), ordering="id")
    def short_id(self, task: Task) -> SafeString:
        """The end of the id."""
        return short_id(task.pk)

    @admin.display(description=_("job"), ordering="job")
    def job_link(self, task: Task) -> SafeString:
        """The job's full name, with a link to the page of the job."""
        name = breakable_name(task.job_name)
        return link(self._model_url("job"), f"{task.job_id}/change/", name)

    @admin.display(description=_("room"), ordering="room_id")
    def room_link(self, task: Task) -> SafeString:
        """The room, with a link to the list of its tasks."""
        return format_html(
            '<a href="?{}">{}</a>', urlencode({"room_id": task.room_id}), task.room_id
        )

    @admin.display(description=_("status"), ordering="status")
    def coloured_status(self, task: Task) -> SafeString:
        """The status, with a CSS class for its colour."""
        return coloured_status(task)

    @admin.display(description=_("status"), ordering="status")
    def status_and_progress(self, task: Task) -> SafeString:
        """The status, and how far a running task is."""
        status = self.coloured_status(task)
        if task.status != TaskStatus.RUNNING or task.progress is None:
            return status
        return format_html("{}<br>{}", status, progress_bar(task.progress))

    @admin.display(description=_("created by"), ordering="created_by")
    def submitter_link(self, task: Any) -> SafeString | str:
        """The name of the submitter, with a link to the list of their tasks."""
        if not task.created_by:
            return "-"
        query = urlencode({"created_by": task.created_by})
        name = person_name(task.created_by, task.identity_labels)
        return format_html('<a href="?{}">{}</a>', query, name)

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
