"""The system's nginx and pgbouncer, and the services of docs/deploy as its files describe them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).parents[2] / "docs" / "deploy"


def program(name: str, package: str, mark: str = "deploy") -> str:
    """Path of a system program; where it is missing and the user is root, apt installs it.

    `mark` is the marker of the tests that need it.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = shutil.which(name, path=path)
    apt = shutil.which("apt-get", path=path)
    if not found and apt and os.geteuid() == 0:
        # Another run level than the current one keeps apt from starting the service.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            done = subprocess.run(
                [apt, "-qq", "-o", "DPkg::Lock::Timeout=60", *command],
                env=environment,
                capture_output=True,
                text=True,
            )
        if done.returncode:
            pytest.fail(f"apt-get install {package}: {done.stdout}{done.stderr}", pytrace=False)
        found = shutil.which(name, path=path)
    if not found:
        pytest.fail(
            f"{name} is missing. Install it (apt-get install {package}), or skip these tests "
            f'with -m "not {mark}".',
            pytrace=False,
        )
    return found


def service(name: str, **instead: str) -> list[str]:
    """The command of a unit file as arguments of `python`, with the words `instead` replaced."""
    unit = (FILES / f"{name}.service").read_text().replace("\\\n", " ")
    line = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    start, *words = shlex.split(line.removeprefix("ExecStart="))
    start = Path(start).name
    for old, new in instead.items():
        assert words.count(old) == 1, (old, words)
        words[words.index(old)] = new
    return words if start == "python" else ["-m", start, *words]
