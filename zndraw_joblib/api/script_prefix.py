"""The paths of requests as clients see them, below the site's script prefix."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import get_script_prefix
from django.utils.encoding import escape_uri_path
from django.utils.http import escape_leading_slashes


def client_path(path_info: str) -> str:
    """The percent-encoded path at which a client finds a path of the site's URLs.

    The prefix is the one that `reverse` uses. `HttpRequest.path` may lack it: under ASGI it is the
    path that the server received, without a prefix that a proxy took off.
    """
    return escape_leading_slashes(
        escape_uri_path(get_script_prefix() + path_info.removeprefix("/"))
    )


def request_path(request: HttpRequest) -> str:
    """The path of a request, as `client_path` gives it."""
    return client_path(request.path_info)
