"""The route of an endpoint whose requests may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import transaction
from django.urls import URLPattern
from django.urls.resolvers import ResolverMatch, RoutePattern

from zndraw_joblib.api.waiting import waits


class WaitingRoute(URLPattern):
    """Leads to a coroutine under Django's ASGI handler, and to a sync view elsewhere.

    Under WSGI Django would run a coroutine too, on an event loop made for each request.
    """

    def __init__(self, route: str, view: Callable[..., Any], name: str) -> None:
        pattern = RoutePattern(route, name=name, is_endpoint=True)
        super().__init__(pattern, _for_threads(view), name=name)
        self._waits = waits(view)

    def resolve(self, path: str) -> ResolverMatch | None:
        """As `URLPattern` does; Django's ASGI handler calls it on the event loop."""
        match = super().resolve(path)
        if match is not None and _in_event_loop():
            match.func = self._waits
        return match


def _for_threads(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view for WSGI, and for `ApiLane`, which sets `joblib_run` on requests that may wait."""

    # As the coroutine is: a claim of nothing must not be rolled back by leaving the middleware.
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
