"""The example site under ASGI, counting the claims that each process tries in its database.

A claim is one statement, which `TaskManager.grant` executes: that verb is wrapped. A claimer that
waits tries one claim each time that it was woken, in the coroutine that it hands to
`WorkWaits.wait`, which is wrapped too. Nothing else of the project is changed.
``GET /bench/claims`` answers both counts of the process that is asked: ``{"claims", "woken"}``.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from example_project.asgi import application as site
from zndraw_joblib.events.work import WorkWaits
from zndraw_joblib.storage.tasks import TaskManager


class Counter:
    """Counts from many threads."""

    def __init__(self) -> None:
        # `next` is atomic.
        self._steps, self._reads = count(), count()

    def step(self) -> None:
        """One more."""
        next(self._steps)

    def value(self) -> int:
        """How many by now; called from one thread."""
        # Reading a `count` takes a step; how often it was read is taken off.
        return next(self._steps) - next(self._reads)


_claims, _woken = Counter(), Counter()
_claim, _wait_for_work = TaskManager.grant, WorkWaits.wait


def _counted(*args: Any, **kwargs: Any) -> Any:
    _claims.step()
    return _claim(*args, **kwargs)


async def _wait(self: WorkWaits, jobs: Any, deadline: float, attempt: Any) -> bool:
    async def woken() -> Any:
        _woken.step()
        return await attempt()

    return await _wait_for_work(self, jobs, deadline, woken)


TaskManager.grant = _counted
WorkWaits.wait = _wait  # type: ignore[method-assign]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer the counts, or let the site answer."""
    if scope["type"] == "http" and scope["path"] == "/bench/claims":
        body = json.dumps({"claims": _claims.value(), "woken": _woken.value()}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await site(scope, receive, send)
