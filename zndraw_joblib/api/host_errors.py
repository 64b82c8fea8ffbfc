"""Problems for the exceptions of Django and DRF, which hooks, permissions and others may raise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404
from django.utils.functional import Promise
from rest_framework import exceptions as drf
from rest_framework.settings import api_settings
from rest_framework.utils.encoders import JSONEncoder

from zndraw_joblib import exceptions
from zndraw_joblib.api.parsing import invalid_fields
from zndraw_joblib.api.phrases import status_title
from zndraw_joblib.exceptions import FieldError, ProblemException, json_pointer
from zndraw_joblib.text import InActiveLanguage

#: The problem types of DRF's exceptions. A subclass with another status has none.
_TYPES: tuple[tuple[type[drf.APIException], type[ProblemException]], ...] = (
    (drf.ParseError, exceptions.ValidationError),
    (drf.NotAuthenticated, exceptions.NotAuthenticated),
    (drf.AuthenticationFailed, exceptions.NotAuthenticated),
    (drf.PermissionDenied, exceptions.Forbidden),
    (drf.NotFound, exceptions.NotFound),
    (drf.MethodNotAllowed, exceptions.MethodNotAllowed),
    (drf.UnsupportedMediaType, exceptions.UnsupportedMediaType),
    (drf.Throttled, exceptions.Throttled),
)
#: Codes that say no more than the status.
_GENERAL_CODES = {
    error.default_code
    for error in vars(drf).values()
    if isinstance(error, type) and issubclass(error, drf.APIException)
}


#: The members that each problem document has by itself.
_MEMBERS = {"type", "title", "status", "detail", "instance", "errors"}


class HostProblem(ProblemException):
    """An exception of the host that is none of this app's problem types.

    Its `type` is ``about:blank`` and its title the phrase of the status (RFC 9457, section 4.2.1).
    """

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        self.status = status
        self.title = status_title(status)
        super().__init__(detail or self.title, **more)


@contextmanager
def raised_as_problems() -> Iterator[None]:
    """Raise the exceptions of Django and DRF as a `ProblemException`, and others as they are."""
    try:
        yield
    except Exception as error:
        problem = as_problem(error)
        if problem is None or problem is error:
            raise
        raise problem from error


def as_problem(error: Exception) -> ProblemException | None:
    """The problem for an exception of this app, Django or DRF; None for an unexpected one."""
    match error:
        case ProblemException():
            return error
        case drf.APIException():
            return _of_drf(error)
        case Http404():
            return exceptions.NotFound(_argument(error))
        case PermissionDenied():
            return exceptions.Forbidden(_argument(error))
        case RequestDataTooBig():
            return exceptions.ContentTooLarge()
        case SuspiciousOperation() | BadRequest():
            # For instance too many query parameters, or a Host that is not allowed.
            return exceptions.ValidationError(_text(error)[:300])
    return None


def _of_drf(error: drf.APIException) -> ProblemException | None:
    try:
        status = int(error.status_code)
    except (TypeError, ValueError):
        return None
    if not 400 <= status <= 599:
        return None  # No error by HTTP, so the exception is a mistake of the host.
    headers = _headers(error)
    # The host's class may not have called the constructor of DRF's.
    raised = getattr(error, "detail", error.default_detail)
    if isinstance(error, drf.ValidationError):
        invalid = invalid_fields(_field_errors(raised))
        if status == invalid.status:
            return invalid
        return HostProblem(status, invalid.detail, errors=invalid.errors, headers=headers)
    detail, members = _parts(raised)
    for kind, problem in _TYPES:
        if isinstance(error, kind) and status == problem.status:
            return problem(detail, headers=headers, members=members)
    return HostProblem(status, detail, headers=headers, members=members)


def _headers(error: drf.APIException) -> dict[str, str]:
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = str(challenge)
    # None if a throttle cannot compute it.
    wait = getattr(error, "wait", None)
    if isinstance(wait, int | float | Decimal) and math.isfinite(wait):
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    elif int(error.status_code) == exceptions.Throttled.status:
        headers["Retry-After"] = "1"
    return headers


def _parts(detail: Any) -> tuple[str, dict[str, Any]]:
    """The text of an exception's detail, and its other members.

    simplejwt raises ``{"detail": "Token is expired", "code": ..., "messages": [...]}``.
    """
    members = {}
    if isinstance(detail, dict):
        members = {_text(name): _json(value) for name, value in detail.items()}
        members = {
            name: value
            for name, value in members.items()
            if value is not None and name not in _MEMBERS
        }
        if not isinstance(detail.get("detail"), str | Promise):
            return InActiveLanguage("; ".join(_texts(detail))), members
        detail = detail["detail"]
    if isinstance(detail, list | tuple):
        return InActiveLanguage("; ".join(_texts(detail))), members
    code = getattr(detail, "code", None)
    if isinstance(code, str) and code not in _GENERAL_CODES:
        members.setdefault("code", code)
    return InActiveLanguage(_text(detail)), members


def _texts(detail: Any) -> Iterator[str]:
    """The texts within a detail, each with its keys."""
    if isinstance(detail, dict):
        for name, value in detail.items():
            yield from (f"{_text(name)}: {text}" for text in _texts(value))
    elif isinstance(detail, list | tuple):
        for value in detail:
            yield from _texts(value)
    else:
        yield _text(detail)


def _json(value: Any) -> Any:
    """The value as plain JSON, as DRF renders it; None for a value that is no JSON."""
    try:
        text = json.dumps(value, cls=JSONEncoder, ensure_ascii=False, allow_nan=False)
        return json.loads(_text(text))
    except (TypeError, ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    """The value as text that UTF-8 can encode."""
    return str(value).encode("utf-8", "replace").decode()


def _argument(error: Exception) -> str | None:
    """The text that Django's exception was raised with."""
    if len(error.args) == 1 and isinstance(error.args[0], str | Promise):
        return InActiveLanguage(_text(error.args[0]))
    return None


def _field_errors(detail: Any, path: tuple[str | int, ...] = ()) -> Iterator[FieldError]:
    """The errors in the detail of DRF's `ValidationError`, with JSON pointers."""
    if isinstance(detail, dict):
        # The key that DRF uses for errors of the whole object.
        whole = api_settings.NON_FIELD_ERRORS_KEY
        for key, value in detail.items():
            yield from _field_errors(value, path if key == whole else (*path, key))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            nested = isinstance(value, dict | list)
            yield from _field_errors(value, (*path, index) if nested else path)
    else:
        yield FieldError(InActiveLanguage(_text(detail)), json_pointer(path))
