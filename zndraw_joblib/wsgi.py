"""The job server's API under WSGI, past the host's middleware."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from django.core.handlers.wsgi import WSGIRequest, get_path_info

from zndraw_joblib import lane
from zndraw_joblib.exceptions import ProblemException

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class ApiLane:
    """A WSGI application around the host's; which requests take the lane, `lane` says.

    Wrap Django's in `wsgi.py`: ``application = ApiLane(get_wsgi_application())``.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        lane.load()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer, or pass on."""
        if not lane.concerns(environ.get("PATH_INFO", "")):
            return self._application(environ, start_response)
        response: Any
        try:
            # Of a copy: a request decodes the path where it stands, and the host does so too.
            entered = lane.enter(partial(WSGIRequest, environ.copy()))
        except ProblemException as problem:
            response = lane.refusal(problem, get_path_info(environ))
        else:
            if entered is None or "HTTP_AUTHORIZATION" not in environ:
                return self._application(environ, start_response)
            request, match = entered
            response = lane.answer(match.func, request, *match.args, **match.kwargs)
        start_response(f"{response.status_code} {response.reason_phrase}", lane.headers(response))
        return [response.content]
