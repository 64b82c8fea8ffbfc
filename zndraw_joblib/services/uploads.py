"""Uploads files of tasks.

The content goes to a temporary file first and from there to Django's storage. A `FileToDelete` row
stands for the bytes in the storage until the row of the file is there, so that a process that dies
at any moment leaves no bytes that nobody knows of.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

from django.conf import settings as django_settings
from django.db import DatabaseError, InterfaceError, router, transaction

from zndraw_joblib import signals
from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import (
    FieldError,
    FileTooLarge,
    InvalidTaskTransition,
    PreconditionFailed,
    ProblemException,
    StorageUnavailable,
    TooManyFiles,
    ValidationError,
)
from zndraw_joblib.models import FileToDelete, Task, TaskFile
from zndraw_joblib.services.fence import check_writer
from zndraw_joblib.services.files import checked_name, delete_stored
from zndraw_joblib.services.lookup import find_task
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.storage.files import (
    CHUNK_BYTES,
    UPLOAD_TIME,
    ReadFile,
    file_storage,
    new_path,
    renew_attempt,
)
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.text import Message

logger = logging.getLogger(__name__)


class Stream(Protocol):
    """The body of a request."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises OSError if the client is gone."""


@dataclass(frozen=True)
class Upload:
    """A file as a client sends it.

    `length` is the number of bytes that `content` has, None if the client did not say.
    `may_replace` tells whether it may take the place of a file, or of none.
    """

    name: str
    content_type: str
    content: Stream
    length: int | None
    may_replace: Callable[[TaskFile | None], bool] = lambda file: True


def upload(caller: Caller, task_id: UUID, attempt: int, given: Upload) -> tuple[TaskFile, bool]:
    """Store a file of an attempt; returns its row, and whether it is new or replaces another.

    The content goes to a temporary file first. So nothing is stored of one that is cut off, and a
    slow client holds neither a database connection nor one to the storage.

    Raises
    ------
    ValidationError
        The name is not valid, or the content ended early.
    FileTooLarge
        The file has more than `max_file_bytes`.
    TooManyFiles
        The task has `max_files_per_task` files of other names.
    PreconditionFailed
        The attempt's present file of this name is not one that `given` may replace.
    TaskNotFound, Forbidden, LeaseLost, InvalidTaskTransition
        As for a report. The attempt may also be lost while the content arrives.
    StorageUnavailable
        The storage failed.
    """
    name = checked_name(given.name)
    limit = get_settings().max_file_bytes
    if given.length is not None and given.length > limit:
        raise _too_large(limit)
    lease = _Lease(caller, task_id, attempt)
    _check_present_files(task_id, attempt, name, given)
    lease.release()
    with _temporary_file(task_id) as spool:
        size, sha256 = _receive(given, spool, limit, lease.renew_if_due)
        lease.renew()
        content = ReadFile(spool, size, lease.renew_if_due)
        with _stored(content, task_id, attempt) as path:
            using = router.db_for_write(TaskFile)
            with transaction.atomic(using=using):
                lease.renew(files_changed=True)
                _check_present_files(task_id, attempt, name, given)
                files = TaskFile.objects.using(using)
                replaced = files.filter(task=task_id, attempt=attempt, name=name)
                old_paths = list(replaced.values_list("path", flat=True))
                replaced.delete()
                made = files.create(
                    task_id=task_id,
                    attempt=attempt,
                    name=name,
                    size=size,
                    content_type=given.content_type,
                    sha256=sha256,
                    path=path,
                )
                _keep(using, path)
                marked = FileToDelete.objects.using(using)
                marked.mark(old_paths)
                transaction.on_commit(
                    lambda: delete_stored(using, old_paths), using=using, robust=True
                )
    return made, not old_paths


