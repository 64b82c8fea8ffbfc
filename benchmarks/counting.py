"""The example site under ASGI, with counters of the claim statements that a process executes.

`TaskManager.grant` executes one claim statement, so a wrapper around it counts the claims. A
waiting claim executes one statement each time that it is woken, in the coroutine that it passes to
`WorkWaits.wait`, so a wrapper around that method counts the woken claims. Nothing else is changed.
``GET /bench/claims`` returns both counts of the process that answers: ``{"claims", "woken"}``.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from example_project.asgi import application as site
from zndraw_joblib.events.work import WorkWaits
from zndraw_joblib.storage.tasks import TaskManager


class Counter:
    """A counter that many threads may increase at once."""

    def __init__(self) -> None:
        # `next` on an `itertools.count` is atomic, so no lock is needed.
        self._steps, self._reads = count(), count()

    def step(self) -> None:
        """Count one event."""
        next(self._steps)

    def value(self) -> int:
        """The number of events so far; must be called from one thread only."""
        # Reading a `count` advances it, so the number of reads is subtracted.
        return next(self._steps) - next(self._reads)


_claims, _woken = Counter(), Counter()
_grant, _wait_for_work = TaskManager.grant, WorkWaits.wait


def _counted_grant(*args: Any, **kwargs: Any) -> Any:
    _claims.step()
    return _grant(*args, **kwargs)


async def _counted_wait(self: WorkWaits, jobs: Any, deadline: float, attempt: Any) -> bool:
    async def counted_attempt() -> Any:
        _woken.step()
        return await attempt()

    return await _wait_for_work(self, jobs, deadline, counted_attempt)


TaskManager.grant = _counted_grant
WorkWaits.wait = _counted_wait  # type: ignore[method-assign]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer ``/bench/claims`` with the counts, and pass every other request to the site."""
    if scope["type"] == "http" and scope["path"] == "/bench/claims":
        body = json.dumps({"claims": _claims.value(), "woken": _woken.value()}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await site(scope, receive, send)
