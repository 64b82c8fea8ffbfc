"""The AsyncAPI document of the WebSockets agrees with the messages that they send."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from asgiref.sync import sync_to_async
from django.core.management import call_command

from tests.sockets import Socket, token
from zndraw_joblib.api.asyncapi import asyncapi_document
from zndraw_joblib.events import feeds
from zndraw_joblib.routing import websocket_urlpatterns

ROOT = Path(__file__).parents[2]


def test_the_asyncapi_document_is_the_checked_in_one(tmp_path):
    call_command("asyncapi", file=str(tmp_path / "asyncapi.yml"))
    generated = (tmp_path / "asyncapi.yml").read_text()
    checked_in = (ROOT / "docs" / "asyncapi.yml").read_text()
    assert generated == checked_in, "accept the change with `make openapi`"


def test_the_command_writes_the_document_to_the_standard_output(capsys):
    call_command("asyncapi")
    assert yaml.safe_load(capsys.readouterr().out) == asyncapi_document()


def test_every_reference_of_the_document_resolves():
    document = asyncapi_document()
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found = document
        for name in reference.split("/"):
            found = found[name]


def test_every_socket_is_a_channel():
    def shape(address):
        return re.sub(r"\(\?P<(\w+)>[^)]*\)|{\w+}", "*", address).strip("^$/?")

    channels = {shape(each["address"]) for each in asyncapi_document()["channels"].values()}
    routes = {shape(str(each.pattern)) for each in websocket_urlpatterns}
    assert channels == {route for route in routes if "(?:" not in route}


def validator(name):
    """The validator of the messages of this name."""
    document = asyncapi_document()
    schema = document["components"]["messages"][name]["payload"]
    return jsonschema_rs.validator_for({**schema, "components": document["components"]})


def check(message, name):
    """Assert that a message of this name is as the document says, and has no other members."""
    validator(name).validate(message)
    document = asyncapi_document()
    schema = document["components"]["messages"][name]["payload"]
    schemas = document["components"]["schemas"]
    known = schemas[schema["$ref"].rpartition("/")[2]]["properties"]
    assert message.keys() <= known.keys()
    for key in message.keys() & {"task", "job", "worker"}:
        inner = schemas[known[key]["$ref"].rpartition("/")[2]]["properties"]
        assert message[key].keys() <= inner.keys()


@pytest.mark.django_db(transaction=True)
async def test_the_messages_of_all_sockets_are_as_the_document_says(
    root, bob, running, monkeypatch
):
    monkeypatch.setattr(feeds, "STATES_SECONDS", 0.2)
    seen = {}

    async def until(kind):
        while kind not in seen:
            message = await events.json()
            check(message, message["type"])
            seen[message["type"]] = message

    def call(function, *args, **kwargs):
        return sync_to_async(function)(*args, **kwargs)

    async with (
        Socket("rooms/open/events", token(root)) as events,
        Socket("rooms/open", token(root)) as ends,
        Socket(f"tasks/{running}", token(root)) as end,
    ):
        await until("ready")
        assert await ends.communicator.receive_nothing(0.3)
        await call(bob.report, running, "completed", result={"a": 1}, attempt=1)
        await until("task")
        check(await end.json(), "ended")
        check(await ends.json(), "ended_in_room")
        await call(bob.register, name="Other")
        await until("job")
        await until("worker")
        await call(bob.send, "delete", f"/workers/{bob.identity}")
        await until("worker_left")
        await call(root.send, "delete", "/rooms/open/jobs/open:modifiers:Other")
        await until("job_retired")
    async with Socket("/ws/v1/joblib/rooms/open/events/?cursor=x", token(root)) as events:
        await until("reset")
    async with Socket("/ws/v1/joblib/rooms/open/events/?batch=true", token(root)) as events:
        messages = await events.json()
        assert validator("batch").is_valid(messages)
        assert not validator("batch").is_valid([])
        assert not validator("batch").is_valid([*messages, {"type": "ready"}])
