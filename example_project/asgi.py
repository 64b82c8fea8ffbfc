"""``uvicorn example_project.asgi:application``."""

from __future__ import annotations

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
# Loads the apps: what needs models is imported after it.
http = get_asgi_application()

from zndraw_joblib.consumers import UnknownConsumer  # noqa: E402
from zndraw_joblib.contrib.asgi import ApiLane  # noqa: E402
from zndraw_joblib.routing import websocket_urlpatterns  # noqa: E402

# The router has HTTP 500 for an address without a route.
sockets = URLRouter([*websocket_urlpatterns, re_path("", UnknownConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": ApiLane(http), "websocket": AuthMiddlewareStack(sockets)})
