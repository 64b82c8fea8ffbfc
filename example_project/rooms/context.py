"""Variables of all templates."""

from __future__ import annotations

from django.http import HttpRequest

from example_project.rooms.views import may_start_workers
from zndraw_joblib.access import Caller


def demo(request: HttpRequest) -> dict[str, object]:
    """`offers_workers()`: whether the page offers a command that starts a worker.

    A function, because only the page of a room asks for it.
    """
    return {
        "offers_workers": lambda: (
            request.user.is_authenticated and may_start_workers(Caller(request))
        )
    }