class _Lease:
    """The right to upload files of an attempt; renews the lease of the task.

    Raises
    ------
    TaskNotFound, Forbidden, LeaseLost, InvalidTaskTransition
        The caller may not upload, or the attempt is over; at each renewal.
    """

    def __init__(self, caller: Caller, task_id: UUID, attempt: int) -> None:
        self._caller = caller
        self._task_id = task_id
        self._attempt = attempt
        self.renew()

    def renew(self, *, files_changed: bool = False) -> None:
        """Renew the lease; with `files_changed` in the transaction that changes the files."""
        caller = self._caller
        # Without a read of the task, because nearly every upload is the worker's own.
        renewed = self._renewed(caller.identity, files_changed)
        if renewed is None and caller.is_admin:
            renewed = self._renewed(None, files_changed)
        if renewed is None:
            task = find_task(caller, self._task_id)
            check_writer(caller, task, self._attempt)
            raise InvalidTaskTransition(
                Message("A task that is {status} takes no files.", status=str(task.status))
            )
        if files_changed:
            Task.objects.announce([renewed], signals.task_progressed)
        self._renewed_at = monotonic()

    def _renewed(self, identity: str | None, files_changed: bool) -> TaskRow | None:
        using = Task.objects.write_db
        return renew_attempt(
            using, self._task_id, self._attempt, identity, files_changed=files_changed
        )

    def renew_if_due(self) -> None:
        """Renew the lease if a third of it is over."""
        if monotonic() - self._renewed_at > get_settings().worker_timeout_seconds / 3:
            self.renew()
            self.release()

    def release(self) -> None:
        """Release the database connections of the thread until the next use.

        Not where the site has tenants, because its middleware may have chosen the tenant by a
        statement on this connection.
        """
        if self._caller.tenant is None:
            release_connections()


def _too_large(limit: int) -> FileTooLarge:
    return FileTooLarge(Message("The file must have at most {limit} bytes.", limit=limit))


@contextmanager
def _temporary_file(task_id: UUID) -> Iterator[Any]:
    """A temporary file; raises StorageUnavailable where it cannot be made or written."""
    try:
        with TemporaryFile(dir=django_settings.FILE_UPLOAD_TEMP_DIR) as file:
            yield file
    except OSError as error:
        # Also at its end, which writes what a full disk did not take before.
        logger.exception("could not write to a temporary file", extra={"task_id": str(task_id)})
        raise StorageUnavailable(headers={"Retry-After": "1"}) from error


def _check_present_files(task_id: UUID, attempt: int, name: str, given: Upload) -> None:
    """Raise TooManyFiles or PreconditionFailed if the task's files do not allow the upload.

    Names count, not files, because a further attempt uploads the same names again.
    """
    limit = get_settings().max_files_per_task
    files = TaskFile.objects.using(router.db_for_write(TaskFile))
    present = files.filter(task=task_id, attempt=attempt, name=name)
    if not given.may_replace(present.first()):
        raise PreconditionFailed
    names = files.names(task_id)
    if name not in names and len(names) >= limit:
        raise TooManyFiles(Message("The task has {limit} files, as many as it may.", limit=limit))


def _receive(
    given: Upload, spool: Any, limit: int, on_chunk: Callable[[], None]
) -> tuple[int, str]:
    """Write the content to `spool`; returns its size and its SHA-256 in hexadecimal digits."""
    digest, size = hashlib.sha256(), 0
    while True:
        try:
            part = given.content.read(CHUNK_BYTES)
        except OSError as error:
            raise _ended_early(size) from error
        if not part:
            break
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        digest.update(part)
        spool.write(part)
        on_chunk()
    if given.length is not None and size != given.length:
        raise _ended_early(size)
    return size, digest.hexdigest()


def _ended_early(size: int) -> ValidationError:
    detail = Message("The body ended early, after {size} bytes.", size=size)
    return ValidationError(detail, errors=[FieldError(detail)])


@contextmanager
def _stored(content: ReadFile, task_id: UUID, attempt: int) -> Iterator[str]:
    """Save the content; yields its path. It is deleted again if the block raises."""
    path = new_path(task_id, attempt)
    using = router.db_for_write(FileToDelete)
    marked = FileToDelete.objects.using(using)
    marked.mark([path], UPLOAD_TIME)
    saved = path
    try:
        try:
            content.seek(0)
            saved = file_storage().save(path, content, max_length=255)
        except ProblemException:
            raise
        except Exception as error:
            logger.exception(
                "the storage failed to save %s",
                path,
                extra={"task_id": str(task_id), "attempt": attempt},
            )
            raise StorageUnavailable(headers={"Retry-After": "1"}) from error
        if saved != path:
            # A storage may choose another path.
            marked.mark([saved], UPLOAD_TIME)
            _keep(using, path)
        yield saved
    except BaseException:
        # A database that is away leaves the deletion to the sweeper. Where a commit failed after
        # all was written, the path is marked no more and the bytes are kept.
        with suppress(DatabaseError, InterfaceError):
            if marked.filter(pk=saved).update(due_at=Now()):
                delete_stored(using, [saved])
        raise


def _keep(using: str, path: str) -> None:
    """Do not delete these bytes; raises StorageUnavailable if that happened already."""
    kept, _ = FileToDelete.objects.using(using).filter(pk=path).delete()
    if not kept:
        raise StorageUnavailable(headers={"Retry-After": "1"})
