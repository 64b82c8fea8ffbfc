"""For WSGI servers: everything but waiting and WebSockets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def drained(application: Application, chunks: int = 32) -> Application:
    """Read what an answer left of its request's body, up to so many chunks of 64 KiB.

    An answer such as 401 needs no body. A server that has not read all of it closes the
    connection, and a proxy that is still sending then sees the connection break, not the answer.
    """

    def wrapper(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer = application(environ, start_response)
        if environ.get("CONTENT_LENGTH") not in {None, "", "0"}:
            # A client that is gone needs no answer, but the answer must be closed.
            with suppress(OSError):
                for _ in range(chunks):
                    if not environ["wsgi.input"].read(65536):
                        break
        return answer

    return wrapper


application = drained(get_wsgi_application())
