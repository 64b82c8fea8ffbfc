"""The example site under ASGI, counting the claims that each process tries in its database.

A claim is one statement, and `zndraw_joblib.statements.claim` is what executes it: that function is
wrapped, and nothing else of the project is changed. ``GET /bench/claims`` answers the count of the
process that is asked.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from example_project.asgi import application as site
from zndraw_joblib import statements

# `next` is atomic, and threads count at the same time.
_claims = count()
_asked = count()
_claim = statements.claim


def _counted(*args: Any, **kwargs: Any) -> Any:
    next(_claims)
    return _claim(*args, **kwargs)


statements.claim = _counted


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
