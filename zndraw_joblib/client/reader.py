"""`Reader`: reads tasks and watches rooms."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.room_events import RoomEvent
from zndraw_joblib.client.room_watch import room_events
from zndraw_joblib.client.schemas import TaskInfo, read_task, read_tasks
from zndraw_joblib.lifecycle import TaskStatus


class Reader:
    """Reads tasks and watches rooms."""

    def __init__(self, api: ApiManager) -> None:
        self.api = api

    def task(self, task_id: str | UUID) -> TaskInfo:
        """The task as it is now.

        Raises
        ------
        TaskNotFoundError
            The task does not exist, or the caller may not read it.
        """
        return send(self.api, "GET", path("tasks", str(task_id)), read=read_task)

    def tasks(
        self,
        *,
        created_by: str | None = None,
        status: TaskStatus | str | None = None,
        job: str | None = None,
        room: str | None = None,
        include_result: bool = False,
    ) -> Iterator[TaskInfo]:
        """Iterate over tasks of all rooms, newest first.

        They are the caller's own, or for an administrator those of everybody. Pages are requested
        as the iterator comes to them, so tasks that are submitted meanwhile are left out.

        Parameters
        ----------
        created_by
            The identity that submitted them. Only an administrator may give another than their own;
            ``"me"`` is the caller's.
        status
            Their status.
        job
            Full name of their job.
        room
            The room in which they were submitted.
        include_result
            Whether they have their results, which are None otherwise.

        Raises
        ------
        ForbiddenError
            From the iterator: the caller is no administrator, and `created_by` is another's.
        RequestInvalidError, InvalidRoomIdError
            From the iterator: a filter is not valid.
        """
        filters = {
            "created_by": created_by,
            "status": status and TaskStatus(status).value,
            "job": job,
            "room": room,
            "include": "result" if include_result else None,
        }
        query = urlencode({name: value for name, value in filters.items() if value is not None})
        return self._pages(path("tasks"), query)

    def watch_room(
        self, room: str, *, tasks: Iterable[str | UUID] = (), cursor: str | None = None
    ) -> Generator[RoomEvent, None, None]:
        """Iterate over the events of a room: its tasks, jobs and, for administrators, workers.

        The first event is a `ReadyEvent`, from which on no change is missed. An event has the state
        after a change; several changes may come as one. After an outage the iterator goes on where
        it was, or yields a `ResetEvent` if that would be too much. It does not end by itself;
        closing it closes its connection.

        Parameters
        ----------
        tasks
            Ids of the only tasks whose events to yield, up to 500; all events of the room if there
            are none.
        cursor
            The cursor of an earlier event, also from another process: the iterator begins with the
            present state of whatever changed since. None begins now.

        Raises
        ------
        ApiError
            From the iterator: the caller may not read the room, or the server has no events.
        ValueError
            The cursor is not printable ASCII, as that of an event is.
        """
        if cursor is not None and not (cursor.isascii() and cursor.isprintable()):
            raise ValueError("a cursor is that of an event")
        return room_events(self.api, room, [str(task_id) for task_id in tasks], cursor)

    def _pages(self, url: str, query: str | None) -> Iterator[TaskInfo]:
        while query is not None:
            listed, query = send(self.api, "GET", f"{url}?{query}", read=_read_page)
            yield from listed


def _read_page(answer: httpx.Response) -> tuple[list[TaskInfo], str | None]:
    """The tasks of a page, and the query of the next one; None on the last page."""
    following = answer.links.get("next")
    # The query alone, because behind a proxy the server may not know its own address.
    return read_tasks(answer), None if following is None else urlsplit(following["url"]).query
