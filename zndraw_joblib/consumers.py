"""WebSockets: the end of one task, or each end in a room.

The host's DRF authenticators authenticate a connection, by the session, an `Authorization` header
or the subprotocols ``["token", "<key>"]`` (``"bearer"`` for that scheme). The host's DRF
permissions are asked as for the view that reads the same over HTTP; throttles are not, because a
connection is no request. Close codes: 4401 not authenticated, 4403 from a page that is not trusted
(`origins`), 4404 no such task or room for the caller, or an unknown address. A refusal by the
host's authenticator, permission or hook closes with 4000 and its HTTP status (4423).

The caller is authenticated and authorized again at each read of the database, because meanwhile a
session may have been logged out, or its user deactivated or given another password. The connection
is closed then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

from channels import DEFAULT_CHANNEL_LAYER
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.http import HttpRequest
from django.urls import ResolverMatch
from rest_framework.settings import api_settings

from zndraw_joblib.access import Caller
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.caller import caller_again
from zndraw_joblib.api.documents import json_text, task_document
from zndraw_joblib.api.host_errors import raised_as_problems
from zndraw_joblib.api.paths import log_fields
from zndraw_joblib.api.tasks import TaskViewSet
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.events.messages import end_group, room_digest, split_entry
from zndraw_joblib.events.publisher import publisher
from zndraw_joblib.events.reads import REREAD_SECONDS
from zndraw_joblib.events.waiters import counted
from zndraw_joblib.exceptions import ProblemException
from zndraw_joblib.names import nfc, room_error
from zndraw_joblib.origins import Trust, page_trust
from zndraw_joblib.services.ends import RoomEnds
from zndraw_joblib.services.lookup import find_task
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.tenancy import in_tenant, tenant_of

Found = TypeVar("Found")

logger = logging.getLogger(__name__)

NOT_AUTHENTICATED, FORBIDDEN, NOT_FOUND = 4401, 4403, 4404
#: Added to the status of a problem, it gives the close code.
HTTP_STATUS = 4000
#: Schemes of `Authorization` that may be offered as a subprotocol.
SCHEMES = {"token": "Token", "bearer": "Bearer"}
#: Seconds of one wait on the hub, after which the caller's rights are checked again.
RECHECK_SECONDS = 300.0


class CloseConnection(Exception):
    """Closes the connection with this code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


class EventConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A connection that sends documents until `follow` returns or the client leaves."""

    #: No layer, because a consumer with one has a channel, and no client could connect while the
    #: layer is down.
    channel_layer_alias = ""
    #: The view that reads the same over HTTP, and its action.
    view_class: type[JobLibView] = TaskViewSet
    action: str | None = None
    #: Known from the first read on.
    tenant: str | None = None
    _following: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle the connection until either side closes it."""
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        closing = False

        async def receive_or_close() -> Any:
            nonlocal closing
            if closing:
                return await receive()
            message = asyncio.ensure_future(receive())
            try:
                await asyncio.wait({message, self._code}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                message.cancel()
            await asyncio.wait({message})
            if not message.cancelled():
                return message.result()
            closing = True
            return {"type": "close.with.code", "code": self._code.result()}

        await super().__call__(scope, receive_or_close, send)

    async def close_with_code(self, message: dict[str, Any]) -> None:
        """Close the connection while nothing waits for the client's next message.

        granian (2.8) sends no close frame while a `receive` is pending.
        """
        # granian raises RuntimeError where the client has left meanwhile.
        with suppress(RuntimeError):
            await self.close(message["code"])

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
            # A browser sends the session cookie for pages of other sites too.
            if self._trust() is Trust.NONE:
                raise CloseConnection(FORBIDDEN)
            await self.follow()
            code = 1000
        except CloseConnection as closing:
            code = closing.code
        except ProblemException as problem:
            code = HTTP_STATUS + problem.status
        except Exception:
            logger.exception(
                "a WebSocket of %s failed", self.scope["path"][:200], extra=self._log_fields()
            )
            code = 1011
        self._code.set_result(code)

    def request(self) -> HttpRequest:
        """The connection as a request without a user."""
        request = HttpRequest()
        request.method, request.path = "GET", self.scope["path"]
        found = self.scope.get("url_route", {})
        # With the variables of the host's prefix, as in a request.
        request.resolver_match = ResolverMatch(
            type(self), found.get("args", ()), found.get("kwargs", {})
        )
        for name, value in self.scope["headers"]:
            request.META[f"HTTP_{name.decode('latin1').upper().replace('-', '_')}"] = value.decode(
                "latin1"
            )
        return request

    def caller(self) -> Caller:
        """The caller, by the host's authenticators and permissions; called from a thread.

        Raises
        ------
        CloseConnection
            The caller is not authenticated.
        ProblemException
            The host's authenticator or permission refuses.
        """
        request = self.request()
        offered = self.scope.get("subprotocols") or []
        if len(offered) == 2 and offered[0].lower() in SCHEMES:
            request.META["HTTP_AUTHORIZATION"] = f"{SCHEMES[offered[0].lower()]} {offered[1]}"
        # As DRF has it, because a site without `django.contrib.auth` has no `AnonymousUser`.
        make_anonymous: Any = api_settings.UNAUTHENTICATED_USER
        anonymous: Any = make_anonymous() if make_anonymous else None
        user: Any = self.scope.get("user") or anonymous
        session: Any = self.scope.get("session")
        if request.META.get("HTTP_COOKIE") and self._trust() is Trust.WITHOUT_COOKIES:
            # The page of another site must not act for the user whose cookies the browser added.
            del request.META["HTTP_COOKIE"]
            user, session = anonymous, None
        request.user, request.session = user, session
        match: Any = request.resolver_match
        # In Unicode's form NFC, as `JobLibView` has them.
        kwargs = {
            name: nfc(value) if name == "room_id" else value for name, value in match.kwargs.items()
        }
        view = self.view_class(action=self.action, args=match.args, kwargs=kwargs)
        caller = caller_again(request, view)
        if caller is None:
            raise CloseConnection(NOT_AUTHENTICATED)
        return caller

    async def read(self, query: Callable[[], Found]) -> Found:
        """Call a function that reads the database, in a thread and for the connection's tenant."""

        def call() -> Found:
            with raised_as_problems():
                self.tenant = tenant_of(self.request())
            with in_tenant(self.tenant):
                return query()

        return await database_sync_to_async(call)()  # type: ignore[no-any-return]

    def _log_fields(self) -> dict[str, str]:
        return log_fields(self.scope.get("url_route", {}).get("kwargs", {}))

    def _trust(self) -> Trust:
        """The trust in the page that opened the connection."""
        origin = dict(self.scope["headers"]).get(b"origin")
        text = None if origin is None else origin.decode("latin1")
        return page_trust(text, self.scope["path"])


class TaskConsumer(EventConsumer):
    """``ws/v1/joblib/tasks/{id}/``: the task when it ends, or at once if it has ended."""

    action = "retrieve"

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
        except ValueError as error:
            raise CloseConnection(NOT_FOUND) from error


class RoomConsumer(EventConsumer):
    """``ws/v1/joblib/rooms/{room_id}/``: each task of the room that ends from now on.

    The room is read at each message about it, and every `REREAD_SECONDS`, because messages may be
    lost.
    """

    channel_layer_alias = DEFAULT_CHANNEL_LAYER
    action = "list"

    @counted("room")
    async def follow(self) -> None:
        """Send the tasks that ended since the last read, until the client leaves."""
        self._ended = asyncio.Event()
        self._ends = RoomEnds(self._room_id)
        joined = await self._join()
        # Tasks that ended before the connection are not sent.
        await self.read(self._read)
        while True:
            try:
                async with asyncio.timeout(REREAD_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                joined = joined or await self._join()
            self._ended.clear()
            try:
                documents = await self.read(self._read)
            except (CloseConnection, ProblemException):
                raise
            except Exception:
                logger.exception(
                    "could not read the ends of a room; trying again", extra=self._log_fields()
                )
                continue
            for document in documents:
                await self.send_json(document)

    async def disconnect(self, code: int) -> None:
        """Leave the room's group."""
        await super().disconnect(code)
        try:
            await self.channel_layer.group_discard(self._group, self.channel_name)
        except Exception:
            logger.warning(
                "could not leave %s", self._group, exc_info=True, extra=self._log_fields()
            )

    async def tasks_ended(self, message: dict[str, Any]) -> None:
        """Read the room, if the message of its group is about this room."""
        digest = room_digest(self._room_id)
        if any(split_entry(entry)[0] == digest for entry in message["entries"]):
            self._ended.set()

    @property
    def _room_id(self) -> str:
        room_id: str = self.scope["url_route"]["kwargs"]["room_id"]
        return nfc(room_id)

    @property
    def _group(self) -> str:
        return end_group(self._room_id)

    async def _join(self) -> bool:
        # Because an in-memory layer delivers late what another loop sends.
        publisher.attach(asyncio.get_running_loop())
        try:
            await self.channel_layer.group_add(self._group, self.channel_name)
        except Exception:
            logger.warning(
                "could not join %s; trying again",
                self._group,
                exc_info=True,
                extra=self._log_fields(),
            )
            return False
        return True

    def _read(self) -> list[dict[str, Any]]:
        """Documents of the tasks that ended since the last read, oldest first."""
        if room_error(self._room_id) or not self.caller().may("read", self._room_id):
            raise CloseConnection(NOT_FOUND)
        return [task_document(task, include_result=False) for task in self._ends.new()]


class UnknownConsumer(EventConsumer):
    """Any other address under the prefix."""

    async def follow(self) -> None:
        """Close the connection with 4404, for every caller."""
        raise CloseConnection(NOT_FOUND)
