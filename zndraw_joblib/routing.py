"""Addresses of the WebSocket consumers, for a host's ``URLRouter``."""

from __future__ import annotations

from typing import Any

from django.urls import path

from zndraw_joblib.consumers import RoomConsumer, TaskConsumer

websocket_urlpatterns: list[Any] = [
    path("ws/v1/joblib/tasks/<str:task_id>/", TaskConsumer.as_asgi()),
    path("ws/v1/joblib/rooms/<str:room_id>/", RoomConsumer.as_asgi()),
]
