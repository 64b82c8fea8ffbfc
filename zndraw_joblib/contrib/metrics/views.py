"""The view that Prometheus scrapes."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder

from zndraw_joblib.contrib.metrics.registry import site_registry


# Our own, because `prometheus_client.django` takes a name in `?name[]=` for a list of characters.
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All metrics, or those that ``?name[]=`` lists, in the format that the request accepts.

    The site decides who may read them.
    """
    registry = site_registry()
    names = request.GET.getlist("name[]")
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    content = encode(registry.restricted_registry(names) if names else registry)
    return HttpResponse(content, content_type=content_type)
