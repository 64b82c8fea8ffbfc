"""The machine and the versions that the figures were measured with."""

from __future__ import annotations

import os
import platform
import shlex
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.stack import original
from benchmarks.stack.postgres import Postgres
from tests.deploy.programs import service

OURS = ("Django", "djangorestframework", "channels", "psycopg", "orjson", "uvicorn", "granian")


def facts(postgres: Postgres) -> dict[str, str]:
    """Facts of the machine and the software, by their names in the report."""
    settings = postgres.settings()
    server = settings.pop("server_version")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{os.cpu_count()} cores, {_cpu_model()}; servers, databases and driver share them",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load before the run (1, 5, 15 min)": load,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "this project's": ", ".join(f"{name} {_version(name)}" for name in OURS),
        "the original's": ", ".join(
            f"{name} {number}" for name, number in original.versions().items()
        ),
        "granian": f"`{shlex.join(service('joblib-wsgi')[1:])}`",
        "uvicorn": f"`{shlex.join(service('joblib-asgi')[1:])}`",
        "PostgreSQL": f"{server}; "
        + ", ".join(f"{name} {value}" for name, value in settings.items()),
        "SQLite": sqlite3.sqlite_version,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
