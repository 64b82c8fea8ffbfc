"""The messages of a room's events, as clients of WebSockets and of Server-Sent Events get them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from django.http import QueryDict

from zndraw_joblib.api.documents import json_text, task_document, utc
from zndraw_joblib.api.parsing import invalid
from zndraw_joblib.events.room_events import Event
from zndraw_joblib.events.states import JobState, WorkerState
from zndraw_joblib.events.watchers import Batch
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.text import Message

#: Most tasks that a client may name.
MAX_TASKS = 500
#: Most documents of one array, because clients limit the size of a message.
MAX_DOCUMENTS = 50


class StreamQuery(NamedTuple):
    """The tasks that a client wants events about, None for all, and the cursor that it knows."""

    tasks: frozenset[UUID] | None
    cursor: str | None


class Sent(NamedTuple):
    """A message as a client gets it: its type, the cursor after it, and its JSON document."""

    type: str
    cursor: str
    document: str


def stream_query(query: QueryDict, last_event_id: str | None = None) -> StreamQuery:
    """The parameters of a stream.

    The header `Last-Event-ID` goes before the parameter `cursor`, because a browser that comes back
    repeats the address of its first request.

    Raises
    ------
    ValidationError
        A `task` is not an id, or there are too many.
    """
    texts = query.getlist("task")
    if len(texts) > MAX_TASKS:
        raise invalid(Message("task may be given up to {limit} times.", limit=MAX_TASKS), "/task")
    try:
        tasks = frozenset(map(UUID, texts)) if texts else None
    except ValueError as error:
        raise invalid(Message("task must be the id of a task."), "/task") from error
    return StreamQuery(tasks, last_event_id or query.get("cursor") or None)


def wants_arrays(query: QueryDict) -> bool:
    """Whether the client of a WebSocket wants arrays of documents.

    Raises
    ------
    ValidationError
        `batch` is neither `true` nor `false`.
    """
    batch = query.get("batch", "false")
    if batch not in {"true", "false"}:
        raise invalid(Message("batch must be true or false."), "/batch")
    return batch == "true"


def messages(batch: Batch) -> Iterator[Sent]:
    """The messages of a batch.

    Only the last one has the new cursor, because a client that loses the connection before it
    resumes from the cursor that it knew before.
    """
    if batch.lead is not None:
        cursor = batch.before if batch.events else batch.after
        yield Sent(batch.lead, cursor, f'{{"type":"{batch.lead}","cursor":"{cursor}"}}')
    last = len(batch.events) - 1
    for place, event in enumerate(batch.events):
        cursor = batch.after if place == last else batch.before
        if event.encoded is None:
            event.encoded = json_text(_content(event)).decode()[1:]
        document = f'{{"type":"{event.type}","cursor":"{cursor}",{event.encoded}'
        yield Sent(event.type, cursor, document)


def _content(event: Event) -> Mapping[str, Any]:
    """The members of an event besides its type and cursor."""
    match event.subject:
        case TaskRow() as task:
            document = task_document(task, include_result=False, include_payload=False)
            return {"revision": task.revision, "task": document}
        case JobState() as job:
            document = job._asdict()
            del document["revision"]
            return {"job": document}
        case WorkerState() as worker:
            times = {
                "last_heartbeat": utc(worker.last_heartbeat),
                "created_at": utc(worker.created_at),
            }
            return {"worker": worker._asdict() | times}
        case str() as name if event.type == "job_retired":
            return {"job": {"full_name": name}}
        case str() as name:
            return {"worker": {"id": name}}
