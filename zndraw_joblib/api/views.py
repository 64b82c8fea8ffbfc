"""The small ones: who the caller is, and what a problem means."""

from __future__ import annotations

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from zndraw_joblib.api import openapi
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.problems import explain


class ProblemTypeView(JobLibView):
    """What a problem's `type` leads to; for everybody."""

    authentication_classes = ()
    permission_classes = ()

    @openapi.problem_types
    def get(self, request: Request, slug: str) -> HttpResponse:
        """Explain a problem type."""
        return explain(request._request, slug)


class MeView(JobLibView):
    """The caller."""

    @openapi.me
    def get(self, request: Request) -> Response:
        """Who the caller is to the job server."""
        return Response({"id": self.caller.identity})
