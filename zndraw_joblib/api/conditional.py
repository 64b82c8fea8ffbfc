"""Conditional requests (RFC 9110, section 13)."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.cache import get_conditional_response
from django.utils.http import parse_etags


def known_tags(header: str | None, present: str) -> frozenset[str]:
    """The entity tags in an `If-None-Match` header, each as a weak one.

    `*` means the `present` one. Comparison is weak, so that a tag matches with or without `W/`.
    """
    tags = parse_etags(header or "")
    if tags == ["*"]:
        return frozenset({present})
    return frozenset(tag if tag.startswith("W/") else f"W/{tag}" for tag in tags)


def may_change(request: HttpRequest, tag: str | None, modified: int | None = None) -> bool:
    """Whether the conditions of a request let it change the resource with this tag.

    `tag` is None where there is no such resource yet. `modified` is in seconds since 1970.
    """
    if_match = request.META.get("HTTP_IF_MATCH")
    if tag is None:
        return if_match is None
    if if_match is not None and not parse_etags(if_match):
        # Django ignores a header without a well-formed tag, which protects nothing.
        return False
    return get_conditional_response(request, tag, modified) is None
