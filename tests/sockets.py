"""WebSockets to the example project, without a server."""

from __future__ import annotations

import json

from asgiref.testing import ApplicationCommunicator

from example_project.asgi import application


class Socket:
    """A path is one of the job server's, or with a slash in front one as it is.

    `more` is added to the scope.
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
        self.it = ApplicationCommunicator(application, scope)

    async def __aenter__(self):
        await self.it.send_input({"type": "websocket.connect"})
        accepted = await self.it.receive_output(timeout=10)
        assert accepted["type"] == "websocket.accept"
        self.subprotocol = accepted.get("subprotocol")
        return self

    async def __aexit__(self, *exc):
        await self.it.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.it.wait(timeout=10)

    async def send(self, **message):
        await self.it.send_input({"type": "websocket.receive", **message})

    async def json(self):
        message = await self.it.receive_output(timeout=10)
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def code(self):
        message = await self.it.receive_output(timeout=10)
        assert message["type"] == "websocket.close", message
        return message.get("code", 1000)


def token(person):
    return [(b"authorization", f"Token {person.token}".encode())]
