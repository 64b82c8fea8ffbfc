"""What the lanes past the host's middleware have in common, see `asgi` and `wsgi`.

Requests on a lane are those for this app's routes that carry an `Authorization` header. They see
the host's authenticators, throttles and hooks, and none of its middleware. Those without the
header, such as a browser's with a session, go the host's way. What Django would refuse, or fail at,
before any view sees it is refused here with a problem, whether the header is there or not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import connections
from django.http import HttpResponse
from django.urls import (
    Resolver404,
    ResolverMatch,
    get_resolver,
    get_urlconf,
    resolve,
    set_script_prefix,
)
from django.utils.encoding import escape_uri_path

from zndraw_joblib.api.documents import json_text
from zndraw_joblib.api.problems import MEDIA_TYPE, type_url
from zndraw_joblib.exceptions import ProblemException, UnsupportedMediaType, ValidationError

R = TypeVar("R")

#: The path of each of the app's routes contains one of these, wherever the host includes them.
MARKS = ("/v1/joblib", "/v1/me", "/v1/problems/")
APP_NAME = "zndraw_joblib"


def load() -> None:
    """Import the views now, by one thread, and not by several at the first requests."""
    get_resolver().url_patterns  # noqa: B018


def concerns(path: str) -> bool:
    """Whether a path may be of one of this app's routes: nobody else's requests are looked at."""
    return any(mark in path for mark in MARKS)


def enter(make: Callable[[], R]) -> tuple[R, ResolverMatch] | None:
    """A request for one of this app's routes, and the route; None for one that is not.

    Raises
    ------
    zndraw_joblib.exceptions.ProblemException
        Django cannot read its headers, or it is for a host that is not allowed.
    """
    try:
        request: Any = make()
    except (ValueError, LookupError) as error:
        # Of all headers Django reads the parameters of this one, and fails at an odd charset.
        raise UnsupportedMediaType("The Content-Type is malformed.") from error
    try:
        match = _match(request.path_info, get_urlconf() or settings.ROOT_URLCONF)
    except Resolver404:
        return None
    if APP_NAME not in match.app_names:
        return None
    try:
        request.get_host()
    except DisallowedHost as error:
        # As Django does.
        logging.getLogger("django.security.DisallowedHost").error("%s", error)
        raise ValidationError("This site does not answer for that Host.") from error
    request.resolver_match = match
    return request, match


def refusal(problem: ProblemException, path: str) -> HttpResponse:
    """The answer to a request that no view sees."""
    body = json_text(problem.document(type_url(type(problem)), escape_uri_path(path)))
    return HttpResponse(
        body, status=problem.status, content_type=MEDIA_TYPE, headers={"Vary": "Prefer"}
    )


@lru_cache(maxsize=1024)
def _match(path: str, urlconf: Any) -> ResolverMatch:
    return resolve(path, urlconf)


def answer(view: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a view in a thread that stays, and render its response there."""
    # Where the site lies, for the addresses in answers; each thread keeps that for itself.
    set_script_prefix(request.META.get("SCRIPT_NAME") or "/")
    for connection in connections.all(initialized_only=True):
        # As Django does when a request begins: what broke or grew old is made anew.
        connection.close_if_unusable_or_obsolete()
    try:
        response = view(request, *args, **kwargs)
        return response.render() if hasattr(response, "render") else response
    finally:
        for connection in connections.all(initialized_only=True):
            if getattr(connection, "pool", None):
                connection.close()
            else:
                # The threads of the lane stay, and so may their connections.
                connection.close_at = None


def headers(response: Any) -> list[tuple[str, str]]:
    """The headers of an answer with what middleware would have added."""
    # An answer without content says nothing of its length (RFC 9110, section 8.6).
    length = [] if response.status_code == 204 else [("Content-Length", str(len(response.content)))]
    return [
        *response.items(),
        *length,
        ("X-Content-Type-Options", "nosniff"),
        *(("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()),
    ]
