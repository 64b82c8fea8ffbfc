"""The views of the caller's identity and of problem types."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.problems import explain


class ProblemTypeView(JobLibView):
    """Describes the types of problems, also for anonymous callers."""

    authentication_classes = ()
    permission_classes = ()

    @openapi.problem_types
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Describe a problem type."""
        return explain(request._request, slug, self.mount)


class MeView(JobLibView):
    """Describes the caller."""

    #: As of a viewset, because a host's permission may read it.
    action = "get"

    @openapi.me
    def get(self, request: Request) -> Response:
        """The caller's identity."""
        return Response({"id": self.caller.identity})
