"""``path("jobs/", include("zndraw_joblib.pages.urls"))`` in the host's urls."""

from __future__ import annotations

from django.urls import path

from zndraw_joblib.pages.views import RoomPage

app_name = "zndraw_joblib_pages"

urlpatterns = [
    path("rooms/<str:room_id>/", RoomPage.as_view(), name="room"),
]
