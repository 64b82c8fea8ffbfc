"""Files of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zndraw_joblib.client.api import ApiManager


def files(api: ApiManager, task_id: str) -> list[Any]:
    """The files of a task."""
    raise NotImplementedError


def download(api: ApiManager, task_id: str, name: str, to: Path | str | None = None) -> Any:
    """Download a file."""
    raise NotImplementedError
