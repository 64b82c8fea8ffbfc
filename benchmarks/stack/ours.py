"""Our project: the example site on a database of its own, under several servers."""

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
    """What a unit file of docs/deploy gives a flag."""
    words = service(name)
    return words[words.index(flag) + 1]


#: Of one of granian's workers.
THREADS = int(_option(WSGI, "--blocking-threads"))


@dataclass(frozen=True)
class Site:
    """A configured example site: its database, its Redis and who may log in."""

    name: str
    database_url: str
    redis_url: str
    data_dir: Path
    tokens: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process of this site."""
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
        """What makes a request that user's."""
        return {"Authorization": f"Token {self.tokens[user % len(self.tokens)]}"}

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run Python in this site; returns its output.

        Raises
        ------
        BenchError
            It failed, or took longer than `timeout` seconds.
        """
        command = [sys.executable, *arguments]
        return output_of(str(arguments), command, timeout, self.env)

    def ask(self, module: str, *arguments: str, timeout: float = 300) -> Any:
        """Run one of `benchmarks.child` in this site; returns the JSON that it prints last."""
        output = self.run("-m", f"benchmarks.child.{module}", *arguments, timeout=timeout)
        return json.loads(output.strip().splitlines()[-1])

    def migrate(self) -> None:
        """Make the tables."""
        self.run("manage.py", "migrate", "-v0")

    def uvicorn(
        self, workers: int = 1, application: str = "example_project.asgi:application"
    ) -> AbstractContextManager[Server]:
        """The simple deployment, everything on ASGI, by the command of its unit file."""
        port = free_port()
        instead = {
            "8002": str(port),
            # What still waits when a measurement is over is nobody's.
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
    """Start servers side by side; gives them when all answer."""
    with ExitStack() as stack:
        running = [stack.enter_context(server) for server in servers]
        yield [server.wait_ready() for server in running]
