"""A WebSocket through a real server."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers import server

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_socket_receives_an_end_caused_by_another_request(bob):
    bob.register()
    task_id = bob.submit().json()["id"]
    with server() as url:
        base = url.replace("http", "ws") + "/ws/v1/joblib"
        token = ["token", bob.token]
        with (
            connect(f"{base}/tasks/{task_id}/", subprotocols=token) as task,
            connect(f"{base}/rooms/open/", subprotocols=token) as room,
            connect(f"{base}/rooms/open/") as nobody,
        ):
            with pytest.raises(ConnectionClosed) as closed:
                nobody.recv(timeout=10)
            assert closed.value.rcvd.code == 4401
            bob.report(task_id, "cancelled")
            assert json.loads(task.recv(timeout=20))["status"] == "cancelled"
            assert json.loads(room.recv(timeout=20))["id"] == task_id
            with pytest.raises(ConnectionClosed) as closed:
                task.recv(timeout=10)
            assert closed.value.rcvd.code == 1000


def test_an_unknown_address_is_no_error_of_the_server():
    with server() as url:
        for path in ("/", "/v1/joblib/workers", "/ws/v1/joblib/x/"):
            with connect(url.replace("http", "ws") + path) as nowhere:
                with pytest.raises(ConnectionClosed) as closed:
                    nowhere.recv(timeout=10)
                assert closed.value.rcvd.code == 4404
        assert "Traceback" not in url.log.read_text()
