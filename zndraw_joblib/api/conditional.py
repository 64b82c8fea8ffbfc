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


def may_change(request: HttpRequest, tag: str | None) -> bool:
    """Whether `If-Match` and `If-None-Match` let a request change the resource with this tag.

    `tag` is None where there is no such resource yet.
    """
    return get_conditional_response(request, tag) is None
