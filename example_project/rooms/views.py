"""The pages of the site: the first one, and a room with its latest tasks."""

from __future__ import annotations

import json

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from zndraw_joblib import Task
from zndraw_joblib.access import Caller
from zndraw_joblib.names import room_error

DEMO_ROOM = "demo"
#: Tasks of a room's page.
LATEST = 20


def first_page(request: HttpRequest) -> HttpResponse:
    """The first page: the backends in use, and links."""
    running = {
        "Database": connection.vendor,
        "Channel layer": settings.CHANNEL_LAYERS["default"]["BACKEND"].rpartition(".")[2],
        "Cache": settings.CACHES["default"]["BACKEND"].rpartition(".")[2],
    }
    return render(request, "first_page.html", {"running": running, "demo_room": DEMO_ROOM})


@login_required
def room_page(request: HttpRequest, room_id: str) -> HttpResponse:
    """A room's latest tasks, with their results and files."""
    if error := room_error(room_id):
        raise Http404(f"The room id {error}.")
    if not Caller(request).may("read", room_id):
        raise Http404("There is no such room.")
    latest = Task.objects.filter(room_id=room_id).select_related("job").prefetch_related("files")
    tasks = [
        {"task": task, "result": json.dumps(task.result, ensure_ascii=False)}
        for task in latest[:LATEST]
    ]
    return render(request, "room.html", {"room_id": room_id, "tasks": tasks})
