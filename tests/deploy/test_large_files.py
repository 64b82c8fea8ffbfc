"""Uploads and downloads of large files: neither server nor client has the whole in memory.

The size is 64 MiB, or as many as the environment variable JOBLIB_LARGE_FILE_MIB says: 1024 for the
figures of docs/how-to/files.md.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.site import listens
from tests.factories import V1, Person
from tests.servers import ROOT, free_port, process, until
from zndraw_joblib.client import Api
from zndraw_joblib.client.files import download, upload
from zndraw_joblib.models import TaskFile

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.any_database,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]

MEBIBYTE = 2**20
SIZE = int(os.environ.get("JOBLIB_LARGE_FILE_MIB", "64")) * MEBIBYTE
#: Mebibytes by which the memory of a process may grow. A whole file in memory is more.
MOST_GROWTH = 24

SERVERS = {
    "granian, WSGI": ["granian", "--interface", "wsgi", "example_project.wsgi:application"],
    "granian, lane": ["granian", "--interface", "asginl", "example_project.asgi:application"],
    "uvicorn, lane": ["uvicorn", "example_project.asgi:application"],
    "uvicorn, Django alone": ["uvicorn", "tests.deploy.plain:application"],
}


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in descendants(int(child)))]


def peak(pid: int) -> float:
    """The most mebibytes that a process had in memory so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cut_off(port: int, person: Person, task: str) -> None:
    """Upload halves of files over connections that are closed, or reset, in the middle."""
    head = (
        f"PUT {V1}/tasks/{task}/files/half?attempt=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Token {person.token}\r\n"
    )
    bodies = ["Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n186a0\r\n"]
    for body in bodies:
        for reset in (False, True):
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(f"{head}{body}".encode() + b"x" * 100_000 + b"\r\n")
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize("name", SERVERS)
def test_a_large_file_goes_up_and_down_with_flat_memory_and_half_a_one_leaves_nothing(
    name, alice, bob, tmp_path
):
    worker = bob.worker()
    bob.register(worker_id=worker)
    task = alice.submit().json()["id"]
    bob.claim(worker)
    port = free_port()
    command = [*SERVERS[name], "--port", str(port), "--log-level", "warning"]
    more = {"ZNDRAW_JOBLIB_MAX_FILE_BYTES": str(SIZE), "DATA_DIR": str(tmp_path)}
    with process("-m", *command, **more) as child:
        until(lambda: child.poll() is not None or listens(port))
        address = f"http://127.0.0.1:{port}"

        cut_off(port, bob, task)
        # The first one also loads what a server needs for each.
        with Api(address, bob.token) as api:
            upload(api, task, 1, b"x" * MEBIBYTE, "large")
            assert download(api, task, "large") == b"x" * MEBIBYTE
        before = {pid: peak(pid) for pid in descendants(child.pid)}
        arguments = [address, bob.token, task, str(SIZE)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.deploy.large_client", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        after = {pid: peak(pid) for pid in before}
    print(f"{name}, {SIZE // MEBIBYTE} MiB: {report}, server {before} -> {after}")
    assert len([path for path in (tmp_path / "media").rglob("*") if path.is_file()]) == 1
    assert TaskFile.objects.get().name == "large"
    assert report["mebibytes"] - report["mebibytes_before"] < MOST_GROWTH
    assert max(after[pid] - before[pid] for pid in before) < MOST_GROWTH
