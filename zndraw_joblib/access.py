"""The caller's identity and permissions, as the host's hooks define them.

The hooks get a request with a ``user``: a DRF request for the API and for a WebSocket (the consumer
makes one), or whatever request the host's own views pass to `Caller`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError

from zndraw_joblib.exceptions import Forbidden, InvalidRoomId, JobNotFound, ProblemException
from zndraw_joblib.models import MAX_IDENTITY_LENGTH
from zndraw_joblib.names import GLOBAL_ROOM, nfc, room_error
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.tenancy import tenant_of
from zndraw_joblib.text import Message

#: Actions in a room that `room_access` allows or refuses.
Action = Literal["read", "submit", "register"]


_REFUSALS = {
    "submit": Message("You may not submit in this room."),
    "register": Message("You may not register in this room."),
}


def default_identity(request: Any) -> str:
    """The user's primary key as text."""
    return str(request.user.pk)


def default_is_admin(request: Any) -> bool:
    """Whether the user has the permission ``zndraw_joblib.administer``."""
    return bool(request.user.has_perm("zndraw_joblib.administer"))


def default_room_access(request: Any, room_id: str, action: Action) -> bool:
    """True for every authenticated user, in every room."""
    return bool(request.user.is_authenticated)


def check_room_id(room_id: str) -> None:
    """Raise InvalidRoomId unless this may be the id of a room."""
    room_id = nfc(room_id)
    if error := room_error(room_id):
        raise InvalidRoomId(Message("The room id {error}.", error=error))
    if len(room_id) > (limit := get_settings().max_room_id_length):
        raise InvalidRoomId(
            Message("The room id must have at most {limit} characters.", limit=limit)
        )


def identity_labels(identities: Iterable[str]) -> dict[str, str]:
    """The names of identities for people to read, by identity; unknown ones are left out.

    Without the host's hook this is one query for all of them.
    """
    wanted = {identity for identity in identities if identity}
    settings = get_settings()
    if settings.identity_label is None:
        return _usernames(wanted)
    label = settings.hook("identity_label")
    return {identity: str(name) for identity in wanted if (name := label(identity))}


def _usernames(identities: set[str]) -> dict[str, str]:
    """The names of the users whose primary keys these are."""
    users = get_user_model()
    key = users._meta.pk
    keys = []
    for identity in identities:
        # Checked here, because the database fails at a key of another type or beyond its range.
        with suppress(ValidationError):
            value = key.to_python(identity)
            key.run_validators(value)
            keys.append(value)
    if not keys:
        return {}
    found = users._default_manager.filter(pk__in=keys)
    return {str(user.pk): user.get_username() for user in found}


@dataclass(frozen=True)
class Caller:
    """An authenticated caller. The identity and the admin right are read once for each request."""

    request: Any

    def ask(self, hook: str, *args: Any) -> Any:
        """Call a hook of the host; raises the host's exceptions."""
        return get_settings().hook(hook)(self.request, *args)

    @cached_property
    def identity(self) -> str:
        """The caller's identity, opaque text of 1 to 255 characters."""
        identity = self.ask("identity")
        if not isinstance(identity, str) or not 1 <= len(identity) <= MAX_IDENTITY_LENGTH:
            raise ImproperlyConfigured(
                f"The hook `identity` must return 1 to {MAX_IDENTITY_LENGTH} characters."
            )
        return identity

    @cached_property
    def is_admin(self) -> bool:
        """Whether the caller administers the job server."""
        return bool(self.ask("is_admin"))

    @cached_property
    def tenant(self) -> str | None:
        """The tenant of the request; None on a host without tenants."""
        return tenant_of(self.request)

    def may(self, action: Action, room_id: str) -> bool:
        """Whether the caller may take this action in a room; only admins register in `@global`.

        The hook gets the room id in Unicode's form NFC.
        """
        room_id = nfc(room_id)
        if action == "register" and room_id == GLOBAL_ROOM:
            return self.is_admin
        return bool(self.ask("room_access", room_id, action)) or self.is_admin

    def require(
        self, action: Action, room_id: str, *, hidden: type[ProblemException] = JobNotFound
    ) -> None:
        """Raise unless the caller may take this action in a room.

        Raises
        ------
        InvalidRoomId
            The room id is not valid.
        Forbidden
            The caller may not submit or register in the room.
        ProblemException
            `hidden`, if the caller may not read the room, because a 404 does not reveal whether
            the room exists.
        """
        check_room_id(room_id)
        if not self.may(action, room_id):
            if action == "read":
                raise hidden
            raise Forbidden(_REFUSALS[action])

    def runs(self, task: TaskRow) -> bool:
        """Whether the latest attempt of the task was granted to a worker of the caller."""
        return task.worker_identity == self.identity

    def may_read(self, task: TaskRow) -> bool:
        """Whether the caller may read the task: they own its worker, or may read its room."""
        return self.runs(task) or self.may("read", task.room_id)

    def visible(self, tasks: Sequence[TaskRow]) -> list[TaskRow]:
        """The tasks among these that the caller may read; calls the hook once for each room."""
        rooms = {task.room_id for task in tasks if not self.runs(task)}
        readable = {room_id for room_id in rooms if self.may("read", room_id)}
        return [task for task in tasks if self.runs(task) or task.room_id in readable]


@dataclass(frozen=True)
class HostCaller(Caller):
    """The site's own code. It may use every room, and the site's hooks are not asked.

    `acts_for` is the identity on whose behalf the code acts; ``""`` for the site itself.
    """

    request: Any = None
    acts_for: str = ""

    @cached_property
    def identity(self) -> str:
        """The identity on whose behalf the code acts."""
        return self.acts_for

    @cached_property
    def is_admin(self) -> bool:
        """The site administers its job server."""
        return True

    @cached_property
    def tenant(self) -> str | None:
        """None, because the site's code runs within its tenant."""
        return None

    def may(self, action: Action, room_id: str) -> bool:
        """The site may do everything everywhere."""
        return True
