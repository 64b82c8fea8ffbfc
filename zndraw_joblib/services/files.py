"""Lists, finds and deletes files of tasks.

The bytes are in Django's storage, which has no transactions. A `FileToDelete` row stands for bytes
that no `TaskFile` row has any more, so that a failed deletion is repeated.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import router, transaction

from zndraw_joblib.access import Caller
from zndraw_joblib.exceptions import FieldError, FileNotFound, StorageUnavailable, ValidationError
from zndraw_joblib.models import FileToDelete, TaskFile
from zndraw_joblib.names import file_name_error, nfc
from zndraw_joblib.services.lookup import find_task
from zndraw_joblib.storage.files import StoredPart, file_storage
from zndraw_joblib.text import Message

logger = logging.getLogger(__name__)


def checked_name(name: str) -> str:
    """A file's name in Unicode's form NFC; raises ValidationError if it is not valid."""
    name = nfc(name)
    if error := file_name_error(name):
        detail = Message("The name of a file {error}.", error=error)
        raise ValidationError(detail, errors=[FieldError(detail)])
    return name


def list_files(caller: Caller, task_id: UUID) -> Sequence[TaskFile]:
    """The files of all attempts of a task, by name and attempt.

    Raises
    ------
    TaskNotFound
        The task does not exist, or the caller may not read it.
    """
    find_task(caller, task_id)
    return list(_files().filter(task=task_id).order_by("name", "attempt"))


def find_file(caller: Caller, task_id: UUID, name: str) -> TaskFile:
    """The file of this name that the latest attempt uploaded.

    Raises
    ------
    ValidationError
        No file can have this name.
    TaskNotFound
        The task does not exist, or the caller may not read it.
    FileNotFound
        The task has no such file.
    """
    name = checked_name(name)
    find_task(caller, task_id)
    found: TaskFile | None = _files().of_latest_attempt(task_id, name)
    if found is None:
        raise FileNotFound
    return found


def open_part(file: TaskFile, start: int, length: int) -> StoredPart:
    """The bytes of a file from `start` on.

    Raises
    ------
    FileNotFound
        The file was replaced or deleted since its row was read, or the storage has lost it.
    StorageUnavailable
        The storage failed.
    """
    try:
        return StoredPart(file.path, start, length)
    except FileNotFoundError as error:
        now = _files().filter(pk=file.pk).exists()
        if not now:
            # The bytes of a replaced file are gone; another request gets the new ones.
            raise StorageUnavailable(headers={"Retry-After": "1"}) from error
        logger.error(
            "the storage has lost %s, a file of task %s",
            file.path,
            file.task_id,
            extra={"task_id": str(file.task_id), "attempt": file.attempt},
        )
        raise FileNotFound from error
    except Exception as error:
        logger.exception(
            "the storage failed to open %s of task %s",
            file.path,
            file.task_id,
            extra={"task_id": str(file.task_id), "attempt": file.attempt},
        )
        raise StorageUnavailable(headers={"Retry-After": "1"}) from error


def delete_files_of(task_ids: Iterable[UUID], using: str | None = None) -> int:
    """Delete the rows of these tasks' files, and have the bytes deleted; returns how many.

    Call it in the transaction that deletes the tasks, and `delete_marked_files` after the commit.
    """
    using = using or router.db_for_write(TaskFile)
    with transaction.atomic(using=using):
        files = TaskFile.objects.using(using).filter(task__in=list(task_ids))
        paths = dict(files.order_by().values_list("pk", "path"))
        FileToDelete.objects.using(using).mark(paths.values())
        TaskFile.objects.using(using).filter(pk__in=list(paths)).delete()
    return len(paths)


def delete_marked_files(using: str | None = None, seconds: float = math.inf) -> int:
    """Delete bytes that are marked for deletion and due; returns of how many files.

    It stops after so many `seconds`. If the storage is away they stay marked, and a later sweep
    tries again.
    """
    using = using or router.db_for_write(FileToDelete)
    until = monotonic() + seconds
    deleted = 0
    while paths := FileToDelete.objects.using(using).take():
        # In any order, because a path that fails each time must not keep others from their turn.
        random.shuffle(paths)
        done = delete_stored(using, paths, until)
        deleted += done
        if done < len(paths):
            break
    return deleted


def _files() -> Any:
    return TaskFile.objects.using(router.db_for_write(TaskFile))


def delete_stored(using: str, paths: Sequence[str], until: float = math.inf) -> int:
    """Delete the bytes at these marked paths, up to the first failure; returns how many.

    It stops at the monotonic time `until`.

    A failure is logged and leaves the rest to the sweeper, because a storage that is away may take
    a minute to say so.
    """
    deleted = []
    for path in paths:
        if monotonic() > until:
            break
        try:
            # Some storages raise where the bytes of an upload that failed never arrived.
            with suppress(FileNotFoundError):
                file_storage().delete(path)
        except Exception as error:
            logger.warning(
                "the storage failed to delete %s; the sweeper tries again: %r", path, error
            )
            break
        deleted.append(path)
    FileToDelete.objects.using(using).filter(pk__in=deleted).delete()
    return len(deleted)
