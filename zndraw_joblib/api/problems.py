"""Answers every error of this app's views with an RFC 9457 problem document."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.signals import got_request_exception
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template import Context, Engine, Template
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.encoding import escape_uri_path
from rest_framework import exceptions as drf
from rest_framework.response import Response
from rest_framework.views import set_rollback

from zndraw_joblib import exceptions
from zndraw_joblib.api.parsing import invalid_fields
from zndraw_joblib.exceptions import PROBLEM_TYPES, FieldError, ProblemException, json_pointer
from zndraw_joblib.text import InActiveLanguage, Message
from zndraw_joblib.translation import translated

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: SQLSTATEs of connections that PostgreSQL ended, because they were idle or their transaction took
#: too long. psycopg raises them as `InternalError`.
_ENDED_CONNECTIONS = {"25P03", "25P04", "57P05"}


def type_url(problem: type[ProblemException]) -> str:
    """The path of the problem type's description."""
    return reverse("zndraw_joblib:problem", args=[problem.slug()])


def problem_response(problem: ProblemException, request: HttpRequest) -> Response:
    """The problem as an answer to this request."""
    return Response(
        problem.document(type_url(type(problem)), escape_uri_path(request.path)),
        status=problem.status,
        headers={"Content-Language": problem.texts()[1], **problem.headers},
        content_type=MEDIA_TYPE,
    )


def problem_exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """A DRF exception handler that answers every exception with a problem document.

    An unexpected exception is logged, sent as `got_request_exception` and answered 500, or 503 if
    the database was unavailable.
    """
    set_rollback()
    request = context["request"]
    problem = as_problem(exc)
    if problem is None:
        logger.error("%s %s failed", request.method, request.path, exc_info=exc)
        got_request_exception.send(type(context["view"]), request=request._request)
        if _is_database_unavailable(exc):
            problem = exceptions.ServiceUnavailable(headers={"Retry-After": "1"})
        else:
            problem = exceptions.ServerError()
    return problem_response(problem, request)


def _is_database_unavailable(exc: Exception) -> bool:
    """Whether the database did not answer, so that the same request may succeed later."""
    if isinstance(exc, InternalError):
        return getattr(exc.__cause__, "sqlstate", None) in _ENDED_CONNECTIONS
    return isinstance(exc, OperationalError | InterfaceError)


def as_problem(exc: Exception) -> ProblemException | None:
    """The problem for an exception of Django or DRF; None for an unexpected exception."""
    match exc:
        case ProblemException():
            return exc
        case drf.ValidationError():
            return invalid_fields(_field_errors(exc.detail))
        case drf.ParseError():
            return exceptions.ValidationError(InActiveLanguage(exc.detail))
        case drf.NotAuthenticated() | drf.AuthenticationFailed():
            challenge = getattr(exc, "auth_header", None)
            return exceptions.NotAuthenticated(
                InActiveLanguage(exc.detail),
                headers={"WWW-Authenticate": challenge} if challenge else None,
            )
        case drf.PermissionDenied():
            return exceptions.Forbidden(InActiveLanguage(exc.detail))
        case PermissionDenied():
            return exceptions.Forbidden()
        case drf.NotFound() | Http404():
            return exceptions.NotFound()
        case drf.MethodNotAllowed():
            return exceptions.MethodNotAllowed(InActiveLanguage(exc.detail))
        case drf.UnsupportedMediaType():
            return exceptions.UnsupportedMediaType(InActiveLanguage(exc.detail))
        case drf.Throttled():
            # `wait` is None if the throttle cannot compute it.
            wait = max(1, math.ceil(getattr(exc, "wait", None) or 0))
            return exceptions.Throttled(
                InActiveLanguage(exc.detail), headers={"Retry-After": str(wait)}
            )
        case RequestDataTooBig():
            return exceptions.ContentTooLarge()
        case SuspiciousOperation() | BadRequest():
            # For instance too many query parameters, or a Host that is not allowed.
            return exceptions.ValidationError(str(exc)[:300])
    return None


def _field_errors(detail: Any, path: tuple[str | int, ...] = ()) -> Iterator[FieldError]:
    """The errors in the detail of DRF's `ValidationError`, with JSON pointers."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            # Without the key that DRF uses for errors of the whole object.
            yield from _field_errors(value, path if key == "non_field_errors" else (*path, key))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            nested = isinstance(value, dict | list)
            yield from _field_errors(value, (*path, index) if nested else path)
    else:
        yield FieldError(InActiveLanguage(detail), json_pointer(path))


@lru_cache(maxsize=1)
def _page() -> Template:
    """The page of a problem type.

    With an engine of its own, because a host may have no `TEMPLATES`, or only Jinja's.
    """
    engine = Engine(
        dirs=[str(Path(__file__).parents[1] / "templates")],
        libraries={"i18n": "django.templatetags.i18n"},
    )
    return engine.get_template("zndraw_joblib/problem.html")


def explain(request: HttpRequest, slug: str) -> HttpResponse:
    """Describes a problem type, in HTML for a browser and as JSON otherwise.

    Raises
    ------
    zndraw_joblib.exceptions.NotFound
        The slug is unknown.
    """
    problem = PROBLEM_TYPES.get(slug)
    if problem is None:
        raise exceptions.NotFound(
            Message("There is no problem type {slug}.", slug=repr(slug[:100]))
        )
    (title, description), language = translated(
        [Message(problem.title), Message(problem.description())]
    )
    about = {
        "type": type_url(problem),
        "title": title,
        "status": problem.status,
        "description": description,
    }
    response: HttpResponse
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        response = HttpResponse(_page().render(Context({"problem": about, "language": language})))
    else:
        response = JsonResponse(about)
    response.headers["Content-Language"] = language
    patch_vary_headers(response, ["Accept"])
    return response
