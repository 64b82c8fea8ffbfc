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
    # By the pip of this interpreter.
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    options = ["--disable-pip-version-check", "--quiet", "--no-compile"]
    subprocess.run([*pip, "install", *options, *arguments], check=True)
    return python
