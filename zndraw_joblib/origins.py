"""The pages that may open WebSockets, by the `Origin` header that a browser sends.

A browser opens a WebSocket of another site without asking for permission, and may send the session
cookie with it. So the server compares the origin of the page with those that the host trusts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, urlsplit

from channels.security.websocket import OriginValidator
from django.conf import settings

from zndraw_joblib.settings import get_settings


class Trust(Enum):
    """The credentials that a page may use on a WebSocket."""

    #: The connection is refused.
    NONE = 0
    #: Only credentials that the page itself sends, such as a token.
    WITHOUT_COOKIES = 1
    #: Those, and the cookies that the browser adds.
    FULL = 2


def page_trust(origin: str | None, path: str) -> Trust:
    """The trust in the page of this `Origin` header, for a WebSocket at this path.

    A client without the header is no browser, so nobody else's cookies can be in its request.
    """
    if origin is None:
        return Trust.FULL
    if origin == "null":
        return _null_trust(path)
    try:
        page = urlsplit(origin)
        if not page.hostname or page.port == 0:
            return Trust.NONE
    except ValueError:  # The port or an IPv6 address is malformed.
        return Trust.NONE
    own = get_settings().websocket_origins
    hosts: list[str] = settings.ALLOWED_HOSTS or (
        [".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else []
    )
    if _matches(page, [*hosts, *(entry for entry in own if entry != "*")]):
        return Trust.FULL
    return Trust.WITHOUT_COOKIES if "*" in own else _cors_trust(origin, page, path)


def _cors_trust(origin: str, page: SplitResult, path: str) -> Trust:
    """The trust that django-cors-headers grants the page over HTTP.

    Cookies of a page that is admitted only because all are do not count, even with
    `CORS_ALLOW_CREDENTIALS`, because any page could then act for its visitors.
    """
    if not _cors_covers(path):
        return Trust.NONE
    # Without entries such as "*" or "null", which `OriginValidator` would take for host names.
    listed = [entry for entry in _cors_listed() if "://" in entry]
    if _matches(page, listed) or _matches_pattern(origin):
        return Trust.FULL if _cors("ALLOW_CREDENTIALS") else Trust.WITHOUT_COOKIES
    if _cors("ALLOW_ALL_ORIGINS", "ALLOW_ALL"):
        return Trust.WITHOUT_COOKIES
    return Trust.NONE


def _null_trust(path: str) -> Trust:
    """The trust in a page with the origin ``null``: a sandboxed frame or a file.

    Its cookies never count, because a sandboxed frame of any site has this origin.
    """
    cors = _cors_covers(path) and (
        "null" in _cors_listed()
        or _matches_pattern("null")
        or _cors("ALLOW_ALL_ORIGINS", "ALLOW_ALL")
    )
    return Trust.WITHOUT_COOKIES if cors or "*" in get_settings().websocket_origins else Trust.NONE


def _cors_covers(path: str) -> bool:
    """Whether the settings of django-cors-headers are for this path."""
    urls = _cors("URLS_REGEX") or r"^.*$"
    # A host's pattern may name the path of the task over HTTP, which has no "/ws".
    return any(re.match(urls, each) for each in (path, path.replace("/ws/v1/", "/v1/", 1)))


def _cors_listed() -> Sequence[str]:
    return _cors("ALLOWED_ORIGINS", "WHITELIST") or ()


def _matches_pattern(origin: str) -> bool:
    patterns = _cors("ALLOWED_ORIGIN_REGEXES", "REGEX_WHITELIST") or ()
    return any(re.match(pattern, origin) for pattern in patterns)


def _matches(page: SplitResult, allowed: list[str]) -> bool:
    return bool(OriginValidator(None, allowed).valid_origin(page))


def _cors(name: str, old_name: str | None = None) -> Any:
    """A setting of django-cors-headers, which also reads those with their names before 3.5."""
    names = [f"CORS_{name}"] + ([f"CORS_ORIGIN_{old_name}"] if old_name else [])
    return next((getattr(settings, each) for each in names if hasattr(settings, each)), None)
