"""The pages of a room."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import Http404, HttpRequest, HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import render, resolve_url
from django.utils.translation import get_language
from django.views.generic import TemplateView
from rest_framework.exceptions import APIException

from zndraw_joblib.access import Caller, check_room_id
from zndraw_joblib.api.paths import client_path
from zndraw_joblib.exceptions import InvalidRoomId
from zndraw_joblib.models import STATUS_LABELS
from zndraw_joblib.names import nfc
from zndraw_joblib.pages.paths import find_api_path
from zndraw_joblib.pages.task_texts import TASK_TEXTS
from zndraw_joblib.pages.texts import JOB_TEXTS
from zndraw_joblib.settings import get_settings


class RoomPage(LoginRequiredMixin, TemplateView):
    """A room's jobs with their forms, and its tasks.

    A host in whose URLs `find_api_path` does not find the API gives its path:
    ``RoomPage.as_view(api_path="/v1/joblib/")``.
    """

    template_name = "zndraw_joblib/pages/room.html"
    refused_template_name = "zndraw_joblib/pages/refused.html"
    #: The path of the API as a browser requests it, with a slash at its end; None to find it.
    api_path: str | None = None
    #: The path of the WebSockets as a browser requests it, with a slash at its end; None for
    #: ``ws/v1/joblib/`` below the site's prefix.
    socket_path: str | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer with the status and text of the exception if a hook of the host raises one."""
        try:
            return super().dispatch(request, *args, **kwargs)
        except APIException as error:
            return render(
                request,
                self.refused_template_name,
                {"reason": str(error.detail), "room_id": kwargs["room_id"]},
                status=error.status_code,
            )

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The room and the data of the page's modules, for a caller who may read the room."""
        room_id = nfc(self.kwargs["room_id"])
        caller = Caller(self.request)
        try:
            check_room_id(room_id)
        except InvalidRoomId as error:
            raise Http404(error) from None
        if not caller.may("read", room_id):
            raise Http404
        api_path = self.api_path or find_api_path(self.request, self._prefix_values())
        room = quote(room_id, safe="@")
        socket_path = self.socket_path or client_path("ws/v1/joblib/")
        data = {
            "roomId": room_id,
            "apiPath": api_path,
            "roomPath": f"{api_path}rooms/{room}",
            "socketPath": f"{socket_path}rooms/{room}/events/",
            "loginPath": resolve_url(self.get_login_url()),
            "identity": caller.identity,
            "mayAdminister": caller.is_admin,
            "maySubmit": caller.may("submit", room_id),
            "locale": get_language() or settings.LANGUAGE_CODE,
            "maxPageSize": get_settings().max_page_size,
            "csrf": {
                "token": get_token(self.request),
                "cookie": settings.CSRF_COOKIE_NAME,
                "header": settings.CSRF_HEADER_NAME.removeprefix("HTTP_").replace("_", "-"),
            },
        }
        context = super().get_context_data(**kwargs)
        return {
            **context,
            "room_id": room_id,
            "room_data": data,
            "statuses": STATUS_LABELS.items(),
            "job_texts": JOB_TEXTS,
            "task_texts": TASK_TEXTS,
        }

    def _prefix_values(self) -> dict[str, Any]:
        """The values in the prefix at which the host includes this page."""
        return {name: value for name, value in self.kwargs.items() if name != "room_id"}
