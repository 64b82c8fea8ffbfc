"""Answers every error of this app's views with an RFC 9457 problem document."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine, Template
from django.utils.cache import patch_vary_headers
from rest_framework.response import Response

from zndraw_joblib import exceptions
from zndraw_joblib.api.documents import json_text
from zndraw_joblib.api.host_errors import HostProblem, as_problem
from zndraw_joblib.api.paths import log_fields, problem_type_path, request_path
from zndraw_joblib.exceptions import PROBLEM_TYPES, ProblemException
from zndraw_joblib.storage.outages import Outage, outage_of
from zndraw_joblib.text import Message
from zndraw_joblib.translation import translated

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


def type_url(problem: type[ProblemException], mount: str) -> str:
    """The path of the problem type's description; ``about:blank`` if the type is none of ours."""
    if issubclass(problem, HostProblem):
        return "about:blank"
    return problem_type_path(mount, problem.slug())


def problem_response(problem: ProblemException, request: HttpRequest, mount: str) -> Response:
    """The problem as an answer to this request."""
    return Response(
        problem.document(type_url(type(problem), mount), request_path(request)),
        status=problem.status,
        headers={"Content-Language": problem.texts()[1], **problem.headers},
        content_type=MEDIA_TYPE,
    )


def problem_exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """A DRF exception handler that answers every exception with a problem document.

    An unexpected exception is logged, sent as `got_request_exception` and answered 500, or 503 if
    the database is away or not migrated.
    """
    view, request = context["view"], context["request"]
    problem = as_problem(exc)
    if problem is None:
        problem = _problem_of_failure(exc)
        logger.error(
            "%s %s failed: %s",
            request.method,
            request.path,
            problem,
            exc_info=exc,
            extra=log_fields(getattr(view, "kwargs", {})),
        )
        got_request_exception.send(type(view), request=request._request)
    if problem.status == 401:
        # A hook's exception has none, and RFC 9110 requires one.
        problem.headers.setdefault("WWW-Authenticate", view.get_authenticate_header(request))
    return problem_response(problem, request, view.mount)


def _problem_of_failure(exc: Exception) -> ProblemException:
    match outage_of(exc):
        case Outage.BUSY | Outage.AWAY:
            return exceptions.ServiceUnavailable(headers={"Retry-After": "1"})
        case Outage.UNMIGRATED:
            # Without Retry-After, because this does not pass by itself.
            return exceptions.DatabaseNotMigrated()
        case None:
            return exceptions.ServerError()


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


def explain(request: HttpRequest, slug: str, mount: str) -> HttpResponse:
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
        "type": type_url(problem, mount),
        "title": title,
        "status": problem.status,
        "description": description,
    }
    response: HttpResponse
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        page = _page().render(Context({"problem": about, "language": language}))
        # Not in a host's `DEFAULT_CHARSET`, which may lack characters of the page.
        response = HttpResponse(page.encode(), content_type="text/html; charset=utf-8")
    else:
        response = HttpResponse(json_text(about), content_type="application/json")
    response.headers["Content-Language"] = language
    patch_vary_headers(response, ["Accept"])
    return response
