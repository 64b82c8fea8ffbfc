"""Watches the events of a room."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence

import httpx

from zndraw_joblib.client.api import ApiManager
from zndraw_joblib.client.exceptions import ApiError
from zndraw_joblib.client.feed import SILENCE_SECONDS, open_events
from zndraw_joblib.client.room_events import ReadyEvent, RoomEvent
from zndraw_joblib.client.waiting import Deadline, PatientRequests

#: Most seconds of a pause that the server asks for between two connections.
LONGEST_RETRY = 60.0
#: A connection that lasted so many seconds is followed by another one without a pause.
LASTING_SECONDS = 1.0


def room_events(
    api: ApiManager, room_id: str, task_ids: Sequence[str], cursor: str | None
) -> Generator[RoomEvent, None, None]:
    """Yield the events of a room, by one connection after another.

    Raises
    ------
    ApiError
        The server refuses.
    """
    requests = PatientRequests(api, Deadline(None), f"watch room {room_id}")
    goes_on = False
    while True:
        try:
            with open_events(api, room_id, task_ids, cursor, SILENCE_SECONDS) as stream:
                began_at = time.monotonic()
                for event in stream.events():
                    if event is None:
                        cursor = stream.cursor or cursor
                        continue
                    requests.succeeded()
                    # Left out, because a later connection that misses nothing changes nothing.
                    if not (goes_on and isinstance(event, ReadyEvent)):
                        yield event
                    cursor, goes_on = event.cursor, True
        except (ApiError, httpx.TransportError) as error:
            requests.failed(error)
            continue
        has_lasted = time.monotonic() > began_at + LASTING_SECONDS
        if not has_lasted and stream.retry is not None:
            # Under WSGI a stream ends at once, and is asked for again after these seconds.
            requests.sleep(min(stream.retry, LONGEST_RETRY))
        else:
            requests.pace(has_changes=has_lasted, waited=False)
