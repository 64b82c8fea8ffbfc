"""Actions on tasks, each with a confirmation and an entry of the admin's history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _, ngettext
from rest_framework.exceptions import APIException

from zndraw_joblib.access import Caller
from zndraw_joblib.admin.base import MAX_COUNTED, ReadOnlyAdmin, log_changes, log_deletions
from zndraw_joblib.admin.formats import MAX_LISTED, and_more
from zndraw_joblib.exceptions import ProblemException
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import STATUS_LABELS, Task
from zndraw_joblib.services.prune import prune_now
from zndraw_joblib.services.retry import retry
from zndraw_joblib.storage.locking import BATCH
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.tasks import TaskQuerySet

#: Name of the field of a confirmation that contains the ids of the tasks. One for all of them,
#: because Django refuses a form of more than `DATA_UPLOAD_MAX_NUMBER_FIELDS` fields.
IDS_FIELD = "task_ids"

_EXPLANATIONS = {
    "cancel": _("These tasks will be cancelled; later reports of their workers will be refused."),
    "requeue": _("These tasks will be taken from their workers and will be pending again."),
    "retry": _(
        "Those of these tasks that have ended will be submitted again, as new tasks of yours."
    ),
    "prune": _(
        "Those of these tasks that have ended will be deleted for good, with their logs, attempts "
        "and files."
    ),
}


class TaskActions(ReadOnlyAdmin):
    """Actions of administrators of the job server."""

    actions = ("cancel", "requeue", "retry", "prune")

    def has_administer_permission(self, request: HttpRequest) -> bool:
        """Whether the user may take actions, which name this method by ``permissions=``."""
        return bool(request.user.has_perm("zndraw_joblib.administer"))

    @admin.action(description=_("Cancel the selected tasks"), permissions=["administer"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Cancel tasks that have not ended."""
        return self._move(request, queryset, "cancel", TaskQuerySet.cancel, TaskStatus.CANCELLED)

    @admin.action(description=_("Requeue the selected tasks"), permissions=["administer"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Take claimed and running tasks from their workers, so that another worker claims them."""
        return self._move(request, queryset, "requeue", TaskQuerySet.requeue, TaskStatus.PENDING)

    @admin.action(description=_("Retry the selected tasks"), permissions=["administer"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Submit ended tasks again, each as a new task of the user."""
        if asked := self._confirm(request, queryset, "retry"):
            return asked
        refusals: Counter[str] = Counter()
        made = retry_each(request, Caller(request), _selected(request, queryset), refusals)
        self._tell(
            request,
            ngettext("%(n)d task was submitted again.", "%(n)d tasks were submitted again.", made),
            made,
        )
        tell_refusals(self, request, refusals)
        return None

    @admin.action(description=_("Prune the selected tasks"), permissions=["administer"])
    def prune(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Delete ended tasks."""
        if asked := self._confirm(request, queryset, "prune"):
            return asked
        tasks = _selected(request, queryset)
        deleted = prune_now([task.pk for task in tasks])
        log_deletions(request, [task for task in tasks if task.pk in deleted])
        text = ngettext("%(n)d task was deleted.", "%(n)d tasks were deleted.", len(deleted))
        self._tell(request, text, len(deleted))
        self._tell_unchanged(request, len(tasks) - len(deleted))
        return None

    def _move(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        action: str,
        verb: Callable[[TaskQuerySet], list[TaskRow]],
        status: TaskStatus,
    ) -> HttpResponse | None:
        """Ask for confirmation, then apply the verb, which passes tasks in a wrong status by."""
        if asked := self._confirm(request, queryset, action):
            return asked
        tasks = _selected(request, queryset)
        moved: set[UUID] = set()
        for start in range(0, len(tasks), BATCH):
            batch = [task.pk for task in tasks[start : start + BATCH]]
            moved |= {row.id for row in verb(Task.objects.filter(pk__in=batch))}
        changed = [task for task in tasks if task.pk in moved]
        log_changes(request, changed, f"{action}: now {status}")
        text = ngettext("%(n)d task is now %(s)s.", "%(n)d tasks are now %(s)s.", len(changed))
        self._tell(request, text, len(changed), s=STATUS_LABELS[status])
        self._tell_unchanged(request, len(tasks) - len(changed))
        return None

    def _confirm(
        self, request: HttpRequest, queryset: QuerySet[Any], action: str
    ) -> HttpResponse | None:
        """The page that asks for confirmation; None if the user has confirmed."""
        if request.POST.get("confirmed") == "yes":
            return None
        tasks = _selected(request, queryset)
        others = max(0, len(tasks) - MAX_LISTED)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Are you sure?"),
            "opts": self.model._meta,
            "explanation": _EXPLANATIONS[action],
            "tasks": tasks[:MAX_LISTED],
            "others": and_more(others) if others else "",
            # Django asks for a checkbox, and filters by them without `select_across`.
            "hidden": {
                ACTION_CHECKBOX_NAME: tasks[0].pk if tasks else "",
                "select_across": 1,
                "action": action,
                "confirmed": "yes",
                IDS_FIELD: ",".join(str(task.pk) for task in tasks),
            },
            "media": self.media,
        }
        return TemplateResponse(request, "admin/zndraw_joblib/confirm.html", context)

    def _tell(self, request: HttpRequest, text: str, number: int, **values: object) -> None:
        level = messages.SUCCESS if number else messages.WARNING
        self.message_user(request, text % {"n": number, **values}, level)

    def _tell_unchanged(self, request: HttpRequest, number: int) -> None:
        if number:
            text = ngettext(
                "%(n)d task was not in a state that allows it.",
                "%(n)d tasks were not in a state that allows it.",
                number,
            )
            self.message_user(request, text % {"n": number}, messages.WARNING)


def retry_each(
    request: HttpRequest, caller: Caller, tasks: Iterable[Task], refusals: Counter[str]
) -> int:
    """Retry tasks, with entries of the admin's history, and count the reasons of refusals.

    Returns the number of new tasks.
    """
    made = 0
    for task in tasks:
        try:
            new = retry(caller, task.pk)
        except ProblemException as error:
            # The texts are the title and the detail.
            refusals[error.texts()[0][1]] += 1
        except APIException as error:  # Of the site's hooks.
            refusals[str(error.detail)] += 1
        else:
            made += 1
            log_changes(request, [task], f"retry: new task {new.id}")
    return made


def tell_refusals(model_admin: ReadOnlyAdmin, request: HttpRequest, refusals: Counter[str]) -> None:
    """Show why tasks were not retried, and how many."""
    for reason, number in refusals.items():
        text = ngettext(
            "%(n)d task was not: %(reason)s", "%(n)d tasks were not: %(reason)s", number
        )
        model_admin.message_user(request, text % {"n": number, "reason": reason}, messages.WARNING)


def _selected(request: HttpRequest, queryset: QuerySet[Any]) -> list[Task]:
    """The selected tasks, at most `MAX_COUNTED`; after a confirmation only those that it named."""
    if listed := request.POST.get(IDS_FIELD):
        ids = []
        for task_id in listed.split(","):
            with suppress(ValueError):
                ids.append(UUID(task_id))
        queryset = queryset.filter(pk__in=ids)
    return list(queryset.select_related("job")[:MAX_COUNTED])
