"""Celery and procrastinate, in an environment of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.stack.processes import (
    ROOT,
    SCRATCH,
    Server,
    clean_environment,
    output_of,
    serving,
)

ENVIRONMENT = SCRATCH / "queues"
PYTHON = ENVIRONMENT / "bin" / "python"
SOURCES = ROOT / "benchmarks" / "queues"
REQUIREMENTS = ("celery[redis]==5.7.0", "procrastinate==3.10.0", "psycopg[binary,pool]>=3.3,<4")


def ensure() -> None:
    """Create the environment unless it exists; takes half a minute."""
    done = ENVIRONMENT / "installed.json"
    if done.exists() and json.loads(done.read_text()) == list(REQUIREMENTS):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([str(PYTHON), *install, *REQUIREMENTS], check=True)
    done.write_text(json.dumps(REQUIREMENTS))


@dataclass(frozen=True)
class Queue:
    """A task queue: the arguments of its worker, its script that submits, and its environment."""

    name: str
    worker: tuple[str, ...]
    script: str
    env: Mapping[str, str]

    def work(self) -> AbstractContextManager[Server]:
        """Run a worker of four; it listens on no port."""
        command = [str(PYTHON), *self.worker]
        return serving(f"{self.name}-worker", command, 0, self.env, SOURCES)

    def submit(self, count: int) -> dict[str, Any]:
        """Submit tasks and wait for their ends; returns the figures that the script prints."""
        command = [str(PYTHON), self.script, str(count)]
        output = output_of(self.script, command, 300, self.env, SOURCES)
        return dict(json.loads(output.strip().splitlines()[-1]))


def celery(redis_url: str) -> Queue:
    """Celery with four processes."""
    worker = ("-m", "celery", "-A", "celery_app", "worker", "-P", "prefork", "-c", "4")
    env = clean_environment(REDIS_URL=redis_url)
    return Queue("celery", (*worker, "-l", "warning"), "celery_app.py", env)


def procrastinate(database_url: str) -> Queue:
    """The queue procrastinate, whose worker runs four tasks at once."""
    env = clean_environment(DATABASE_URL=database_url)
    return Queue("procrastinate", ("procrastinate_app.py", "worker"), "procrastinate_app.py", env)
