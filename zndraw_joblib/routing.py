"""Addresses of the WebSocket consumers, for a host's ``URLRouter``.

The last route matches all other addresses under ``ws/v1/joblib``. A host without WebSockets of its
own adds ``re_path("", UnknownConsumer.as_asgi())`` at the end, because `URLRouter` answers an
address without a route with HTTP 500.
"""

from __future__ import annotations

from typing import Any

from django.urls import re_path

from zndraw_joblib.consumers import RoomConsumer, TaskConsumer, UnknownConsumer
from zndraw_joblib.room_consumer import RoomEventsConsumer

websocket_urlpatterns: list[Any] = [
    re_path(r"^ws/v1/joblib/tasks/(?P<task_id>[^/]+)/?$", TaskConsumer.as_asgi()),
    re_path(r"^ws/v1/joblib/rooms/(?P<room_id>[^/]+)/?$", RoomConsumer.as_asgi()),
    re_path(r"^ws/v1/joblib/rooms/(?P<room_id>[^/]+)/events/?$", RoomEventsConsumer.as_asgi()),
    re_path(r"^ws/v1/joblib(?:/|\Z)", UnknownConsumer.as_asgi()),
]
