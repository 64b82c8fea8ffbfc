"""System checks of the storage that has the files of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import FileSystemStorage

from zndraw_joblib.storage.files import file_storage


@register(Tags.files)
def check_storage(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E019: the storage of files can be made."""
    try:
        file_storage()
    except Exception as error:
        return [
            Error(
                f"The storage of the tasks' files cannot be made: {error!r}",
                hint='Correct STORAGES["zndraw_joblib"], or STORAGES["default"] without it.',
                id="zndraw_joblib.E019",
            )
        ]
    return []


@register(Tags.files, deploy=True)
def check_storage_folder(
    app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W010: files are not stored in the folder in which the server was started."""
    try:
        storage = file_storage()
    except Exception:
        return []  # E019 says so.
    if isinstance(storage, FileSystemStorage) and not storage.base_location:
        return [
            Warning(
                "Files of tasks are stored in the folder in which the server was started, because "
                "MEDIA_ROOT is not set.",
                hint='Set STORAGES["zndraw_joblib"], or MEDIA_ROOT to an absolute path.',
                id="zndraw_joblib.W010",
            )
        ]
    return []
