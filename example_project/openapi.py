"""A hook for the OpenAPI document of the whole site."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.urls import get_script_prefix


def name_server_below_prefix(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the site's script prefix, if it has one, because drf-spectacular leaves it out."""
    prefix = get_script_prefix().rstrip("/")
    if prefix:
        result["servers"] = [{"url": quote(prefix)}]
    return result
