"""WebSockets: the end of one task, or each end in a room.

The host's DRF authenticators authenticate a connection, by the session, an `Authorization` header
or the subprotocols ``["token", "<key>"]`` (``"bearer"`` for that scheme). Close codes: 4401 not
authenticated, 4403 not from this site (Origin), 4404 no such task or room for the caller, or an
unknown address.

The caller is authenticated and authorized again at each read of the database, because meanwhile a
session may have been logged out, or its user deactivated or given another password. The connection
is closed then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.models import AnonymousUser
from django.http import Http404, HttpRequest
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.settings import api_settings

from zndraw_joblib.access import Caller
from zndraw_joblib.api.documents import json_text, task_document
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.messages import end_group, room_digest, split_entry
from zndraw_joblib.events.reads import REREAD_SECONDS
from zndraw_joblib.exceptions import TaskNotFound
from zndraw_joblib.models import Task
from zndraw_joblib.names import room_error
from zndraw_joblib.services.lookup import find_task
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.tenancy import in_tenant, tenant_of

Found = TypeVar("Found")

logger = logging.getLogger(__name__)

NOT_AUTHENTICATED, FORBIDDEN, NOT_FOUND = 4401, 4403, 4404
#: Schemes of `Authorization` that may be offered as a subprotocol.
SCHEMES = {"token": "Token", "bearer": "Bearer"}
#: Most time between the `completed_at` that a transaction writes and its commit.
OVERLAP = timedelta(seconds=10)
#: Seconds of one wait on the hub, after which the caller's rights are checked again.
RECHECK_SECONDS = 300.0


class CloseConnection(Exception):
    """Closes the connection with this code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


class EventConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A connection that sends documents until `follow` returns or the client leaves."""

    #: Known from the first read on.
    tenant: str | None = None
    _following: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Accept every client, because only an accepted one receives a close code."""
        offered = self.scope.get("subprotocols") or []
        await self.accept(offered[0] if offered and offered[0].lower() in SCHEMES else None)
        self._following = asyncio.create_task(self._run())

    async def disconnect(self, code: int) -> None:
        """Stop sending."""
        if self._following is not None:
            self._following.cancel()

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """A document as over HTTP."""
        return json_text(content).decode()

    async def receive(self, *args: Any, **kwargs: Any) -> None:
        """Ignore messages of the client."""

    async def follow(self) -> None:
        """Send documents; the connection is closed when this returns."""
        raise NotImplementedError

    async def _run(self) -> None:
        try:
            self._check_origin()
            await self.follow()
            await self.close()
        except CloseConnection as closing:
            await self.close(closing.code)
        except Exception:
            logger.exception("a WebSocket of %s failed", self.scope["path"][:200])
            await self.close(1011)

    def request(self) -> HttpRequest:
        """The connection as a request without a user."""
        request = HttpRequest()
        request.method, request.path = "GET", self.scope["path"]
        for name, value in self.scope["headers"]:
            request.META[f"HTTP_{name.decode('latin1').upper().replace('-', '_')}"] = value.decode(
                "latin1"
            )
        return request

    def caller(self) -> Caller:
        """The caller, by the host's authenticators; called from a thread.

        Raises
        ------
        CloseConnection
            The caller is not authenticated.
        """
        request = self.request()
        offered = self.scope.get("subprotocols") or []
        if len(offered) == 2 and offered[0].lower() in SCHEMES:
            request.META["HTTP_AUTHORIZATION"] = f"{SCHEMES[offered[0].lower()]} {offered[1]}"
        request.user = self.scope.get("user") or AnonymousUser()
        request.session = session = self.scope.get("session")
        if session is not None and session.get(SESSION_KEY) == _user_key(request.user):
            # Reads session and user again, because the scope's are as old as the connection.
            request.session = session.__class__(session.session_key)
            request.user = get_user(request)
        classes: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES
        wrapped = Request(request, authenticators=[cls() for cls in classes])
        try:
            if wrapped.user and wrapped.user.is_authenticated:
                return Caller(wrapped)
        except APIException:
            pass
        raise CloseConnection(NOT_AUTHENTICATED)

    async def read(self, query: Callable[..., Found], **options: Any) -> Found:
        """Call a function that reads the database, in a thread and for the connection's tenant."""

        def call() -> Found:
            try:
                self.tenant = tenant_of(self.request())
            except Http404 as error:
                raise CloseConnection(NOT_FOUND) from error
            with in_tenant(self.tenant):
                return query(**options)

        return await database_sync_to_async(call)()  # type: ignore[no-any-return]

    def _check_origin(self) -> None:
        """Refuse pages of other sites, because a browser sends the session cookie for them too."""
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
            raise CloseConnection(FORBIDDEN)


