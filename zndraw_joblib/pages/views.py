"""The pages of a room."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import Http404
from django.views.generic import TemplateView

from zndraw_joblib.access import Caller
from zndraw_joblib.names import nfc, room_error


class RoomPage(LoginRequiredMixin, TemplateView):
    """A room's jobs with their forms, and its tasks."""

    template_name = "zndraw_joblib/pages/room.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The room, for a caller who may read it."""
        room_id = nfc(self.kwargs["room_id"])
        if room_error(room_id) or not Caller(self.request).may("read", room_id):
            raise Http404
        return super().get_context_data(room_id=room_id, **kwargs)
