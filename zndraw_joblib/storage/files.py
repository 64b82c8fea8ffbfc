"""Files of tasks: their rows, and their bytes in Django's storage."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.files import File
from django.core.files.storage import Storage, storages
from django.db import models, transaction

from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage import statements
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.locking import lock_batch
from zndraw_joblib.storage.rows import TaskRow, task_rows

#: The storage of a host that has one for these files alone; others have `default`.
ALIAS = "zndraw_joblib"
#: Bytes that are read, sent or written at a time.
CHUNK_BYTES = 262_144
#: Time that an upload has for writing to the storage; the sweeper deletes its bytes afterwards.
UPLOAD_TIME = timedelta(days=1)
#: The time after which a failed deletion is tried again.
RETRY_TIME = timedelta(minutes=5)


def file_storage() -> Storage:
    """The storage with the alias `zndraw_joblib` of the setting `STORAGES`, else `default`."""
    return storages[ALIAS if ALIAS in storages.backends else "default"]


def new_path(task_id: UUID, attempt: int) -> str:
    """A path for the bytes of a new file.

    Contains nothing of the name that the client gave, because a storage may give some names a
    meaning (folders, drives, suffixes). Spreads over 256 folders, because some file systems are
    slow with many files in one.
    """
    token = secrets.token_hex(16)
    return f"{ALIAS}/{token[:2]}/{task_id}-{attempt}-{token}"


def renew_attempt(
    using: str, task_id: UUID, attempt: int, identity: str | None, *, files_changed: bool = False
) -> TaskRow | None:
    """Renew the lease of a claimed or running attempt, as a heartbeat of its worker.

    With an `identity` only an attempt of its workers. `files_changed` is true in the transaction
    that changes the files of the task; its row is locked until the commit. Returns None if the
    attempt is not under way.
    """
    renewed = statements.run(
        using,
        "renew_attempt",
        id=task_id,
        attempt=attempt,
        identity=identity,
        lease_seconds=get_settings().worker_timeout_seconds,
        changes=int(files_changed),
    )
    task = next(iter(task_rows(using, renewed)), None)
    if task is not None and task.worker_id:
        statements.run(using, "touch_workers", worker_ids=[task.worker_id])
    return task


class StoredPart(Iterator[bytes]):
    """`length` bytes of a stored file from `start` on, in chunks; `close` closes the file.

    Raises
    ------
    FileNotFoundError
        The storage has no such file.
    Exception
        The storage cannot be reached; which class depends on the storage.
    """

    def __init__(self, path: str, start: int, length: int) -> None:
        self._file: Any = file_storage().open(path, "rb")
        self._left = length
        try:
            self._skip(start)
            # The first chunk at once, because a storage may find out only now that the file is
            # missing or that it cannot be reached.
            self._first = self._read()
        except BaseException:
            self._file.close()
            raise

    def __next__(self) -> bytes:
        part, self._first = self._first or self._read(), b""
        if not part:
            raise StopIteration
        return part

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> bytes:
        part: bytes = self._file.read(min(CHUNK_BYTES, self._left)) if self._left else b""
        self._left -= len(part)
        return part

    def _skip(self, number: int) -> None:
        """Go to a place in the file; by reading, where a storage cannot seek."""
        if not number:
            return
        try:
            self._file.seek(number)
        except (AttributeError, NotImplementedError, OSError):
            while number and (part := self._file.read(min(CHUNK_BYTES, number))):
                number -= len(part)


class ReadFile(File):  # type: ignore[type-arg]
    """A file that a storage reads to save it; calls `on_chunk` at each chunk."""

    def __init__(self, file: Any, size: int, on_chunk: Any) -> None:
        super().__init__(file, name="upload")
        self.size = size
        self._on_chunk = on_chunk

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The content in chunks."""
        for part in super().chunks(chunk_size):
            self._on_chunk()
            yield part


class TaskFileQuerySet(models.QuerySet[Any]):
    """Queries over the files of tasks."""

    def of_latest_attempt(self, task_id: UUID, name: str) -> Any:
        """The file of this name that the latest attempt uploaded; None without one."""
        return self.filter(task=task_id, name=name).order_by("-attempt").first()

    def names(self, task_id: UUID) -> set[str]:
        """The names of a task's files."""
        return set(self.filter(task=task_id).order_by().values_list("name", flat=True).distinct())


class FileToDeleteQuerySet(models.QuerySet[Any]):
    """Verbs over paths whose bytes are to be deleted."""

    def mark(self, paths: Iterable[str], delay: timedelta = timedelta(0)) -> None:
        """Have the bytes at these paths deleted, after `delay`."""
        due = Now() + delay
        self.bulk_create(
            [self.model(path=path, due_at=due) for path in paths],
            update_conflicts=True,
            unique_fields=["path"],
            update_fields=["due_at"],
        )

    def take(self) -> list[str]:
        """Up to `BATCH` paths that are due; others get them only after `RETRY_TIME`."""
        due = self.filter(due_at__lte=Now())
        with transaction.atomic(using=self.db):
            paths = lock_batch(due)
            if paths:
                # The condition is repeated, because a path may have been taken before the lock.
                taken = list(due.filter(pk__in=paths).values_list("pk", flat=True))
                self.filter(pk__in=taken).update(due_at=Now() + RETRY_TIME)
                return taken
        return []


class TaskFileManager(models.Manager.from_queryset(TaskFileQuerySet)):  # type: ignore[misc]
    """Queries over the files of tasks."""


class FileToDeleteManager(models.Manager.from_queryset(FileToDeleteQuerySet)):  # type: ignore[misc]
    """Verbs over paths whose bytes are to be deleted."""
