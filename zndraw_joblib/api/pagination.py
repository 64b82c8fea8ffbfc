"""Keyset pages of arrays, linked by `Link` headers (RFC 8288).

Tables are never counted and rows never skipped by an offset, because both scan the table.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models
from django.http import QueryDict
from rest_framework.request import Request

from zndraw_joblib.api.parsing import digits_of, has_surrogate, invalid
from zndraw_joblib.api.paths import request_path
from zndraw_joblib.settings import get_settings
from zndraw_joblib.text import Message

R = TypeVar("R")


class Page:
    """The page of rows that ``?limit=`` and ``?cursor=`` request.

    `keys` are the fields that order the rows, unique together. All are descending if the first has
    a minus sign.

    Raises
    ------
    zndraw_joblib.exceptions.ValidationError
        The limit is not an integer within bounds, or the cursor is not from a `Link` header.
    """

    def __init__(self, model: type[models.Model], request: Request, *keys: str) -> None:
        self._request, self._keys = request, keys
        self._names = [key.lstrip("-") for key in keys]
        #: Most rows of the page.
        self.limit = _limit(request.query_params)
        cursor = request.query_params.get("cursor")
        #: The keys of the row before the page; None for the first page.
        self.after = _decode(model, self._names, cursor) if cursor else None

    def of(self, queryset: models.QuerySet[Any, R]) -> list[R]:
        """The rows of the page, and one more row if another page follows."""
        if self.after is not None:
            queryset = queryset.filter(self._follow(self.after))
        return list(queryset.order_by(*self._keys)[: self.limit + 1])

    def link(self, last: Any) -> dict[str, str]:
        """The header `Link` to the page that follows this row."""
        query = self._request.query_params.copy()
        query["cursor"] = _encode([getattr(last, name) for name in self._names])
        target = f"{request_path(self._request)}?{query.urlencode()}"
        return {"Link": f'<{self._request.build_absolute_uri(target)}>; rel="next"'}

    def _follow(self, after: list[Any]) -> models.Q:
        """The condition that a row follows the one with these keys."""
        lookup = "lt" if self._keys[0].startswith("-") else "gt"
        beyond = models.Q()
        for position, name in enumerate(self._names):
            same = dict(zip(self._names[:position], after, strict=False))
            beyond |= models.Q(**same, **{f"{name}__{lookup}": after[position]})
        # `beyond` implies this bound, but the database needs it to begin within the index.
        return models.Q(**{f"{self._names[0]}__{lookup}e": after[0]}) & beyond


def page(
    queryset: models.QuerySet[Any, R], request: Request, *keys: str
) -> tuple[list[R], dict[str, str]]:
    """The rows of the requested page, and the headers of the answer."""
    requested = Page(queryset.model, request, *keys)
    rows = requested.of(queryset)
    if len(rows) <= requested.limit:
        return rows, {}
    return rows[: requested.limit], requested.link(rows[requested.limit - 1])


def _limit(query: QueryDict) -> int:
    settings = get_settings()
    text = query.get("limit")
    if text is None:
        return min(settings.default_page_size, settings.max_page_size)
    # No setting allows a limit of more digits.
    limit = digits_of(text, 6)
    if limit is not None and 1 <= limit <= settings.max_page_size:
        return limit
    raise invalid(
        Message("limit must be an integer from 1 to {limit}.", limit=settings.max_page_size),
        "/limit",
    )


def _encode(values: list[Any]) -> str:
    texts = [value.isoformat() if isinstance(value, datetime) else str(value) for value in values]
    return base64.urlsafe_b64encode(json.dumps(texts).encode()).decode().rstrip("=")


def _decode(model: type[models.Model], names: list[str], cursor: str) -> list[Any]:
    try:
        texts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("a cursor must be a list of strings")
        return [_value(model, name, text) for name, text in zip(names, texts, strict=True)]
    except (ValueError, binascii.Error, OverflowError, RecursionError, ValidationError) as error:
        raise invalid(Message("cursor must be one that a Link header gave."), "/cursor") from error


def _value(model: type[models.Model], name: str, text: str) -> datetime | UUID | str:
    if "\x00" in text or has_surrogate(text):
        raise ValueError("a cursor must not have NUL or lone surrogates")
    field: Any = model._meta.get_field(name)
    value: datetime | UUID | str = field.to_python(text)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a cursor's times must have a time zone")
        # Raises OverflowError at either end of the calendar, before the database's driver does.
        return value.astimezone(UTC)
    return value
