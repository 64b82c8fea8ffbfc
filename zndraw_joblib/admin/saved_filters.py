"""Filters of a list that a user keeps under a name, as links above the list."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.translation import gettext as _

from zndraw_joblib.models import SavedFilter
from zndraw_joblib.models.saved_filters import MAX_FILTER_NAME_LENGTH, MAX_QUERY_LENGTH

#: Most filters of a user for one list.
MAX_FILTERS = 30
#: Parameters of a list that are no part of a filter: its page, "show all", and an error.
NO_FILTER = {"p", "all", "e"}


class FilterForm(forms.Form):
    """The name of a filter and its query, or the key of a filter to delete."""

    name = forms.CharField(max_length=MAX_FILTER_NAME_LENGTH, required=False)
    query = forms.CharField(required=False, strip=False)
    delete = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1)

    def clean_query(self) -> str:
        """The query as a list writes it, because percent signs make it longer."""
        query = _filter_of(self.cleaned_data["query"])
        MaxLengthValidator(MAX_QUERY_LENGTH)(query)
        return query


class SavedFilters(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin whose list has links to saved filters. Its template is ``change_list.html``."""

    #: Names and queries of filters that every user of the list has.
    common_filters: ClassVar[tuple[tuple[Any, str], ...]] = ()

    def get_urls(self) -> list[URLPattern]:
        """Django's pages, and the address that saves and deletes filters."""
        view = self.admin_site.admin_view(self.change_filters)
        return [path("filters/", view, name=self._page_name("filters")), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's list, with the filters of the user."""
        query = _filter_of(request.GET.urlencode())
        common = [(name, link, link == query) for name, link in self.common_filters]
        own = [(row, row.query == query) for row in self._own(request)]
        context = {
            "common_filters": common,
            "own_filters": own,
            "filter_query": query,
            # Not one that has a name already.
            "can_save_filter": query and not any(here for *_, here in [*common, *own]),
            "filters_url": self._page_url("filters"),
            "max_filter_name": MAX_FILTER_NAME_LENGTH,
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def change_filters(self, request: HttpRequest) -> HttpResponse:
        """Save the list's filter under a name, or delete a filter; then show the list again."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        form = FilterForm(request.POST)
        query = ""
        if not form.is_valid():
            self.message_user(
                request, _("The filter or its name is too long, or not valid."), messages.ERROR
            )
        else:
            query = form.cleaned_data["query"]
            if key := form.cleaned_data["delete"]:
                self._own(request).filter(pk=key).delete()
            else:
                self._save(request, form.cleaned_data["name"], query)
        return HttpResponseRedirect(f"{self._page_url('changelist')}?{query}")

    def _save(self, request: HttpRequest, name: str, query: str) -> None:
        if not name:
            self.message_user(request, _("A filter needs a name."), messages.ERROR)
            return
        if self._own(request).exclude(name=name).count() >= MAX_FILTERS:
            text = _("You have %(n)d filters here, as many as you may.") % {"n": MAX_FILTERS}
            self.message_user(request, text, messages.ERROR)
            return
        SavedFilter.objects.update_or_create(
            owner=str(request.user.pk),
            list_name=self.opts.model_name,
            name=name,
            defaults={"query": query},
        )

    def _own(self, request: HttpRequest) -> Any:
        return SavedFilter.objects.filter(
            owner=str(request.user.pk), list_name=self.opts.model_name
        )

    def _page_name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _page_url(self, page: str, *args: object) -> str:
        name = f"admin:{self._page_name(page)}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def _model_url(self, model: str) -> str | None:
        """The address of the list of a model; None where the site's admin leaves the model out."""
        name = f"admin:{self.opts.app_label}_{model}_changelist"
        try:
            return reverse(name, current_app=self.admin_site.name)
        except NoReverseMatch:
            return None


def _filter_of(query: str) -> str:
    """The part of a list's query that filters, searches and sorts, encoded in one way."""
    pairs = parse_qsl(query)
    return urlencode([(name, value) for name, value in pairs if name not in NO_FILTER])
