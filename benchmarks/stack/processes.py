"""Starts and stops the processes of a benchmark and reads their output."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
#: Folder of all files that a run leaves behind, except the report of a full run.
SCRATCH = ROOT / ".bench"
#: Seconds until a started server must answer, and until a terminated one must have ended.
START_TIMEOUT, STOP_TIMEOUT = 60.0, 15.0


class BenchError(Exception):
    """A measurement failed; the text gives the reason."""


@dataclass(frozen=True)
class Server:
    """A server that listens on the loopback address."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def wait_ready(self) -> Server:
        """Return when the server answers HTTP.

        Raises
        ------
        BenchError
            The server ended, or did not answer within `START_TIMEOUT`.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                probe.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                if probe.recv(1):
                    return self
            time.sleep(0.05)
        raise BenchError(f"{self.name} did not start: {self.log.read_text()[-2000:]}")


def output_of(
    name: str,
    command: Sequence[str],
    timeout: float,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    input: str | None = None,
) -> str:
    """Run a command to its end; returns its standard output.

    Raises
    ------
    BenchError
        The command failed, or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            input=input,
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{name} failed: {error.stderr[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{name} took longer than {timeout:.0f} s") from error
    return done.stdout


def free_port() -> int:
    """A TCP port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    port: int,
    env: Mapping[str, str],
    cwd: Path = ROOT,
) -> Iterator[Server]:
    """Run a server, and stop it and its workers at the end. Call `wait_ready` before use."""
    logs = SCRATCH / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            list(command), env=dict(env), cwd=cwd, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Server(name, port, child, log)
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants."""
    descendants: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        descendants = psutil.Process(child.pid).children(recursive=True)
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    _, alive = psutil.wait_procs(descendants, timeout=3)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def clean_environment(**extra: str) -> dict[str, str]:
    """The current environment variables without those that configure the project, plus `extra`."""
    ours = ("ZNDRAW_", "DATABASE_URL", "REDIS_URL", "DJANGO_", "THROTTLE_", "PYTHON", "DATA_DIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **extra}
