"""WebSocket connections to the example project in this process, without a server."""

from __future__ import annotations

import json

from asgiref.testing import ApplicationCommunicator

from example_project.asgi import application


class Socket:
    """A connection to `path`, which is under the job server's prefix unless it begins with `/`.

    `more` is added to the ASGI scope.
    """

    def __init__(self, path, headers=(), subprotocols=(), application=application, **more):
        path = path if path.startswith("/") else f"/ws/v1/joblib/{path}/"
        path, _, query = path.partition("?")
        scope = {
            "type": "websocket",
            "path": path,
            "query_string": query.encode(),
            "headers": list(headers),
            "subprotocols": list(subprotocols),
            **more,
        }
        self.communicator = ApplicationCommunicator(application, scope)

    async def __aenter__(self):
        await self.communicator.send_input({"type": "websocket.connect"})
        accepted = await self.communicator.receive_output(timeout=10)
        assert accepted["type"] == "websocket.accept"
        self.subprotocol = accepted.get("subprotocol")
        return self

    async def __aexit__(self, *exc):
        await self.communicator.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.communicator.wait(timeout=10)

    async def send(self, **message):
        await self.communicator.send_input({"type": "websocket.receive", **message})

    async def json(self):
        message = await self.communicator.receive_output(timeout=10)
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def code(self):
        message = await self.communicator.receive_output(timeout=10)
        assert message["type"] == "websocket.close", message
        return message.get("code", 1000)


def token(person):
    return [(b"authorization", f"Token {person.token}".encode())]
