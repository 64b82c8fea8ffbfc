"""The log of a process of a soak, in a file outside the database."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any


class Log:
    """The events of one process, each a line that is written by one system call.

    So a killed process leaves no partial line.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / f"{name}.jsonl", flags, 0o600)
        self._numbers = count()

    def __call__(self, event: str, **fields: Any) -> None:
        line = json.dumps({"t": time.monotonic(), "e": event, **fields})
        os.write(self._file, f"{line}\n".encode())

    def number(self) -> str:
        """A unique id for an event."""
        return f"{self.name}/{next(self._numbers)}"
