"""The route of an endpoint whose requests may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import transaction
from django.urls import URLPattern
from django.urls.resolvers import ResolverMatch, RoutePattern

from zndraw_joblib.api.waiting import waiting_view


class WaitingRoute(URLPattern):
    """Resolves to a coroutine under Django's ASGI handler, and to a sync view elsewhere.

    Not to a coroutine under WSGI, because Django would make an event loop for each request.
    """

    def __init__(self, route: str, view: Callable[..., Any], name: str) -> None:
        pattern = RoutePattern(route, name=name, is_endpoint=True)
        super().__init__(pattern, _sync_view(view), name=name)
        self._waiting_view = waiting_view(view)

    def resolve(self, path: str) -> ResolverMatch | None:
        """As `URLPattern` does. A running event loop shows that Django's ASGI handler calls it."""
        match = super().resolve(path)
        if match is not None and _in_event_loop():
            match.func = self._waiting_view
        return match


def _sync_view(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view for WSGI, and for `ApiLane`, whose requests that may wait have a `joblib_run`."""

    # Without a transaction, because leaving the middleware to wait would roll it back.
    @transaction.non_atomic_requests
    @wraps(view)
    def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
        if run := getattr(request, "joblib_run", None):
            return run(view, request, *args, **kwargs)
        return view(request, *args, **kwargs)

    return wrapper


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
