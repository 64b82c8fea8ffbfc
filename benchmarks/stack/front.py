"""nginx in front of a server, configured by docs/deploy as in the tests of the deployment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from benchmarks.stack.processes import Server
from tests.deploy.site import nginx


@contextmanager
def behind_nginx(server: Server, waits: Server | None = None) -> Iterator[Server | None]:
    """The same server behind nginx; None where nginx is missing and cannot be installed.

    Requests that wait go to the server `waits`, if it is given.
    """
    with ExitStack() as stack:
        try:
            front = stack.enter_context(nginx(server.port, (waits or server).port))
        except pytest.fail.Exception:
            yield None
        else:
            yield replace(server, name="nginx", port=int(front.url.rpartition(":")[2]))
