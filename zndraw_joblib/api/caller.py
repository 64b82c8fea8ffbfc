"""The caller of a request or WebSocket, whose hooks may refuse by exceptions of Django and DRF."""

from __future__ import annotations

from typing import Any

from zndraw_joblib.access import Caller
from zndraw_joblib.api.host_errors import raised_as_problems


class ApiCaller(Caller):
    """A caller whose hooks raise problems, so that a service catches them as its own.

    Only here, because the views of a host that make a `Caller` expect the exceptions themselves.
    """

    def ask(self, hook: str, *args: Any) -> Any:
        """As of `Caller`; an exception of Django or DRF becomes a `ProblemException`."""
        with raised_as_problems():
            return super().ask(hook, *args)
