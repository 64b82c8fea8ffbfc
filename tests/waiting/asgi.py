"""Requests to the ASGI application of the tests' site, with and without the lane."""

from __future__ import annotations

import json
from types import SimpleNamespace

from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from tests.factories import V1
from zndraw_joblib.contrib.asgi import ApiLane


class Site:
    """Sends requests of a person; `on_the_lane` chooses the application."""

    def __init__(self, on_the_lane: bool) -> None:
        django = get_asgi_application()
        self.application = ApiLane(django) if on_the_lane else django

    async def request(self, person, method, path, body=None, **headers):
        """The response's `status`, `headers` by lower-case name, `content`, and `json()`."""
        content = b"" if body is None else json.dumps(body).encode()
        given = {"authorization": f"Token {person.token}", "content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": V1 + path,
            "query_string": b"",
            "headers": [
                (b"host", b"testserver"),
                (b"content-length", str(len(content)).encode()),
                *((name.encode(), value.encode()) for name, value in given.items()),
            ],
        }
        communicator = ApplicationCommunicator(self.application, scope)
        await communicator.send_input({"type": "http.request", "body": content})
        start = await communicator.receive_output(40)
        answer = b""
        while True:
            message = await communicator.receive_output(5)
            answer += message.get("body", b"")
            if not message.get("more_body"):
                break
        await communicator.wait()
        names = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return SimpleNamespace(
            status=start["status"],
            headers=names,
            content=answer,
            json=lambda: json.loads(answer),
        )
