"""Answers every error of this app's views with an RFC 9457 problem document."""

from __future__ import annotations

import logging
from typing import Any

from django.core.signals import got_request_exception
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.utils.encoding import escape_uri_path
from rest_framework.response import Response

from zndraw_joblib import exceptions
from zndraw_joblib.api.host_errors import HostProblem, as_problem
from zndraw_joblib.api.paths import problem_type_path
from zndraw_joblib.exceptions import PROBLEM_TYPES, ProblemException

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: SQLSTATEs of connections that PostgreSQL ended, because they were idle or their transaction took
#: too long. psycopg raises them as `InternalError`.
_ENDED_CONNECTIONS = {"25P03", "25P04", "57P05"}


def type_url(problem: type[ProblemException], mount: str) -> str:
    """The path of the problem type's description; ``about:blank`` if the type is none of ours."""
    if issubclass(problem, HostProblem):
        return "about:blank"
    return problem_type_path(mount, problem.slug())


def problem_response(problem: ProblemException, request: HttpRequest, mount: str) -> Response:
    """The problem as an answer to this request."""
    return Response(
        problem.document(type_url(type(problem), mount), escape_uri_path(request.path)),
        status=problem.status,
        headers=problem.headers,
        content_type=MEDIA_TYPE,
    )


def problem_exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """A DRF exception handler that answers every exception with a problem document.

    An unexpected exception is logged, sent as `got_request_exception` and answered 500, or 503 if
    the database was unavailable.
    """
    view, request = context["view"], context["request"]
    problem = as_problem(exc)
    if problem is None:
        logger.error("%s %s failed", request.method, request.path, exc_info=exc)
        got_request_exception.send(type(view), request=request._request)
        if _is_database_unavailable(exc):
            problem = exceptions.ServiceUnavailable(headers={"Retry-After": "1"})
        else:
            problem = exceptions.ServerError()
    if problem.status == 401:
        # A hook's exception has none, and RFC 9110 requires one.
        problem.headers.setdefault("WWW-Authenticate", view.get_authenticate_header(request))
    return problem_response(problem, request, view.mount)


def _is_database_unavailable(exc: Exception) -> bool:
    """Whether the database did not answer, so that the same request may succeed later."""
    if isinstance(exc, InternalError):
        return getattr(exc.__cause__, "sqlstate", None) in _ENDED_CONNECTIONS
    return isinstance(exc, OperationalError | InterfaceError)


def explain(request: HttpRequest, slug: str, mount: str) -> HttpResponse:
    """Describes a problem type, in HTML for a browser and as JSON otherwise.

    Raises
    ------
    zndraw_joblib.exceptions.NotFound
        The slug is unknown.
    """
    problem = PROBLEM_TYPES.get(slug)
    if problem is None:
        raise exceptions.NotFound(f"There is no problem type {slug[:100]!r}.")
    about = {
        "type": type_url(problem, mount),
        "title": problem.title,
        "status": problem.status,
        "description": problem.description(),
    }
    response: HttpResponse
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        response = render(request, "zndraw_joblib/problem.html", {"problem": about})
    else:
        response = JsonResponse(about)
    patch_vary_headers(response, ["Accept"])
    return response
