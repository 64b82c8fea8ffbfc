"""The FastAPI original, in an environment of its own because its package has the same name."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.stack.processes import (
    ROOT,
    SCRATCH,
    Server,
    clean_environment,
    free_port,
    output_of,
    serving,
)

ENVIRONMENT = SCRATCH / "original"
PYTHON = ENVIRONMENT / "bin" / "python"
SOURCES = ROOT / "benchmarks" / "original"
#: The original fails with newer SQLAlchemy. uvicorn has the extras that this project's has too.
REQUIREMENTS = (
    "zndraw-joblib==0.1.7",
    "sqlalchemy<2.1",
    "uvicorn[standard]",
    "aiosqlite",
    "asyncpg",
)


def ensure() -> None:
    """Create the environment unless it exists; takes a minute."""
    done = ENVIRONMENT / "installed.json"
    if done.exists() and json.loads(done.read_text()) == list(REQUIREMENTS):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([str(PYTHON), *install, *REQUIREMENTS], check=True)
    done.write_text(json.dumps(REQUIREMENTS))


def versions() -> dict[str, str]:
    """Versions of the installed distributions, by name."""
    names = ["zndraw-joblib", "fastapi", "uvicorn", "sqlalchemy", "asyncpg", "aiosqlite"]
    code = (
        "import json, sys; from importlib.metadata import version;"
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    done = subprocess.run([str(PYTHON), "-c", code, *names], capture_output=True, check=True)
    return dict(json.loads(done.stdout))


@dataclass(frozen=True)
class OriginalSite:
    """The original on a database of its own; `database_url` is in SQLAlchemy's form.

    `lock` serializes its sessions, which its README asks of a host with SQLite.
    """

    name: str
    database_url: str
    lock: bool = False

    @property
    def env(self) -> dict[str, str]:
        """Environment variables of its processes; `PYTHONPATH` does not lead to this project."""
        lock = {"SESSION_LOCK": "1"} if self.lock else {}
        return clean_environment(DATABASE_URL=self.database_url, **lock)

    def headers(self, user: int = 0) -> dict[str, str]:
        """No headers, because every caller is its only user."""
        return {}

    def prepare(self, jobs: int) -> None:
        """Create the tables, the user and `jobs` jobs."""
        self.run("original_app.py", str(jobs))

    def run(self, script: str, *arguments: str, timeout: float = 300) -> Any:
        """Run a script of `benchmarks/original` for this site; returns the JSON that it prints.

        Raises
        ------
        BenchError
            The script failed, or took longer than `timeout` seconds.
        """
        command = [str(PYTHON), str(SOURCES / script), *arguments]
        lines = output_of(script, command, timeout, self.env, SCRATCH).strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    def uvicorn(self, workers: int = 1) -> AbstractContextManager[Server]:
        """Serve the site with uvicorn."""
        port = free_port()
        command = [
            *(str(PYTHON), "-m", "uvicorn", "original_app:app", "--app-dir", str(SOURCES)),
            *("--port", str(port), "--workers", str(workers)),
            *("--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "2"),
        ]
        return serving(f"{self.name}-{workers}-{port}", command, port, self.env, SCRATCH)
