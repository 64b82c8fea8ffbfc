"""The same news over WebSocket: the end of a task, or each end in a room.

A connection authenticates by the host's DRF authenticators: with the session, an `Authorization`
header, or the subprotocols ``["token", "<key>"]`` (``"bearer"`` for that scheme). Close codes:
4401 not authenticated, 4403 not from this site (Origin), 4404 no such task or room for the caller,
or nothing at this address.

Who the caller is and what they may do is looked at again whenever the database is: a session that
was logged out of, or whose user was deactivated or has another password, ends the connection then.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import AnonymousUser
from django.db import router
from django.http import HttpRequest
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.settings import api_settings

from zndraw_joblib.access import Caller
from zndraw_joblib.api.documents import json_text, task_document
from zndraw_joblib.events.hub import REREAD_SECONDS, get_hub
from zndraw_joblib.events.publisher import end_group, room_digest
from zndraw_joblib.models import Task
from zndraw_joblib.names import room_fault
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.tasks import TaskQuerySet

logger = logging.getLogger(__name__)

NOT_AUTHENTICATED, FORBIDDEN, NOT_FOUND = 4401, 4403, 4404
#: Schemes of `Authorization` that a subprotocol may name.
SCHEMES = {"token": "Token", "bearer": "Bearer"}
#: A transaction may commit this much later than the end it wrote.
OVERLAP = timedelta(seconds=10)
#: Seconds of one wait on the hub; then the caller's rights are looked at again.
WATCH_SECONDS = 300.0


class Refused(Exception):
    """The connection ends with this close code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


class NewsConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """Lets the caller in, then follows the database until there is nothing more to say."""

    _following: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Accept first: a close code reaches the client of an accepted connection only."""
        offered = self.scope.get("subprotocols") or []
        await self.accept(offered[0] if offered and offered[0].lower() in SCHEMES else None)
        self._following = asyncio.create_task(self._run())

    async def disconnect(self, code: int) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """As over HTTP."""
        return json_text(content).decode()

    async def receive(self, *args: Any, **kwargs: Any) -> None:
        """Clients have nothing to say; what they send is ignored."""

    async def follow(self) -> None:
        """Send the news; the connection is closed when this returns."""
        raise NotImplementedError

    async def _run(self) -> None:
        try:
            self._check_origin()
            await self.follow()
            await self.close()
        except Refused as refusal:
            await self.close(refusal.code)
        except Exception:
            logger.exception("a WebSocket of %s failed", self.scope["path"][:200])
            await self.close(1011)

    def caller(self) -> Caller:
        """Who is connected, by the host's authenticators; call it from a thread."""
        request = HttpRequest()
        request.method, request.path = "GET", self.scope["path"]
        for name, value in self.scope["headers"]:
            request.META[f"HTTP_{name.decode('latin1').upper().replace('-', '_')}"] = value.decode(
                "latin1"
            )
        offered = self.scope.get("subprotocols") or []
        if len(offered) == 2 and offered[0].lower() in SCHEMES:
            request.META["HTTP_AUTHORIZATION"] = f"{SCHEMES[offered[0].lower()]} {offered[1]}"
        request.user = self.scope.get("user") or AnonymousUser()
        request.session = session = self.scope.get("session")
        if session is not None and session.get(SESSION_KEY) == _key(request.user):
            # Both are as they were when the connection was made.
            request.session = session.__class__(session.session_key)
            request.user = get_user(request)
        classes: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES
        wrapped = Request(request, authenticators=[cls() for cls in classes])
        try:
            if wrapped.user and wrapped.user.is_authenticated:
                return Caller(wrapped)
        except APIException:
            pass
        raise Refused(NOT_AUTHENTICATED)

    def _check_origin(self) -> None:
        """A browser names the page's origin; a session must not be used from elsewhere."""
        origin = dict(self.scope["headers"]).get(b"origin")
        if origin is None:
            return
        allowed = settings.ALLOWED_HOSTS or (
            ["localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else []
        )
        try:
            parsed = urlsplit(origin.decode("latin1"))
            valid = bool(parsed.hostname) and OriginValidator(None, allowed).valid_origin(parsed)
        except ValueError:
            valid = False
        if not valid:
            raise Refused(FORBIDDEN)


class TaskConsumer(NewsConsumer):
    """``ws/v1/joblib/tasks/{id}/``: the task when it ends, at once if it has."""

    async def follow(self) -> None:
        """Wait for the end."""
        read = database_sync_to_async(self._read)
        while not (task := await read())[1]:
            deadline = asyncio.get_running_loop().time() + WATCH_SECONDS
            await get_hub().wait_for_end(task[0]["id"], task[0]["room_id"], deadline)
        await self.send_json(task[0])

    def _read(self) -> tuple[dict[str, Any], bool]:
        caller = self.caller()
        try:
            task_id = UUID(self.scope["url_route"]["kwargs"]["task_id"])
        except ValueError as error:
            raise Refused(NOT_FOUND) from error
        task = Task.objects.read([task_id]).get(task_id)
        if task is None or not caller.sees(task):
            raise Refused(NOT_FOUND)
        return task_document(task), task.is_terminal


class RoomConsumer(NewsConsumer):
    """``ws/v1/joblib/rooms/{room_id}/``: each task of the room that ends from now on.

    News says when to look; without any the room is read every `REREAD_SECONDS`.
    """

    async def follow(self) -> None:
        """Send what ended since the last look, until the client leaves."""
        self._news = asyncio.Event()
        self._seen: dict[UUID, datetime] = {}
        read = database_sync_to_async(self._read)
        joined = await self._join()
        # What ended before the connection is old news.
        await read(first=True)
        while True:
            try:
                async with asyncio.timeout(REREAD_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                joined = joined or await self._join()
            self._news.clear()
            try:
                documents = await read(first=False)
            except Refused:
                raise
            except Exception:
                logger.exception("could not read the ends of a room; trying again")
                continue
            for document in documents:
                await self.send_json(document)

    async def disconnect(self, code: int) -> None:
        """Leave the room's group."""
        await super().disconnect(code)
        try:
            await self.channel_layer.group_discard(self._group, self.channel_name)
        except Exception:
            logger.warning("could not leave %s", self._group, exc_info=True)

    async def task_finished(self, message: dict[str, Any]) -> None:
        """News of the channel layer, of this room or of another one in its group."""
        mine = any(about.startswith(self._digest) for about in message["about"])
        if mine and self._following is not None and hasattr(self, "_news"):
            self._news.set()

    @property
    def _digest(self) -> str:
        return room_digest(self.scope["url_route"]["kwargs"]["room_id"])

    @property
    def _group(self) -> str:
        return end_group(self.scope["url_route"]["kwargs"]["room_id"])

    async def _join(self) -> bool:
        try:
            await self.channel_layer.group_add(self._group, self.channel_name)
        except Exception:
            logger.warning("could not join %s; trying again", self._group, exc_info=True)
            return False
        return True

    def _read(self, *, first: bool) -> list[dict[str, Any]]:
        """What ended and was not seen, oldest first; at first only note what there is."""
        room_id = self.scope["url_route"]["kwargs"]["room_id"]
        if room_fault(room_id) or not self.caller().may("read", room_id):
            raise Refused(NOT_FOUND)
        ended = tasks().filter(room_id=room_id, completed_at__isnull=False)
        latest = ended.order_by("-completed_at").values_list("completed_at", flat=True)
        newest: datetime | None = max(self._seen.values(), default=None) or latest.first()
        if newest is None:
            return []
        if not self._seen and not first:
            window = ended
        else:
            window = ended.filter(completed_at__gte=newest - OVERLAP)
        found: dict[UUID, Any] = dict(
            window.order_by("completed_at").values_list("pk", "completed_at")
        )
        unseen = [pk for pk in found if pk not in self._seen]
        self._seen = found
        if first or not unseen:
            return []
        rows = Task.objects.read(unseen).values()
        return [task_document(task) for task in sorted(rows, key=_ended)]


class UnknownConsumer(NewsConsumer):
    """Whatever else lies under the prefix: there is nothing."""

    async def follow(self) -> None:
        """Refuse, whoever asks."""
        raise Refused(NOT_FOUND)


def _key(user: Any) -> str:
    """The user's key as a session has it; a host's own kind of user may have none."""
    return str(getattr(user, "pk", None))


def _ended(task: TaskRow) -> tuple[Any, UUID]:
    return task.completed_at, task.id


def tasks() -> TaskQuerySet:
    """Tasks on the database that is written to."""
    queryset: TaskQuerySet = Task.objects.using(router.db_for_write(Task))
    return queryset
