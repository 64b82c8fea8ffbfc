"""A parser that reads bodies of the site's own endpoints as strictly as the job server does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from rest_framework.exceptions import APIException, ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser

from zndraw_joblib import exceptions
from zndraw_joblib.api.parsing import discard_body, read_body


class ContentTooLarge(APIException):
    """The body is larger than this server accepts."""

    status_code = 413
    default_code = "content_too_large"


class StrictJSONParser(BaseParser):
    """JSON of limited size and depth; errors have DRF's own form.

    Not derived from `JSONParser`, because DRF would then read the whole body before the limit.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Read the body of Django's request, and not of `stream`, which DRF has wrapped.

        Raises
        ------
        rest_framework.exceptions.APIException
            400, 413 or 415, with the reason as its detail.
        """
        assert parser_context is not None
        request = parser_context["request"]._request
        try:
            return read_body(request)
        except exceptions.ProblemException as problem:
            discard_body(request)
            refuse(problem, media_type or "")


def refuse(problem: exceptions.ProblemException, media_type: str) -> NoReturn:
    """Raise DRF's exception for a body that was refused."""
    match problem:
        case exceptions.ContentTooLarge():
            raise ContentTooLarge(problem.detail) from problem
        case exceptions.UnsupportedMediaType():
            raise UnsupportedMediaType(media_type) from problem
        case _:
            raise ParseError(problem.detail) from problem
