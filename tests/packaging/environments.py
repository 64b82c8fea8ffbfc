"""Virtual environments of their own, for tests of what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def make_environment(folder: Path, *arguments: str | Path) -> Path:
    """A new virtual environment, after ``pip install`` with these arguments; returns its Python."""
    # Without pip and byte code, because to write both takes longer than to run the tests.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install(python, *arguments)
    return python


def install(python: Path, *arguments: str | Path) -> None:
    """Run ``pip install`` for the environment of an interpreter, by the pip of this one."""
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "install", "--quiet", "--no-compile", *arguments], check=True)