class TaskConsumer(EventConsumer):
    """``ws/v1/joblib/tasks/{id}/``: the task when it ends, or at once if it has ended."""

    async def follow(self) -> None:
        """Send the task when it has ended."""
        while not (task := await self.read(self._read)).is_terminal:
            deadline = asyncio.get_running_loop().time() + RECHECK_SECONDS
            await get_hub(self.tenant).ends.wait({task.id: task.room_id}, deadline)
        await self.send_json(task_document(task))

    def _read(self) -> TaskRow:
        caller = self.caller()
        try:
            return find_task(caller, UUID(self.scope["url_route"]["kwargs"]["task_id"]))
        except (ValueError, TaskNotFound) as error:
            raise CloseConnection(NOT_FOUND) from error


class RoomConsumer(EventConsumer):
    """``ws/v1/joblib/rooms/{room_id}/``: each task of the room that ends from now on.

    The room is read at each message about it, and every `REREAD_SECONDS`, because messages may be
    lost.
    """

    async def follow(self) -> None:
        """Send the tasks that ended since the last read, until the client leaves."""
        self._ended = asyncio.Event()
        self._sent: dict[UUID, datetime] = {}
        joined = await self._join()
        # Tasks that ended before the connection are not sent.
        await self.read(self._read, first=True)
        while True:
            try:
                async with asyncio.timeout(REREAD_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                joined = joined or await self._join()
            self._ended.clear()
            try:
                documents = await self.read(self._read, first=False)
            except CloseConnection:
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

    async def tasks_ended(self, message: dict[str, Any]) -> None:
        """Read the room, if the message of its group is about this room."""
        digest = room_digest(self._room_id)
        if any(split_entry(entry)[0] == digest for entry in message["entries"]):
            self._ended.set()

    @property
    def _room_id(self) -> str:
        room_id: str = self.scope["url_route"]["kwargs"]["room_id"]
        return room_id

    @property
    def _group(self) -> str:
        return end_group(self._room_id)

    async def _join(self) -> bool:
        try:
            await self.channel_layer.group_add(self._group, self.channel_name)
        except Exception:
            logger.warning("could not join %s; trying again", self._group, exc_info=True)
            return False
        return True

    def _read(self, *, first: bool) -> list[dict[str, Any]]:
        """Documents of ended tasks that were not sent yet, oldest first; none with `first`."""
        if room_error(self._room_id) or not self.caller().may("read", self._room_id):
            raise CloseConnection(NOT_FOUND)
        tasks = Task.objects.using(Task.objects.write_db)
        ended = tasks.filter(room_id=self._room_id, completed_at__isnull=False)
        latest = ended.order_by("-completed_at").values_list("completed_at", flat=True)
        newest: datetime | None = max(self._sent.values(), default=None) or latest.first()
        if newest is None:
            return []
        if not self._sent and not first:
            window = ended
        else:
            window = ended.filter(completed_at__gte=newest - OVERLAP)
        found: dict[UUID, Any] = dict(
            window.order_by("completed_at").values_list("pk", "completed_at")
        )
        unsent = [task_id for task_id in found if task_id not in self._sent]
        self._sent = found
        if first or not unsent:
            return []
        rows = Task.objects.read(unsent).values()
        return [task_document(task) for task in sorted(rows, key=_end_order)]


class UnknownConsumer(EventConsumer):
    """Any other address under the prefix."""

    async def follow(self) -> None:
        """Close the connection with 4404, for every caller."""
        raise CloseConnection(NOT_FOUND)


def _user_key(user: Any) -> str:
    """The user's key as a session has it; ``None`` as text for a host's own object without one."""
    return str(getattr(user, "pk", None))


def _end_order(task: TaskRow) -> tuple[Any, UUID]:
    return task.completed_at, task.id
