"""The example site under ASGI, counting the claims that each process tries in its database.

A claim is one statement that locks a row of the tasks with SKIP LOCKED and changes it. They are
counted by Django's own hook around each statement, so nothing of the project is changed.
``GET /bench/claims`` answers the count of the process that is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from django.db.backends.signals import connection_created

from example_project.asgi import application as site

# `next` is atomic, and threads count at the same time.
_claims = count()
_asked = count()


def _is_claim(sql: Any) -> bool:
    text = str(sql)
    return "SKIP LOCKED" in text and "UPDATE " in text.replace("FOR UPDATE ", "")


def _count(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    if _is_claim(sql):
        next(_claims)
    return execute(sql, params, many, context)


def _watch(connection: Any, **_: Any) -> None:
    if _count not in connection.execute_wrappers:
        connection.execute_wrappers.append(_count)


connection_created.connect(_watch)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer the count, or let the site answer."""
    if scope["type"] == "http" and scope["path"] == "/bench/claims":
        # Reading a `count` takes a step; how often it was read is taken off.
        claims = next(_claims) - next(_asked)
        body = json.dumps({"claims": claims}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await site(scope, receive, send)
