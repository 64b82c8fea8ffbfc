"""Rules and refusals of a site, for the tests of its settings and exceptions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from rest_framework import exceptions as drf
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.throttling import BaseThrottle


class NoCredits(drf.APIException):
    status_code = 402
    default_detail = "Your group has no credits left."
    default_code = "no_credits"


class Locked(drf.APIException):
    status_code = 423
    default_detail = "The room is locked."
    default_code = "room_locked"


class Away(drf.APIException):
    status_code = 503
    default_detail = "The policy server is away."
    wait = 6.2


class OutOfQuota(drf.APIException):
    status_code = 429
    default_detail = "Your group has used its hours."


class Late(Locked):
    wait = Decimal("1.5")


class InvalidToken(drf.AuthenticationFailed):
    """As of djangorestframework-simplejwt, whose detail is a dictionary."""

    def __init__(self) -> None:
        super().__init__(
            {
                "detail": drf.ErrorDetail("Token is expired", "token_not_valid"),
                "code": "token_not_valid",
                "messages": [{"token_class": "AccessToken", "message": "Token is expired"}],
            }
        )


class NotJSON(drf.APIException):
    status_code = 409

    def __init__(self) -> None:
        detail: Any = {"detail": "No.", "object": object(), "nan": float("nan"), "left": 3}
        self.detail = detail


class Bare(drf.APIException):
    status_code: Any = "423"
    default_detail = "Locked for today."

    def __init__(self) -> None:
        """Without the constructor of DRF's class, which would set `detail`."""


class Fields(drf.ValidationError):
    status_code = 422


class Legal(drf.PermissionDenied):
    status_code = 451


class Redirect(drf.APIException):
    status_code = 302


#: The exception to raise; status, type, text, and further members and headers of the answer.
REFUSALS: dict[str, tuple[Exception, int, str, str, dict[str, Any], dict[str, str]]] = {
    "402": (
        NoCredits(),
        402,
        "about:blank",
        "Your group has no credits left.",
        {"code": "no_credits", "title": "Payment Required"},
        {},
    ),
    "423": (
        Locked("Until noon."),
        423,
        "about:blank",
        "Until noon.",
        {"code": "room_locked", "title": "Locked"},
        {},
    ),
    "451": (
        Legal("Not in your country."),
        451,
        "about:blank",
        "Not in your country.",
        {"title": "Unavailable For Legal Reasons"},
        {},
    ),
    "503": (
        Away(),
        503,
        "about:blank",
        "The policy server is away.",
        {"title": "Service Unavailable"},
        {"Retry-After": "7"},
    ),
    "500": (
        drf.APIException("Broken."),
        500,
        "about:blank",
        "Broken.",
        {"title": "Internal Server Error"},
        {},
    ),
    "401": (
        drf.AuthenticationFailed("Wrong key."),
        401,
        "not-authenticated",
        "Wrong key.",
        {},
        {"WWW-Authenticate": "Token"},
    ),
    "401 of simplejwt": (
        InvalidToken(),
        401,
        "not-authenticated",
        "Token is expired",
        {
            "code": "token_not_valid",
            "messages": [{"token_class": "AccessToken", "message": "Token is expired"}],
        },
        {"WWW-Authenticate": "Token"},
    ),
    "403": (
        drf.PermissionDenied("No seat.", "seat"),
        403,
        "forbidden",
        "No seat.",
        {"code": "seat"},
        {},
    ),
    "404": (drf.NotFound("No such lab."), 404, "not-found", "No such lab.", {}, {}),
    "415": (
        drf.UnsupportedMediaType("a/b"),
        415,
        "unsupported-media-type",
        'Unsupported media type "a/b" in request.',
        {},
        {},
    ),
    "429": (
        drf.Throttled(4.2, "Slowly."),
        429,
        "throttled",
        "Slowly. Expected available in 5 seconds.",
        {},
        {"Retry-After": "5"},
    ),
    "429 without a time": (
        drf.Throttled(),
        429,
        "throttled",
        "Request was throttled.",
        {},
        {"Retry-After": "1"},
    ),
    "429 that is no Throttled": (
        OutOfQuota(),
        429,
        "about:blank",
        "Your group has used its hours.",
        {"title": "Too Many Requests"},
        {"Retry-After": "1"},
    ),
    "a time of another type": (
        Late(),
        423,
        "about:blank",
        "The room is locked.",
        {},
        {"Retry-After": "2"},
    ),
    "400 with fields": (
        drf.ValidationError({"credits": ["Too few."], "non_field_errors": ["No."]}),
        400,
        "validation-error",
        "/credits: Too few.; body: No.",
        {
            "errors": [
                {"detail": "Too few.", "pointer": "/credits"},
                {"detail": "No.", "pointer": ""},
            ]
        },
        {},
    ),
    "422 with fields": (
        Fields({"credits": ["Too few."]}),
        422,
        "about:blank",
        "/credits: Too few.",
        {"errors": [{"detail": "Too few.", "pointer": "/credits"}]},
        {},
    ),
    "a list": (
        Locked(["By Ada.", "Until noon."]),
        423,
        "about:blank",
        "By Ada.; Until noon.",
        {},
        {},
    ),
    "a dictionary without detail": (
        Locked({"by": "Ada", "rooms": ["a", "b"], "status": "x"}),
        423,
        "about:blank",
        "by: Ada; rooms: a; rooms: b; status: x",
        {"by": "Ada", "rooms": ["a", "b"]},
        {},
    ),
    "members that are not JSON": (NotJSON(), 409, "about:blank", "No.", {"left": 3}, {}),
    "a class without detail": (Bare(), 423, "about:blank", "Locked for today.", {}, {}),
    "a lone surrogate": (Locked("\ud800!"), 423, "about:blank", "?!", {}, {}),
    "empty": (Locked(""), 423, "about:blank", "Locked", {}, {}),
    "Http404": (Http404("No Room matches."), 404, "not-found", "No Room matches.", {}, {}),
    "PermissionDenied": (PermissionDenied("Not you."), 403, "forbidden", "Not you.", {}, {}),
    "PermissionDenied without text": (
        PermissionDenied(),
        403,
        "forbidden",
        "You may not do this.",
        {},
        {},
    ),
    "SuspiciousOperation": (SuspiciousOperation("Odd."), 400, "validation-error", "Odd.", {}, {}),
}

#: The exception that the site raises, if any.
raised: list[Exception] = []


def refuse() -> None:
    """Raise the exception that a test has chosen."""
    if raised:
        raise raised[0]


def identity(request: Any) -> str:
    refuse()
    return str(request.user.pk)


def is_admin(request: Any) -> bool:
    refuse()
    return False


def room_access(request: Any, room_id: str, action: str) -> bool:
    refuse()
    return True


def locked_room(request: Any, room_id: str, action: str) -> bool:
    """Refuse one room."""
    if room_id == "locked":
        refuse()
    return True


def of_tenant(request: Any, room_id: str, action: str) -> bool:
    """Decide by a variable of the site's prefix."""
    return bool(request.resolver_match.kwargs["tenant"] == "acme")


class Permission(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        refuse()
        return True


class Authentication(BaseAuthentication):
    def authenticate(self, request: Any) -> None:
        refuse()

    def authenticate_header(self, request: Any) -> str:
        return "Token"


class Throttle(BaseThrottle):
    def allow_request(self, request: Any, view: Any) -> bool:
        refuse()
        return True
