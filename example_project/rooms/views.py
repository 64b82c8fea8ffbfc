"""The first page, and what only ``make demo`` has: a link that signs in, a command for a worker."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.http import urlencode
from django.utils.timesince import timesince
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from rest_framework.authtoken.models import Token

from zndraw_joblib import Task, TaskStatus, Worker
from zndraw_joblib.access import Caller
from zndraw_joblib.names import GLOBAL_ROOM

DEMO_ROOM = "demo"
DEMO_USER = "demo"
#: The job whose form the link of the demo opens.
DEMO_JOB = "@global:modifiers:Rotate"
#: Newest tasks from which the first page takes the rooms and the latest ends.
NEWEST = 200
#: Lines of each list on the first page.
LINES = 8
BUSY = (TaskStatus.CLAIMED, TaskStatus.RUNNING)


@dataclass
class Room:
    """A room with the number of its newest tasks that wait, run and have ended."""

    id: str
    pending: int = 0
    running: int = 0
    ended: int = 0

    def count(self, task: Task) -> None:
        """Count a task of the room."""
        if task.status == TaskStatus.PENDING:
            self.pending += 1
        elif task.status in BUSY:
            self.running += 1
        else:
            self.ended += 1


@never_cache
def first_page(request: HttpRequest) -> HttpResponse:
    """The activity in the rooms that the user may read; an introduction for anybody else."""
    context = {"demo_room": DEMO_ROOM, "is_demo": bool(settings.DEMO_KEY)}
    if request.user.is_authenticated:
        context |= activity(Caller(request))
    return render(request, "first_page.html", context)


def activity(caller: Caller) -> dict[str, object]:
    """Rooms, running tasks, latest ends and workers, in three queries that indexes bound."""
    tasks = Task.objects.select_related("job").defer("payload", "result")
    newest = list(tasks[:NEWEST])
    # By lease, because the index of the leases has only tasks that workers hold.
    held = list(tasks.filter(status__in=BUSY).order_by("lease_expires_at")[:NEWEST])
    readable: dict[str, Room] = {}
    for room_id in dict.fromkeys([DEMO_ROOM, *(task.room_id for task in newest + held)]):
        if caller.may("read", room_id):
            readable[room_id] = Room(room_id)
    for task in newest:
        if task.room_id in readable:
            readable[task.room_id].count(task)
    ended = [task for task in newest if task.completed_at and task.room_id in readable]
    ended.sort(key=lambda task: task.completed_at, reverse=True)
    workers = (
        Worker.objects.all() if caller.is_admin else Worker.objects.filter(identity=caller.identity)
    )
    return {
        "rooms": list(readable.values())[:LINES],
        "running": [task for task in held if task.room_id in readable][:LINES],
        "ended": [{"task": task, "ago": ago(task.completed_at)} for task in ended[:LINES]],
        "workers": [
            {
                "worker": worker,
                # The end of the id, because ids of workers that started together begin alike.
                "short_id": worker.pk if len(worker.pk) <= 20 else f"…{worker.pk[-12:]}",
                "held": sum(task.worker_id == worker.pk for task in held),
                "ago": ago(worker.last_heartbeat),
            }
            for worker in workers.order_by("-last_heartbeat")[:LINES]
        ],
        "may_start_workers": may_start_workers(caller),
    }


def ago(moment: datetime) -> str:
    """How long ago a moment was; Django's `timesince` says "0 minutes" within the first one."""
    if timezone.now() - moment < timedelta(minutes=1):
        return gettext("just now")
    return gettext("%(time)s ago") % {"time": timesince(moment)}


def may_start_workers(caller: Caller) -> bool:
    """Whether the site is a demo, and the caller may register the demo's jobs."""
    return bool(settings.DEMO_KEY) and caller.may("register", GLOBAL_ROOM)


@never_cache
def sign_in_by_link(request: HttpRequest, key: str) -> HttpResponse:
    """Sign in the demo's user by the link that ``make demo`` prints, and open its room."""
    if not settings.DEMO_KEY or not constant_time_compare(key, settings.DEMO_KEY):
        raise Http404("The link is not that of the demo that runs now.")
    login(request, get_user_model().objects.get(username=DEMO_USER))
    room = reverse("zndraw_joblib_pages:room", args=(DEMO_ROOM,))
    return redirect(f"{room}?{urlencode({'job': DEMO_JOB})}")


@never_cache
@require_POST
def worker_command(request: HttpRequest) -> JsonResponse:
    """The shell's command that starts a worker with the token of the user.

    An answer of its own, so that the token is in no page.
    """
    if not request.user.is_authenticated or not may_start_workers(Caller(request)):
        raise Http404("Only the administrator of a demo starts workers.")
    token, _ = Token.objects.get_or_create(user=request.user)
    words = [
        "env",
        f"JOBLIB_URL={request.build_absolute_uri('/').rstrip('/')}",
        f"JOBLIB_TOKEN={token.key}",
        f"PYTHONPATH={settings.BASE_DIR}",
        sys.executable,
        "-m",
        "example_project.demo.worker",
    ]
    return JsonResponse({"command": shlex.join(words)})
