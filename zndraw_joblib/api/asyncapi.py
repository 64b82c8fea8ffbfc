"""The AsyncAPI document of the WebSockets."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from zndraw_joblib import __version__
from zndraw_joblib.api.answers import TaskDocument
from zndraw_joblib.api.event_answers import MESSAGES, TaskMessage
from zndraw_joblib.api.event_documents import MAX_DOCUMENTS

_CLOSE_CODES = (
    "Close codes: 4401 not authenticated, 4403 from a page that is not trusted, 4404 no such task "
    "or room for you, 4400 and the like a problem of that HTTP status (4400 is 400)"
)
_AUTHENTICATION = (
    "Authenticate by a session, by the header `Authorization`, or by the subprotocols `token` and "
    "your token."
)
_ROOM = "Room: 1 to 128 characters without `@ : /`, or `@global`."
_QUERY = {
    "type": "object",
    "properties": {
        "cursor": {
            "type": "string",
            "description": "The last cursor that you know: the present state of everything that "
            "changed since then comes first.",
        },
        "task": {
            "type": "array",
            "items": {"type": "string", "format": "uuid"},
            "description": "Only events about these tasks; the parameter may be repeated.",
        },
        "batch": {
            "type": "boolean",
            "default": False,
            "description": "Whether each message is an array of those that come at the same time, "
            "which takes less time of the server and of the client.",
        },
    },
}


def asyncapi_document() -> dict[str, Any]:
    """The document, in the terms of AsyncAPI 3.0."""
    types: dict[str, Any] = {**MESSAGES, "ended": TaskDocument}
    adapters = [(name, "serialization", TypeAdapter(each)) for name, each in types.items()]
    _, definitions = TypeAdapter.json_schemas(
        adapters,  # type: ignore[arg-type]
        ref_template="#/components/schemas/{model}",
    )
    components: dict[str, Any] = dict(definitions["$defs"])
    # Derived, so that a new field of a task is a field of these, too.
    components["TaskWithoutResult"] = _without(components["TaskDocument"], "result")
    components["TaskState"] = _without(components["TaskWithoutResult"], "payload")
    components[TaskMessage.__name__]["properties"]["task"] = _reference("schemas", "TaskState")
    messages = {
        name: _message(name, each.__name__, each.__doc__) for name, each in MESSAGES.items()
    }
    alternatives = [_reference("schemas", each.__name__) for each in MESSAGES.values()]
    components["EventArray"] = {
        "title": "EventArray",
        "type": "array",
        "items": {"anyOf": alternatives},
        "minItems": 1,
        "maxItems": MAX_DOCUMENTS,
    }
    messages["batch"] = _message(
        "batch", "EventArray", "With `?batch=true`, in place of all others: these, in their order."
    )
    messages["ended"] = _message("ended", "TaskDocument", "The task when it has ended.")
    messages["ended_in_room"] = _message(
        "ended_in_room", "TaskWithoutResult", "A task of the room that has ended."
    )
    channels = {
        "task_end": _channel(
            "ws/v1/joblib/tasks/{task_id}/",
            "The task when it ends, or at once if it has ended; then close code 1000. "
            f"{_CLOSE_CODES}. {_AUTHENTICATION}",
            {"task_id": "Id of the task."},
            ["ended"],
        ),
        "room_ends": _channel(
            "ws/v1/joblib/rooms/{room_id}/",
            f"Each task of the room that ends from now on. {_CLOSE_CODES}. {_AUTHENTICATION}",
            {"room_id": _ROOM},
            ["ended_in_room"],
        ),
        "room_events": _channel(
            "ws/v1/joblib/rooms/{room_id}/events/",
            "The present state of everything in the room that changes; a state may be skipped "
            f"when a later one follows. {_CLOSE_CODES}; 4408 if you do not read. {_AUTHENTICATION} "
            "The same messages are Server-Sent Events of `GET /v1/joblib/rooms/{room_id}/events`.",
            {"room_id": _ROOM},
            [*MESSAGES, "batch"],
        ),
    }
    channels["room_events"]["bindings"] = {"ws": {"query": _QUERY}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Job server: WebSockets",
            "version": __version__,
            "description": "The messages that the job server sends. It ignores those of clients.",
        },
        "channels": channels,
        "operations": {
            f"send_{name}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
            for name in channels
        },
        "components": {"messages": messages, "schemas": components},
    }


def _without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of an object without one of its members."""
    members = {key: each for key, each in schema["properties"].items() if key != name}
    required = [key for key in schema["required"] if key != name]
    title = schema["title"]
    return {**schema, "properties": members, "required": required, "title": title}


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _message(name: str, schema: str, description: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "contentType": "application/json",
        "description": " ".join((description or "").split()),
        "payload": _reference("schemas", schema),
    }


def _channel(
    address: str, description: str, parameters: dict[str, str], messages: list[str]
) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "parameters": {name: {"description": text} for name, text in parameters.items()},
        "messages": {name: _reference("messages", name) for name in messages},
    }
