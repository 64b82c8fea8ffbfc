"""WebSockets through a server process.

Control: under granian these tests failed when the consumer closed beside a pending `receive`.
"""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers import SERVERS, server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("program", SERVERS),
]


def test_a_socket_receives_an_end_caused_by_another_request(bob, program):
    bob.register()
    task_id = bob.submit().json()["id"]
    with server(program) as url:
        base = url.replace("http", "ws") + "/ws/v1/joblib"
        token = ["token", bob.token]
        with (
            connect(f"{base}/tasks/{task_id}/", subprotocols=token) as task,
            connect(f"{base}/rooms/open/", subprotocols=token) as room,
            connect(f"{base}/rooms/open/") as anonymous,
        ):
            with pytest.raises(ConnectionClosed) as closed:
                anonymous.recv(timeout=10)
            assert closed.value.rcvd.code == 4401
            bob.report(task_id, "cancelled")
            assert json.loads(task.recv(timeout=20))["status"] == "cancelled"
            assert json.loads(room.recv(timeout=20))["id"] == task_id
            with pytest.raises(ConnectionClosed) as closed:
                task.recv(timeout=10)
            assert closed.value.rcvd.code == 1000


def test_a_socket_to_an_unknown_path_is_closed_without_an_error_in_the_log(program):
    with server(program) as url:
        for path in ("/", "/v1/joblib/workers", "/ws/v1/joblib/x/"):
            with connect(url.replace("http", "ws") + path) as unknown:
                with pytest.raises(ConnectionClosed) as closed:
                    unknown.recv(timeout=10)
                assert closed.value.rcvd.code == 4404
        assert "Traceback" not in url.log.read_text()
