"""The example site of this project on a database of its own, under several servers."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.stack.processes import (
    ROOT,
    Server,
    clean_environment,
    free_port,
    output_of,
    serving,
)
from tests.deploy.programs import service

WSGI = "joblib-wsgi"


def _option(name: str, flag: str) -> str:
    """The value of a command-line flag in a unit file of docs/deploy."""
    words = service(name)
    return words[words.index(flag) + 1]


#: Threads of one granian worker.
THREADS = int(_option(WSGI, "--blocking-threads"))


@dataclass(frozen=True)
class Site:
    """A configured example site: its database, its Redis and the tokens of its users."""

    name: str
    database_url: str
    redis_url: str
    data_dir: Path
    tokens: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables of this site's processes."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        return clean_environment(
            DATABASE_URL=self.database_url,
            REDIS_URL=self.redis_url,
            DATA_DIR=str(self.data_dir),
            SECRET_KEY="benchmarks",
            DJANGO_SETTINGS_MODULE="example_project.settings",
            PYTHONPATH=str(ROOT),
            PGAPPNAME=self.name,
            **self.extra,
        )

    def headers(self, user: int = 0) -> dict[str, str]:
        """The headers that authenticate a request as one of the users, by number."""
        return {"Authorization": f"Token {self.tokens[user % len(self.tokens)]}"}

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run Python in this site; returns its output.

        Raises
        ------
        BenchError
            The program failed, or took longer than `timeout` seconds.
        """
        command = [sys.executable, *arguments]
        return output_of(str(arguments), command, timeout, self.env)

    def run_child(self, module: str, *arguments: str, timeout: float = 300) -> Any:
        """Run a module of `benchmarks.child` in this site; returns the JSON that it prints last."""
        output = self.run("-m", f"benchmarks.child.{module}", *arguments, timeout=timeout)
        return json.loads(output.strip().splitlines()[-1])

    def migrate(self) -> None:
        """Create the tables."""
        self.run("manage.py", "migrate", "-v0")

    def uvicorn(
        self, workers: int = 1, application: str = "example_project.asgi:application"
    ) -> AbstractContextManager[Server]:
        """The simple deployment, everything on ASGI, by the command of its unit file."""
        port = free_port()
        instead = {
            "8002": str(port),
            # A short graceful shutdown, because no client needs the waits left after a measurement.
            "125": "2",
            "example_project.asgi:application": application,
        }
        command = [sys.executable, *service("joblib-asgi", **instead), "--workers", str(workers)]
        return serving(f"{self.name}-uvicorn-{workers}-{port}", command, port, self.env)

    def granian(self, workers: int = 2) -> AbstractContextManager[Server]:
        """The recommended deployment's server of short requests, by the command of its unit."""
        port = free_port()
        instead = {"8001": str(port), _option(WSGI, "--workers"): str(workers)}
        command = [sys.executable, *service(WSGI, **instead)]
        return serving(f"{self.name}-granian-{workers}-{port}", command, port, self.env)


@contextmanager
def started(*servers: AbstractContextManager[Server]) -> Any:
    """Start servers at the same time; yields them when all of them answer."""
    with ExitStack() as stack:
        running = [stack.enter_context(server) for server in servers]
        yield [server.wait_ready() for server in running]
