"""The base class of this app's views."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, NoReturn, TypeVar

from django.db.models import QuerySet
from django.utils.cache import patch_vary_headers
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject
from rest_framework.exceptions import NotAuthenticated
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import AllowAny, IsAuthenticated, IsAuthenticatedOrReadOnly
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle, SimpleRateThrottle
from rest_framework.views import APIView

from zndraw_joblib.access import Caller
from zndraw_joblib.api.autoschema import JobLibSchema, operation_of
from zndraw_joblib.api.bodies import Body
from zndraw_joblib.api.caller import ApiCaller
from zndraw_joblib.api.parsing import check_query, discard_body, invalid, read_body
from zndraw_joblib.api.paths import mount_path
from zndraw_joblib.api.problems import problem_exception_handler
from zndraw_joblib.api.rendering import FastJSONRenderer
from zndraw_joblib.api.task_bodies import LogBody, ReportBody
from zndraw_joblib.exceptions import FieldError, NotFound, ValidationError
from zndraw_joblib.models import Task
from zndraw_joblib.names import nfc
from zndraw_joblib.settings import get_settings
from zndraw_joblib.text import Message
from zndraw_joblib.translation import in_answer_language

#: Permissions that say no more than `IsAuthenticated`, which each view has.
_IMPLIED = (AllowAny, IsAuthenticated, IsAuthenticatedOrReadOnly)

#: The fields of all endpoints whose text may have any character.
_FREE_TEXT = ReportBody.free_text | LogBody.free_text

BodyType = TypeVar("BodyType", bound=Body)


class AlwaysJSON(BaseContentNegotiation):
    """Ignores `Accept`, because every answer is JSON (RFC 9110, section 12.4.1, allows that)."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """The view's first parser."""
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        """The view's first renderer."""
        return renderers[0], renderers[0].media_type


