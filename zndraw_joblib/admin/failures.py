"""Retries all tasks that failed with the same error, from the dashboard."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _, ngettext

from zndraw_joblib.access import Caller
from zndraw_joblib.admin.base import ReadOnlyAdmin
from zndraw_joblib.admin.task_actions import retry_each, tell_refusals
from zndraw_joblib.models import FailureGroup, Job, Task
from zndraw_joblib.services.failures import unretried

#: Most tasks that are retried in one transaction.
CHUNK = 50
#: Seconds after which a request leaves the rest to the next one, which the user confirms again.
REQUEST_SECONDS = 5.0


class FailureRetries(ReadOnlyAdmin):
    """The page that retries a group of failures."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may view tasks."""
        may = request.user.has_perm
        return may("zndraw_joblib.view_task") or may("zndraw_joblib.change_task")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the index shows the dashboard."""
        return self.has_view_permission(request)

    def has_administer_permission(self, request: HttpRequest) -> bool:
        """Whether the user may retry tasks."""
        return bool(request.user.has_perm("zndraw_joblib.administer"))

    def retry_view(self, request: HttpRequest, group_id: str) -> HttpResponse:
        """Ask for a confirmation (GET), or retry the group's tasks that were not retried (POST).

        A group that takes longer than `REQUEST_SECONDS` is confirmed again for the rest.
        """
        if not (self.has_view_permission(request) and self.has_administer_permission(request)):
            raise PermissionDenied
        group = get_object_or_404(FailureGroup, pk=group_id)
        after = _task_id(request.POST.get("after"))
        if request.method == "POST":
            done, after = _retry_group(request, group, after)
            self._tell(request, done)
            if after is None:
                return HttpResponseRedirect(self._page_url("changelist"))
        left = unretried(group.pk)
        number = (left.filter(pk__gt=after) if after else left).count()
        question = ngettext(
            "%(n)d task that failed with this error will be submitted again, as a new task of "
            "yours.",
            "%(n)d tasks that failed with this error will be submitted again, as new tasks of "
            "yours.",
            number,
        )
        context = {
            **self.admin_site.each_context(request),
            "title": _("Retry all"),
            "opts": self.opts,
            "group": group,
            "job": Job.objects.filter(pk=group.job_id).first(),
            "question": question % {"n": number} if number else "",
            "after": after or "",
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/zndraw_joblib/retry_all.html", context)

    def _tell(self, request: HttpRequest, done: tuple[int, Counter[str]]) -> None:
        made, refusals = done
        text = ngettext(
            "%(n)d task was submitted again.", "%(n)d tasks were submitted again.", made
        )
        level = messages.SUCCESS if made else messages.WARNING
        self.message_user(request, text % {"n": made}, level)
        tell_refusals(self, request, refusals)


def _retry_group(
    request: HttpRequest, group: FailureGroup, after: UUID | None
) -> tuple[tuple[int, Counter[str]], UUID | None]:
    """Retry the group's tasks with ids after this one.

    Returns the number of new tasks, the refusals, and the last task that was looked at, or None if
    none is left.
    """
    using = router.db_for_write(Task)
    caller = Caller(request)
    until = time.monotonic() + REQUEST_SECONDS
    made = 0
    refusals: Counter[str] = Counter()
    while True:
        with transaction.atomic(using=using):
            # Locked, because two users might retry the same group at the same moment.
            FailureGroup.objects.using(using).select_for_update().filter(pk=group.pk).first()
            tasks = unretried(group.pk, using)
            if after is not None:
                tasks = tasks.filter(pk__gt=after)
            chunk = list(tasks.select_related("job")[:CHUNK])
            made += retry_each(request, caller, chunk, refusals)
        if len(chunk) < CHUNK:
            return (made, refusals), None
        after = chunk[-1].pk
        if time.monotonic() > until:
            return (made, refusals), after


def _task_id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
