"""Storages of sites, for the tests of files."""

from __future__ import annotations

import io
from typing import Any

from django.core.files import File
from django.core.files.storage import FileSystemStorage


class OneWay(File):
    """A file that can be read but has no positions, as a response of HTTP."""

    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation("seek")


class Local(FileSystemStorage):
    """A folder, whose files may be read one way only."""

    can_seek = True

    def _open(self, name: str, mode: str = "rb") -> Any:
        parent: Any = super()
        opened: Any = parent._open(name, mode)
        return opened if self.can_seek else OneWay(opened.file)
