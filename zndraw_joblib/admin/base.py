"""Classes and functions that the admins of jobs, workers and tasks share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters, get_content_type_for_model
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Model
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from zndraw_joblib.access import identity_labels
from zndraw_joblib.admin.saved_filters import SavedFilters

#: Most rows that the paginator counts; rows beyond are found by filters.
MAX_COUNTED = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """A paginator that counts up to `MAX_COUNTED` rows, because counting a large table is slow."""

    @cached_property
    def count(self) -> int:
        """The number of rows, at most `MAX_COUNTED`."""
        rows: Any = self.object_list
        return len(rows.order_by().values_list("pk")[:MAX_COUNTED])


class LabelledChangeList(ChangeList):
    """A list whose rows know the names of their identities, read together for the page."""

    def get_results(self, request: HttpRequest) -> None:
        """As Django's, with the names."""
        super().get_results(request)
        self.model_admin.add_labels(self.result_list)  # type: ignore[attr-defined]


class ReadOnlyAdmin(SavedFilters):
    """An admin without forms, because edits by hand would bypass the state machine of tasks."""

    paginator = CappedPaginator
    show_full_result_count = False
    # Off, because facets count the whole table once for each value.
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    actions: Any = None
    #: Names of the fields that contain identities.
    identity_fields: ClassVar[tuple[str, ...]] = ()

    class Media:
        css: ClassVar = {"all": ["zndraw_joblib/admin.css"]}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False, because jobs, workers and tasks are made through the API."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False, so that Django shows fields as text."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """False, because rows that refer to each other are deleted by services alone."""
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The class of the list."""
        return LabelledChangeList

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """The list; a parameter that no list has leads to the one without parameters."""
        if any("\0" in value for _name, values in request.GET.lists() for value in values):
            # PostgreSQL refuses texts with NUL, and Django answers such an error with 500.
            raise IncorrectLookupParameters
        return super().get_changelist_instance(request)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """The row of a page, with the names of its identities."""
        # PostgreSQL refuses texts with NUL, and Django answers such an error with 500.
        row = None if "\0" in object_id else super().get_object(request, object_id, from_field)
        self.add_labels([] if row is None else [row])
        return row

    def add_labels(self, rows: Iterable[Any]) -> None:
        """Give rows the names of their identities, for `person`."""
        if self.identity_fields:
            labels = identity_labels(
                getattr(row, field) or "" for row in rows for field in self.identity_fields
            )
            for row in rows:
                row.identity_labels = labels


def person(identity: str | None, labels: dict[str, str]) -> str:
    """An identity for people to read: its name, if it has one, and itself."""
    if not identity:
        return "-"
    label = labels.get(identity, identity)
    return identity if label == identity else f"{label} ({identity})"


def person_name(identity: str | None, labels: dict[str, str]) -> SafeString | str:
    """The name of an identity, with the identity as its title; for narrow columns."""
    if not identity:
        return "-"
    return format_html('<span title="{}">{}</span>', identity, labels.get(identity, identity))


def log_changes(request: HttpRequest, objs: Iterable[Model], message: str) -> None:
    """Record that the request's user changed these rows, in the admin's history."""
    log_actions(request, objs, CHANGE, message)


def log_deletions(request: HttpRequest, objs: Iterable[Model]) -> None:
    """Record that the request's user deleted these rows, in the admin's history."""
    log_actions(request, objs, DELETION, "")


def log_actions(request: HttpRequest, objs: Iterable[Model], flag: int, message: str) -> None:
    """Record an action of the request's user on each of these rows."""
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=str(request.user.pk),
            content_type=get_content_type_for_model(obj),
            object_id=str(obj.pk),
            object_repr=str(obj)[:200],
            action_flag=flag,
            change_message=message,
        )
        for obj in objs
    )
