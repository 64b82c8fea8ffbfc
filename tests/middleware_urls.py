"""The URLconf that `tests.middleware.moved` sets in place of ROOT_URLCONF."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def size(request: Any) -> HttpResponse:
    return HttpResponse(f"other {len(request.body)}")


urlpatterns = [path("v1/me", size)]
