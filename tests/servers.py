"""Server processes on the test database, for tests that need more than one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from django.db import connection

ROOT = Path(__file__).parents[1]


class Address(str):
    """The URL of a server, with its process id and the file of its output."""

    pid: int
    log: Path

    def __new__(cls, url: str, child: Any) -> Address:
        self = super().__new__(cls, url)
        self.pid, self.log = child.pid, child.log
        return self


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**extra: str) -> dict[str, str]:
    """Environment variables of a process that uses the test database and the channel layer."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        url = f"sqlite:///{values['NAME']}"
    else:
        base = os.environ["DATABASE_URL"]
        head, _, query = base.partition("?")
        url = f"{head.rpartition('/')[0]}/{values['NAME']}" + (f"?{query}" if query else "")
    return {**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(ROOT), **extra}


#: Output files of the running processes, by process id.
LOGS: dict[int, Path] = {}


@contextmanager
def process(*command: str, **extra: str) -> Iterator[Any]:
    """Run a Python process and end it at the end; `.log` is the file of its output."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        child: Any = subprocess.Popen(
            [sys.executable, *command],
            env=environment(**extra),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        child.log = LOGS[child.pid] = Path(log.name)
        try:
            yield child
        finally:
            del LOGS[child.pid]
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            # pytest shows it when the test fails.
            print(f"Output of process {child.pid}:\n{child.log.read_text()[-10_000:]}")


#: Options of the ASGI servers, each a module that `python -m` runs.
SERVERS = {
    "uvicorn": ["--log-level", "warning", "--timeout-graceful-shutdown", "3"],
    "granian": ["--log-level", "warning", "--interface", "asginl"],
}


@contextmanager
def server(program: str = "uvicorn", port: str = "", **extra: str) -> Iterator[Address]:
    """Run the example project under an ASGI server; yields its address when it answers."""
    port = port or str(free_port())
    command = [program, "example_project.asgi:application", "--port", port, *SERVERS[program]]
    with process("-m", *command, **extra) as child:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        # Without certificates, because a client loads them for longer than the server answers.
        with httpx.Client(verify=False) as asking:
            while True:
                with suppress(httpx.TransportError):
                    if asking.get(f"{url}/v1/problems/not-found").status_code == 200:
                        break
                assert child.poll() is None, child.log.read_text()
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.05)
        yield Address(url, child)


def until(condition: Any, seconds: float = 20) -> Any:
    """Wait until `condition()` is true; returns its value. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)
    return value
