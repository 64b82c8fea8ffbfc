"""Classes and functions that the admins of jobs, workers and tasks share."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.core.paginator import Paginator
from django.db.models import Model
from django.http import HttpRequest
from django.utils.functional import cached_property

#: Most rows that the paginator counts; rows beyond are found by filters.
MAX_COUNTED = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts up to `MAX_COUNTED` rows, because counting a large table is slow."""

    @cached_property
    def count(self) -> int:
        """The number of rows, at most `MAX_COUNTED`."""
        rows: Any = self.object_list
        return len(rows.order_by().values_list("pk")[:MAX_COUNTED])


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin without forms, because edits by hand would bypass the state machine of tasks."""

    paginator = CappedPaginator
    show_full_result_count = False
    # Off, because facets count the whole table once for each value.
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    actions: Any = None

    class Media:
        css: ClassVar = {"all": ["zndraw_joblib/admin.css"]}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False, because jobs, workers and tasks are made through the API."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False, so that Django shows fields as text."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False, because the history of tasks must be kept."""
        return False


def log_change(request: HttpRequest, obj: Model, message: str) -> None:
    """Record a change by the request's user in the admin's history."""
    LogEntry.objects.create(
        user_id=str(request.user.pk),
        content_type=get_content_type_for_model(obj),
        object_id=str(obj.pk),
        object_repr=str(obj)[:200],
        action_flag=CHANGE,
        change_message=message,
    )
