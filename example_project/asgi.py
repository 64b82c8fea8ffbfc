"""``uvicorn example_project.asgi:application``."""

from __future__ import annotations

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
# Loads the apps, so the modules that need models are imported after it.
http = get_asgi_application()

from zndraw_joblib.consumers import UnknownConsumer  # noqa: E402
from zndraw_joblib.contrib.asgi import ApiLane  # noqa: E402
from zndraw_joblib.routing import websocket_urlpatterns  # noqa: E402

# With a last route for every address, because the router answers HTTP 500 without a route.
sockets = URLRouter([*websocket_urlpatterns, re_path("", UnknownConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": ApiLane(http), "websocket": AuthMiddlewareStack(sockets)})
