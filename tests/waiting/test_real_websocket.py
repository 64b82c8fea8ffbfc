"""WebSockets through a server process.

Control: under granian these tests failed when the consumer closed beside a pending `receive`.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from itertools import islice

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers import SERVERS, server

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module", params=SERVERS)
def url(request, django_db_setup, django_db_blocker):
    """The address of a server, which no test changes."""
    with django_db_blocker.unblock(), server(request.param) as address:
        yield address


def test_a_socket_receives_an_end_caused_by_another_request(bob, url):
    bob.register()
    task_id = bob.submit().json()["id"]
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


def test_a_socket_to_an_unknown_path_is_closed_without_an_error_in_the_log(url):
    for path in ("/", "/v1/joblib/workers", "/ws/v1/joblib/x/"):
        with connect(url.replace("http", "ws") + path) as unknown:
            with pytest.raises(ConnectionClosed) as closed:
                unknown.recv(timeout=10)
            assert closed.value.rcvd.code == 4404
    assert "Traceback" not in url.log.read_text()


@pytest.mark.parametrize("program", SERVERS)
def test_a_client_resumes_the_events_of_a_room_after_the_server_was_restarted(bob, program):
    bob.register()
    task_id = bob.submit().json()["id"]
    path = "/ws/v1/joblib/rooms/open/events/"
    token = ["token", bob.token]
    with ExitStack() as stack:
        with server(program) as url:
            address = url.replace("http", "ws") + path
            before = stack.enter_context(connect(address, subprotocols=token))
            cursor = json.loads(before.recv(timeout=20))["cursor"]
        with suppress(ConnectionClosed):
            while before.recv(timeout=10):
                pass
    bob.report(task_id, "cancelled")
    with server(program) as url:
        address = f"{url.replace('http', 'ws')}{path}?cursor={cursor}"
        with connect(address, subprotocols=token) as after:
            assert json.loads(after.recv(timeout=20)) == {"type": "ready", "cursor": cursor}
            task = json.loads(after.recv(timeout=20))["task"]
            assert (task["id"], task["status"]) == (task_id, "cancelled")


def test_events_are_streamed_as_they_come(bob, url):
    bob.register()
    headers = {"Authorization": f"Token {bob.token}"}
    with httpx.stream("GET", f"{url}/v1/joblib/rooms/open/events", headers=headers) as answer:
        lines = answer.iter_lines()
        assert "event: ready" in islice(lines, 10)
        task_id = bob.submit().json()["id"]
        data = next(line for line in lines if line.startswith('data: {"type":"task"'))
        assert json.loads(data.removeprefix("data: "))["task"]["id"] == task_id
