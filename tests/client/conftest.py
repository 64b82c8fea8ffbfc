from __future__ import annotations

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
