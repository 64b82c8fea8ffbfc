"""The caller of a request or WebSocket, whose hooks may refuse by exceptions of Django and DRF."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import SESSION_KEY, get_user
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView

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


def caller_again(request: HttpRequest, view: APIView) -> Caller | None:
    """The caller of a connection that lasts, by the host's authenticators, as of this moment.

    None if the caller is not authenticated. Session and user are read again, because the request's
    are as old as the connection; `request` has the user that it had before any authenticator ran.

    Raises
    ------
    ProblemException
        The host's authenticator refuses, or one of the view's permissions.
    """
    session: Any = getattr(request, "session", None)
    if session is not None and session.get(SESSION_KEY) == _user_key(request.user):
        request.session = session.__class__(session.session_key)
        request.user = get_user(request)
    classes: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES
    wrapped = Request(request, authenticators=[cls() for cls in classes])
    with raised_as_problems():
        if not (wrapped.user and wrapped.user.is_authenticated):
            return None
        view.request = wrapped
        view.check_permissions(wrapped)
    return ApiCaller(wrapped)


def _user_key(user: Any) -> str:
    """The user's key as a session has it; ``None`` as text for a host's own object without one."""
    return str(getattr(user, "pk", None))
