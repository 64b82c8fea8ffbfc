from __future__ import annotations

import threading

import httpx
import pytest

from tests.client.stand_in import Rotate, Server
from zndraw_joblib.client import Api, JobManager


@pytest.fixture
def server():
    stand_in = Server()
    yield stand_in
    stand_in.release()


@pytest.fixture
def manager(server):
    Rotate.ran.clear()
    transport = httpx.MockTransport(server)
    return JobManager(Api("http://x/", "secret", transport=transport), heartbeat_interval=0.02)


@pytest.fixture
def running(server, manager):
    """A function that runs `manager.serve` in a thread, which is stopped at the end."""
    threads = []

    def begin(execute=None, **options):
        manager.register(Rotate)
        thread = threading.Thread(
            target=manager.serve, args=(execute,), kwargs=options, daemon=True
        )
        threads.append(thread)
        thread.start()
        return thread

    yield begin
    manager.stop()
    server.release()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
