"""Finds the API in the site's URLs, for a page that the site includes anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from posixpath import commonpath
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, URLResolver, get_resolver, reverse

from zndraw_joblib.api.workers import WorkerViewSet

#: The name of a route of the API without values of its own, `/v1/joblib/workers`.
_NAME = "workers"


def find_api_path(request: HttpRequest, values: Mapping[str, Any]) -> str:
    """The path at which the site includes the API, with a slash at its end: ``/v1/joblib/``.

    `values` are those in the address of the page, for an API with a prefix such as
    ``t/<slug:tenant>/``. Of several APIs the one that shares the longest prefix with the page.

    Raises
    ------
    NoReverseMatch
        The prefix of the API has values that the address of the page does not have, or unnamed
        groups.
    """
    found = []
    # A middleware may have chosen another URLconf for this request.
    resolver = get_resolver(getattr(request, "urlconf", None))
    for name, parameters in _names(resolver, (), frozenset()):
        with suppress(NoReverseMatch):
            kwargs = {parameter: values[parameter] for parameter in parameters & values.keys()}
            found.append(reverse(name, kwargs=kwargs, urlconf=getattr(request, "urlconf", None)))
    if not found:
        raise NoReverseMatch(
            "The room page cannot find the API in the site's URLs. "
            'Give its path: RoomPage.as_view(api_path="/v1/joblib/").'
        )
    nearest = max(found, key=lambda path: len(commonpath([path, request.path])))
    return nearest.removesuffix(_NAME)


def _names(
    resolver: URLResolver, namespaces: tuple[str, ...], parameters: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    """The names of the API's routes for `reverse`, each with the names of values in its prefix."""
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            inner = (*namespaces, entry.namespace) if entry.namespace else namespaces
            yield from _names(entry, inner, parameters | set(entry.pattern.regex.groupindex))
        elif entry.name == _NAME and getattr(entry.callback, "cls", None) is WorkerViewSet:
            # Known by the view, because a site may give the app another name or none.
            yield ":".join([*namespaces, _NAME]), parameters
