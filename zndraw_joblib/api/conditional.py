"""Conditional requests (RFC 9110, section 13.1.2)."""

from __future__ import annotations

from django.utils.http import parse_etags


def known_tags(header: str | None, present: str) -> frozenset[str]:
    """The entity tags in an `If-None-Match` header, each as a weak one.

    `*` means the `present` one. Comparison is weak, so that a tag matches with or without `W/`.
    """
    tags = parse_etags(header or "")
    if tags == ["*"]:
        return frozenset({present})
    return frozenset(tag if tag.startswith("W/") else f"W/{tag}" for tag in tags)
