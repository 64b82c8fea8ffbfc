"""Connections that receive the events of a room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlencode

import httpx

from zndraw_joblib.client.api import ApiManager, open_stream, path
from zndraw_joblib.client.exceptions import UnexpectedAnswerError
from zndraw_joblib.client.room_events import (
    ReadyEvent,
    ResetEvent,
    RoomEvent,
    read_event,
)
from zndraw_joblib.client.sse import MessageParser

#: Media type of a stream.
STREAM_TYPE = "text/event-stream"
#: Most seconds between two parts of a stream; the server sends a comment every 15 s.
SILENCE_SECONDS = 25.0


class EventStream:
    """One connection that receives the events of a room."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._parser = MessageParser()

    @property
    def retry(self) -> float | None:
        """Seconds after which the server wants another connection; None if it did not say."""
        return self._parser.retry

    @property
    def cursor(self) -> str | None:
        """The place that the stream has reached, also by comments; None before the first event."""
        return self._parser.last_id

    def events(self) -> Iterator[RoomEvent | None]:
        """Yield the events, and None after each part of the stream, until the server ends it.

        So the caller can look at its deadline although only comments arrive.

        Raises
        ------
        UnexpectedAnswerError
            The stream is not the server's.
        httpx.TransportError
            The connection failed, or nothing has arrived for too long.
        """
        is_first = True
        for chunk in self._response.iter_bytes():
            try:
                events = [read_event(message.data) for message in self._parser.feed(chunk)]
            except ValueError:
                # Without the error, because its text may contain the data.
                raise UnexpectedAnswerError(self._response, {}) from None
            for event in events:
                if event is None:
                    continue
                if is_first and not isinstance(event, ReadyEvent | ResetEvent):
                    raise UnexpectedAnswerError(self._response, {})
                is_first = False
                yield event
            yield None


@contextmanager
def open_events(
    api: ApiManager, room_id: str, task_ids: Sequence[str], cursor: str | None, silence: float
) -> Iterator[EventStream]:
    """Open a stream of a room's events; the end of the block closes the connection.

    Parameters
    ----------
    task_ids
        Only events about these tasks; all events if there are none.
    cursor
        The events after this one; None begins now.
    silence
        Most seconds between two parts of the stream.

    Raises
    ------
    ApiError
        The server refuses, or the answer is not a stream of events.
    httpx.TransportError
        The server cannot be reached.
    """
    # Not compressed, because a compressor may keep a short event back.
    headers = {
        "Accept": STREAM_TYPE,
        "Accept-Encoding": "identity",
        "Cache-Control": "no-store",
    }
    if cursor is not None:
        headers["Last-Event-ID"] = cursor
    url = path("rooms", room_id, "events")
    if task_ids:
        url += "?" + urlencode([("task", task_id) for task_id in task_ids])
    with open_stream(api, url, headers, silence) as response:
        if response.headers.get("Content-Type", "").partition(";")[0].strip() != STREAM_TYPE:
            raise UnexpectedAnswerError(response, {})
        yield EventStream(response)
