"""What every view of this app has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from django.utils.cache import patch_vary_headers
from django.utils.datastructures import MultiValueDict
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.serializers import ValidationError as Invalid
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from zndraw_joblib.access import Caller
from zndraw_joblib.api.openapi import JobLibSchema
from zndraw_joblib.api.parsing import invalid, pass_over_body, read_body
from zndraw_joblib.api.problems import problem_exception_handler
from zndraw_joblib.api.rendering import FastJSONRenderer
from zndraw_joblib.api.serializers import Body
from zndraw_joblib.exceptions import NotFound
from zndraw_joblib.settings import get_settings


class AlwaysJSON(BaseContentNegotiation):
    """Answers are JSON, whatever the client says it accepts (RFC 9110, section 12.4.1)."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """The only one."""
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        """The only one."""
        return renderers[0], renderers[0].media_type


class JobLibView(APIView):
    """Problems for errors, JSON alone, authenticated callers alone, `Vary: Prefer`."""

    permission_classes: Sequence[Any] = (IsAuthenticated,)
    parser_classes = (JSONParser,)
    renderer_classes = (FastJSONRenderer,)
    content_negotiation_class = AlwaysJSON
    http_method_names = ("get", "head", "post", "put", "patch", "delete")
    schema = JobLibSchema()
    #: Scopes of DRF's `ScopedRateThrottle` by action.
    throttle_scopes: ClassVar[Mapping[str | None, str]] = {}

    @property
    def throttle_scope(self) -> str | None:
        """The scope of this request; None where the host set no rate for it."""
        scope = self.throttle_scopes.get(getattr(self, "action", None), "joblib_read")
        return scope if scope in SimpleRateThrottle.THROTTLE_RATES else None

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Leave the body to `body`: the CSRF check of a session looks for a form's token in it.

        DRF would parse it for that, unbounded, and again when a view that waited looks again.
        """
        made: Any = super().initialize_request(request, *args, **kwargs)
        made._data = made._full_data = {}
        made._files = MultiValueDict()
        return made  # type: ignore[no-any-return]

    @cached_property
    def caller(self) -> Caller:
        """Who asks."""
        return Caller(self.request)

    def body(self, serializer: type[Body]) -> dict[str, Any]:
        """The request's body, a JSON object, read strictly and validated."""
        value = read_body(self.request._request)
        if not isinstance(value, dict):
            raise invalid("The body must be a JSON object.")
        return serializer.check(value)

    def bodies(
        self, serializer: type[Body], value: Any
    ) -> tuple[dict[int, dict[str, Any]], dict[int, Any]]:
        """The entries of a JSON array by index: those that are valid, and the others' faults."""
        limit = get_settings().max_batch_size
        if not isinstance(value, list):
            raise invalid("The body must be a JSON array of objects.")
        if not 1 <= len(value) <= limit:
            raise invalid(f"The array must have 1 to {limit} entries, not {len(value)}.")
        valid: dict[int, dict[str, Any]] = {}
        faults: dict[int, Any] = {}
        for index, item in enumerate(value):
            try:
                valid[index] = serializer.check(item)
            except Invalid as error:
                faults[index] = error.detail
        return valid, faults

    def check_throttles(self, request: Request) -> None:
        """Count a request that waits once, though the view runs again when it is woken."""
        if not getattr(request._request, "joblib_looks_again", False):
            super().check_throttles(request)

    def get_exception_handler(self) -> Any:
        """Ours, for our views alone."""
        return problem_exception_handler

    def get_authenticate_header(self, request: Request) -> str:
        """The host's challenge; a 401 needs one even where only sessions are accepted."""
        return super().get_authenticate_header(request) or 'Session realm="api"'

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add `Vary: Prefer`, and leave nothing of the body unread."""
        pass_over_body(getattr(request, "_request", request))
        response = super().finalize_response(request, response, *args, **kwargs)
        patch_vary_headers(response, ["Prefer"])
        return response


class UnknownURL(JobLibView):
    """Whatever else lies under the prefix."""

    authentication_classes = ()
    permission_classes = ()
    schema = None  # type: ignore[assignment]

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer 404, whatever the method."""
        request = self.initialize_request(request, *args, **kwargs)
        self.request, self.args, self.kwargs, self.headers = request, args, kwargs, {}
        response = self.handle_exception(NotFound())
        return self.finalize_response(request, response, *args, **kwargs)
