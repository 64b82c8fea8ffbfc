"""Uploads files of tasks."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from zndraw_joblib.client.api import ApiManager

#: What `upload` takes.
Source = str | os.PathLike[str] | bytes | BinaryIO


def upload(
    api: ApiManager,
    task_id: str,
    attempt: int,
    source: Source,
    name: str | None = None,
    *,
    content_type: str | None = None,
) -> dict[str, Any]:
    """Upload a file of an attempt, or replace it."""
    raise NotImplementedError