class JobLibView(APIView):
    """Answers authenticated callers in JSON, with problem documents for errors."""

    permission_classes: Sequence[Any] = (IsAuthenticated,)
    parser_classes = (JSONParser,)
    renderer_classes = (FastJSONRenderer,)
    content_negotiation_class = AlwaysJSON
    http_method_names = ("get", "head", "post", "put", "patch", "delete")
    schema = JobLibSchema()
    #: None, because a host's versions are those of its own API; this one has `v1` in its paths.
    versioning_class = None
    #: The path of the view's route below the host's prefix, as in `urls.py`.
    route: str = ""
    #: The method whose body the view reads as it arrives, because it may be large.
    streamed_method: str | None = None
    #: Scopes of DRF's `ScopedRateThrottle` by action.
    throttle_scopes: ClassVar[Mapping[str | None, str]] = {}
    #: Actions that only throttles of this app's scopes limit, because a worker whose heartbeats or
    #: reports are refused loses healthy tasks.
    unthrottled: ClassVar[Collection[str]] = ()

    @property
    def throttle_scope(self) -> str | None:
        """The scope of this request; None if the host set no rate for it."""
        scope = self.throttle_scopes.get(getattr(self, "action", None), "joblib_read")
        return scope if scope in (SimpleRateThrottle.THROTTLE_RATES or {}) else None

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Keep DRF from parsing the body.

        DRF would parse it for the CSRF check of a session, without a limit of size or depth, and
        again at each run of a view that waits. `data` is parsed at its first use, because a host's
        permission or throttle may read it, and with free text, because some endpoints accept it.
        """
        made: Any = super().initialize_request(request, *args, **kwargs)
        made._data = {}
        made._full_data = SimpleLazyObject(partial(read_body, request, _FREE_TEXT))
        made._files = MultiValueDict()
        return made  # type: ignore[no-any-return]

    @cached_property
    def caller(self) -> Caller:
        """The caller of this request."""
        return ApiCaller(self.request)

    @cached_property
    def mount(self) -> str:
        """The path at which the host includes this app's URLs, as this request has it."""
        return mount_path(self.request._request.path_info, self.route)

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer the request; the methods get only the variables of this app's own route.

        The host's prefix may have more (``t/<slug:tenant>/``). Room ids and names of jobs are
        brought into Unicode's form NFC.
        """
        own = {name: value for name, value in kwargs.items() if f":{name}>" in self.route}
        own |= {name: nfc(own[name]) for name in own.keys() & {"room_id", "full_name"}}
        self._captured = args, {**kwargs, **own}
        with in_answer_language():
            return super().dispatch(request, **own)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Run DRF's checks with all variables of the path, then refuse unknown query parameters."""
        self.args, self.kwargs = self._captured
        super().initial(request, *self.args, **self.kwargs)
        operation = operation_of(self, request.method)
        if operation is not None:
            check_query(request._request, operation.query_names, operation.repeatable_names)

    def get_permissions(self) -> Any:
        """The view's permissions and then the host's, each of which may refuse."""
        if not self.permission_classes:
            return []
        defaults: Any = api_settings.DEFAULT_PERMISSION_CLASSES
        return [*super().get_permissions(), *(cls() for cls in defaults if cls not in _IMPLIED)]

    def get_queryset(self) -> QuerySet[Any]:
        """No rows of the model whose permissions a host's `DjangoModelPermissions` asks for."""
        none: QuerySet[Any] = Task.objects.none()
        return none

    def permission_denied(
        self, request: Request, message: str | None = None, code: str | None = None
    ) -> NoReturn:
        """Refuse, with 401 for an anonymous caller also where the host has no authenticators."""
        if not (request.user and request.user.is_authenticated):
            raise NotAuthenticated
        super().permission_denied(request, message, code)

    def body(self, model: type[BodyType]) -> BodyType:
        """The validated body of the request, a JSON object."""
        return model.read(read_body(self.request._request, model.free_text))

    def bodies(
        self, model: type[BodyType], value: Any
    ) -> tuple[dict[int, BodyType], dict[int, tuple[FieldError, ...]]]:
        """The valid entries of a JSON array by index, and the errors of the others by index."""
        limit = get_settings().max_batch_size
        if not isinstance(value, list):
            raise invalid(Message("The body must be a JSON array of objects."))
        if not 1 <= len(value) <= limit:
            raise invalid(
                Message(
                    "The array must have 1 to {limit} entries, not {number}.",
                    limit=limit,
                    number=len(value),
                )
            )
        valid: dict[int, BodyType] = {}
        errors: dict[int, tuple[FieldError, ...]] = {}
        for index, entry in enumerate(value):
            try:
                valid[index] = model.read(entry, index)
            except ValidationError as error:
                errors[index] = error.errors
        return valid, errors

    def get_throttles(self) -> list[Any]:
        """The host's throttles; for an `unthrottled` action those of this app's scopes."""
        throttles: list[Any] = super().get_throttles()
        if getattr(self, "action", None) not in self.unthrottled:
            return throttles
        return [throttle for throttle in throttles if _has_scope(throttle)]

    def check_throttles(self, request: Request) -> None:
        """Count a request only once, although its view runs again after a wait."""
        if not getattr(request._request, "joblib_is_rerun", False):
            super().check_throttles(request)

    def get_exception_handler(self) -> Any:
        """The handler of problem documents, whatever handler the host uses for its own views."""
        return problem_exception_handler

    def get_authenticate_header(self, request: Request) -> str:
        """The host's challenge, or one for sessions, because RFC 9110 requires one in a 401."""
        return super().get_authenticate_header(request) or 'Session realm="api"'

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add `Vary` and `Cache-Control`, and discard the part of the body that was not read.

        The answer is the caller's own and changes at any time. Without the header Django's cache
        middleware, or a proxy, would give it to other callers, and for minutes.
        """
        discard_body(getattr(request, "_request", request))
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        patch_vary_headers(response, ["Prefer"])
        return response


def _has_scope(throttle: Any) -> bool:
    """Whether a throttle counts by a scope of this app, unlike DRF's `UserRateThrottle`."""
    scope = getattr(throttle, "scope", None) or ""
    return isinstance(throttle, ScopedRateThrottle) or str(scope).startswith("joblib_")


class UnknownURL(JobLibView):
    """Answers 404 to every other URL under the prefix."""

    authentication_classes = ()
    permission_classes = ()
    schema = None  # type: ignore[assignment]

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer 404 to every method."""
        self.route += kwargs["rest"]
        request = self.initialize_request(request, *args, **kwargs)
        self.request, self.args, self.kwargs, self.headers = request, args, kwargs, {}
        response = self.handle_exception(NotFound())
        return self.finalize_response(request, response, *args, **kwargs)
