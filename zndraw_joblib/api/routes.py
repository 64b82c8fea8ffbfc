"""The routes of this app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db import connections, transaction
from django.urls import URLPattern
from django.urls.resolvers import RegexPattern, ResolverMatch, RoutePattern

from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.waiting import waiting_view

View = Callable[..., Any]


class Route(URLPattern):
    """Resolves to a view without a transaction around it, whatever `ATOMIC_REQUESTS` says.

    A service commits by itself, because a transaction of the whole request would keep the row locks
    of a claim until the answer is sent, and would be open during a wait. `actions` has the view's
    method by the request's; a view that is no viewset has none.
    """

    def __init__(self, route: str, view: type[JobLibView], name: str, **actions: str) -> None:
        # The first argument of a viewset.
        methods = [actions] if actions else []
        as_view: Any = view.as_view
        marked = transaction.non_atomic_requests(as_view(*methods, route=route))
        super().__init__(self._pattern(route, name), self._sync_view(marked), name=name)

    def resolve(self, path: str) -> ResolverMatch | None:
        """As `URLPattern` does."""
        match = super().resolve(path)
        if match is not None:
            match.func = self._view(match.func)
            # By name, because the mark without an alias is for the default database, and at each
            # request, because a host may add databases while it runs.
            for alias in connections:
                transaction.non_atomic_requests(using=alias)(match.func)
        return match

    def _pattern(self, route: str, name: str) -> Any:
        return RoutePattern(route, name=name, is_endpoint=True)

    def _sync_view(self, view: View) -> View:
        return view

    def _view(self, view: View) -> View:
        return view


class WaitingRoute(Route):
    """Resolves to a coroutine under Django's ASGI handler, and to a sync view elsewhere.

    Not to a coroutine under WSGI, because Django would make an event loop for each request. `waits`
    is the one method whose requests may wait.
    """

    def __init__(
        self, route: str, view: type[JobLibView], name: str, *, waits: str, **actions: str
    ) -> None:
        self._waits = waits
        super().__init__(route, view, name, **actions)

    def _sync_view(self, view: View) -> View:
        """The view for WSGI, and for `ApiLane`, whose requests with a wait have a `joblib_run`."""
        self._waiting_view = waiting_view(view, self._waits)

        @wraps(view)
        def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
            run = getattr(request, "joblib_run", None)
            if run and request.method == self._waits:
                return run(view, request, *args, **kwargs)
            return view(request, *args, **kwargs)

        return wrapper

    def _view(self, view: View) -> View:
        # A running event loop shows that Django's ASGI handler resolves the path.
        return self._waiting_view if _in_event_loop() else view


class CatchAll(Route):
    """Matches the route and every path below it, in the variable `rest`."""

    def _pattern(self, route: str, name: str) -> Any:
        # `[\s\S]`, because a dot does not match a newline.
        regex = rf"^{route}(?P<rest>(?:/[\s\S]*)?)\Z"
        return RegexPattern(regex, name=name, is_endpoint=True)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
