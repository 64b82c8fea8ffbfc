"""The base class of this app's views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from django.utils.cache import patch_vary_headers
from django.utils.datastructures import MultiValueDict
from django.utils.translation import override
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from zndraw_joblib.access import Caller
from zndraw_joblib.api.autoschema import JobLibSchema, operation_of
from zndraw_joblib.api.bodies import Body
from zndraw_joblib.api.parsing import check_query, discard_body, invalid, read_body
from zndraw_joblib.api.problems import problem_exception_handler
from zndraw_joblib.api.rendering import FastJSONRenderer
from zndraw_joblib.exceptions import FieldError, NotFound, ValidationError
from zndraw_joblib.names import nfc
from zndraw_joblib.settings import get_settings
from zndraw_joblib.text import Message
from zndraw_joblib.translation import answer_language

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
    #: Scopes of DRF's `ScopedRateThrottle` by action.
    throttle_scopes: ClassVar[Mapping[str | None, str]] = {}

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Bring names in the address into Unicode's form NFC, and choose the language."""
        for name in kwargs.keys() & {"room_id", "full_name"}:
            kwargs[name] = nfc(kwargs[name])
        # Django and DRF translate their own messages into more languages than this app has.
        with override(answer_language()):
            return super().dispatch(request, *args, **kwargs)

    @property
    def throttle_scope(self) -> str | None:
        """The scope of this request; None if the host set no rate for it."""
        scope = self.throttle_scopes.get(getattr(self, "action", None), "joblib_read")
        return scope if scope in SimpleRateThrottle.THROTTLE_RATES else None

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Keep DRF from parsing the body, which `body` reads.

        DRF would parse it for the CSRF check of a session, without a limit of size or depth, and
        again at each run of a view that waits.
        """
        made: Any = super().initialize_request(request, *args, **kwargs)
        made._data = made._full_data = {}
        made._files = MultiValueDict()
        return made  # type: ignore[no-any-return]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse query parameters that the endpoint does not know, after DRF's own checks."""
        super().initial(request, *args, **kwargs)
        operation = operation_of(self, request.method)
        if operation is not None:
            check_query(request._request, operation.query_names)

    @cached_property
    def caller(self) -> Caller:
        """The caller of this request."""
        return Caller(self.request)

    def body(self, model: type[BodyType]) -> BodyType:
        """The validated body of the request, a JSON object."""
        value = read_body(self.request._request)
        return model.read(value)

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
        """Add `Vary: Prefer`, and discard the part of the body that was not read."""
        discard_body(getattr(request, "_request", request))
        response = super().finalize_response(request, response, *args, **kwargs)
        patch_vary_headers(response, ["Prefer"])
        return response


class UnknownURL(JobLibView):
    """Answers 404 to every other URL under the prefix."""

    authentication_classes = ()
    permission_classes = ()
    schema = None  # type: ignore[assignment]

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer 404 to every method."""
        request = self.initialize_request(request, *args, **kwargs)
        self.request, self.args, self.kwargs, self.headers = request, args, kwargs, {}
        response = self.handle_exception(NotFound())
        return self.finalize_response(request, response, *args, **kwargs)
