"""The route of an endpoint whose requests may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from django.urls import URLPattern
from django.urls.resolvers import ResolverMatch, RoutePattern

from zndraw_joblib.api.waiting import waits


class WaitingRoute(URLPattern):
    """Resolves to a coroutine under ASGI, where waits are honoured, and else to the plain view.

    Under WSGI Django would run a coroutine too, on an event loop made for each request.
    """

    def __init__(self, route: str, view: Callable[..., Any], name: str) -> None:
        super().__init__(RoutePattern(route, name=name, is_endpoint=True), view, name=name)
        self._waits = waits(view)

    def resolve(self, path: str) -> ResolverMatch | None:
        """As `URLPattern` does; Django's ASGI handler calls it on the event loop."""
        match = super().resolve(path)
        if match is not None and _in_event_loop():
            match.func = self._waits
        return match


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
