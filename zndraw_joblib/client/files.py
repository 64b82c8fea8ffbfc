"""Uploads, lists and downloads files of tasks, a chunk at a time."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, BinaryIO, TypeVar, overload

import httpx

from zndraw_joblib.client.api import ApiManager, open_stream, path, send
from zndraw_joblib.client.exceptions import ApiError, UnexpectedAnswerError
from zndraw_joblib.client.retry import REPEATABLE, OutageLog, Retry
from zndraw_joblib.names import file_name_error, nfc

P = TypeVar("P", bound=PurePath)

#: A file to upload.
Source = str | os.PathLike[str] | bytes | BinaryIO

#: Seconds that the server may take for the next chunk of a download, or to store an upload.
TIMEOUT = 120.0
CHUNK_BYTES = 262_144
#: The `ETag` of a file, its SHA-256.
_ETAG = re.compile(r'(?:W/)?"(?P<sha256>[0-9a-f]{64})')
_CONTENT_RANGE = re.compile(r"bytes (?P<first>[0-9]+)-")


class Content:
    """The content of an upload, which may be sent several times.

    Parameters
    ----------
    source
        A path, bytes, or a file that is open for reading in binary mode. A file is sent from its
        present position on; one that cannot seek is copied to a temporary file first.

    Raises
    ------
    OSError
        The file cannot be read.
    TypeError
        The source is none of these.
    """

    def __init__(self, source: Source) -> None:
        self.sha256 = ""
        self._file: Any = None
        if isinstance(source, bytes | bytearray | memoryview):
            self._file = _BytesFile(source)
        elif isinstance(source, str | os.PathLike):
            self._file = open(source, "rb")  # noqa: SIM115
        elif hasattr(source, "read"):
            self._file = _Borrowed(source) if _can_seek(source) else _copied(source)
        else:
            raise TypeError(
                "a file is uploaded from a path, bytes or a binary file, not from "
                f"{type(source).__name__}"
            )
        self._start: int = self._file.tell()
        self.size: int = self._file.seek(0, os.SEEK_END) - self._start

    def __iter__(self) -> Iterator[bytes]:
        """The content from its beginning; `sha256` is that of the content after the last chunk."""
        digest, left = hashlib.sha256(), self.size
        self._file.seek(self._start)
        while left and (part := self._file.read(min(CHUNK_BYTES, left))):
            if not isinstance(part, bytes):
                raise TypeError("a file must be open in binary mode")
            digest.update(part)
            left -= len(part)
            yield part
        if left:
            raise OSError("the file became shorter while it was uploaded")
        self.sha256 = digest.hexdigest()

    def close(self) -> None:
        """Close the file, unless it is the caller's."""
        self._file.close()


def upload(
    api: ApiManager,
    task_id: str,
    attempt: int,
    source: Source,
    name: str | None = None,
    *,
    content_type: str | None = None,
    retry: Retry | None = REPEATABLE,
) -> dict[str, Any]:
    """Upload a file of an attempt, or replace it; repeated when it is cut off.

    Parameters
    ----------
    source
        As for `Content`.
    name
        Name of the file; a path gives it where it is left out.
    content_type
        Media type; guessed from the name where it is left out.

    Returns
    -------
    dict
        `name`, `size` in bytes, `content_type`, `sha256`, `created_at` and `attempt`.

    Raises
    ------
    ValueError
        There is no name, or no file may have it.
    OSError, TypeError
        The source cannot be read.
    ApiError
        The server refused, for instance because the attempt was lost or the file is too large.
    httpx.TransportError
        The server cannot be reached.
    """
    name, kind = name_and_type(source, name, content_type)
    name = _checked(name)
    content = Content(source)

    def read(response: httpx.Response) -> dict[str, Any]:
        document = response.json()
        if not isinstance(document, dict) or document.get("sha256") != content.sha256:
            raise ValueError("the server has another content than was sent")
        return document

    try:
        return send(
            api,
            "PUT",
            f"{path('tasks', task_id, 'files', name)}?attempt={attempt}",
            read=read,
            stream=content,
            headers={"Content-Type": kind, "Content-Length": str(content.size)},
            timeout=TIMEOUT,
            retry=retry,
        )
    finally:
        content.close()


def name_and_type(source: Source, name: str | None, content_type: str | None) -> tuple[str, str]:
    """The name and the media type of an upload, as `upload` describes them.

    Raises
    ------
    ValueError
        There is no name.
    """
    if name is None:
        if not isinstance(source, str | os.PathLike):
            raise ValueError("give the name of the file, because only a path has one")
        name = Path(source).name
    return name, content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"


def files(
    api: ApiManager, task_id: str, *, retry: Retry | None = REPEATABLE
) -> list[dict[str, Any]]:
    """The files of all attempts of a task, by name and attempt; each as `upload` returns it."""
    return send(api, "GET", path("tasks", task_id, "files"), read=_read_list, retry=retry)


@overload
def download(
    api: ApiManager, task_id: str, name: str, to: None = None, *, retry: Retry | None = REPEATABLE
) -> bytes: ...


@overload
def download(
    api: ApiManager,
    task_id: str,
    name: str,
    to: str | os.PathLike[str],
    *,
    retry: Retry | None = REPEATABLE,
) -> Path: ...


def download(
    api: ApiManager,
    task_id: str,
    name: str,
    to: str | os.PathLike[str] | None = None,
    *,
    retry: Retry | None = REPEATABLE,
) -> bytes | Path:
    """Download the latest attempt's file of this name; a download that is cut off goes on.

    Parameters
    ----------
    to
        Path of the new file, or a folder for it. The file appears there, in place of an earlier
        one, when all of it has arrived. Left out, the content is returned.

    Raises
    ------
    ValueError
        No file may have the name, or none in a folder of this system (`C:x` on Windows).
    OSError
        The file cannot be written.
    ApiError
        The server refused, for instance because there is no such file.
    httpx.TransportError
        The server cannot be reached, or sent another content than it announced.
    """
    name = _checked(name)
    url = path("tasks", task_id, "files", name)
    if to is None:
        with tempfile.SpooledTemporaryFile(max_size=2**24) as kept:
            _Download(api, url, kept, retry).run()
            kept.seek(0)
            return kept.read()
    target = Path(to)
    if target.is_dir():
        target = _in_folder(target, name)
    # Not by `tempfile`, whose files nobody but the user may read.
    part = target.with_name(f".joblib-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            _Download(api, url, file, retry).run()
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return target


class _Download:
    """A download, by as many requests as it takes."""

    def __init__(self, api: ApiManager, url: str, file: Any, retry: Retry | None) -> None:
        self._api = api
        self._url = url
        self._file = file
        self._retry = retry
        self._restart("")

    def run(self) -> None:
        """Write the whole content to the file."""
        outage = OutageLog(f"GET {self._url}")
        attempt = 1
        while True:
            before = self._size
            try:
                self._receive()
            except (ApiError, httpx.TransportError) as error:
                # An attempt that made progress is not counted, because a large file may be cut off
                # any number of times.
                attempt = 1 if self._size > before else attempt
                pause = self._retry.pause(error, attempt) if self._retry else None
                if pause is None:
                    raise
                outage.failed(error, pause)
            else:
                outage.ended()
                return
            time.sleep(pause)
            attempt += 1

    def _restart(self, etag: str) -> None:
        self._etag = etag
        self._size = 0
        self._digest = hashlib.sha256()
        self._file.seek(0)
        self._file.truncate()

    def _is_complete(self) -> bool:
        known = _ETAG.match(self._etag)
        return known is not None and known["sha256"] == self._digest.hexdigest()

    def _receive(self) -> None:
        if self._is_complete():
            # The last request was cut off after the last byte, where no range begins.
            return
        # Without compression, because a range is one of the bytes as they are sent.
        headers = {"Accept-Encoding": "identity"}
        if self._size:
            headers |= {"Range": f"bytes={self._size}-", "If-Range": self._etag}
        with open_stream(self._api, self._url, headers, TIMEOUT) as response:
            etag = response.headers.get("ETag", "")
            if not _ETAG.match(etag):
                # Some other program's page.
                raise UnexpectedAnswerError(response, {})
            if response.status_code == httpx.codes.PARTIAL_CONTENT:
                begin = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
                if begin is None or int(begin["first"]) != self._size or etag != self._etag:
                    raise UnexpectedAnswerError(response, {})
            else:
                self._restart(etag)
            # As they arrive, because larger parts would be lost with the cut.
            for part in response.iter_bytes():
                self._file.write(part)
                self._digest.update(part)
                self._size += len(part)
        if not self._is_complete():
            self._restart("")
            raise httpx.RemoteProtocolError(f"{self._url} arrived with another content")


class _BytesFile:
    """Bytes as a file, without a copy of them."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._content = memoryview(content).cast("B")
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (len(self._content) if whence == os.SEEK_END else 0)
        return self._position

    def read(self, size: int) -> bytes:
        part = bytes(self._content[self._position : self._position + size])
        self._position += len(part)
        return part

    def close(self) -> None:
        self._content.release()


class _Borrowed:
    """A file of the caller's, which stays open."""

    def __init__(self, file: Any) -> None:
        self.tell, self.seek, self.read = file.tell, file.seek, file.read

    def close(self) -> None:
        """Leave the file open."""


def _can_seek(file: Any) -> bool:
    return bool(getattr(file, "seekable", lambda: False)())


def _copied(file: Any) -> Any:
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        while part := file.read(CHUNK_BYTES):
            copy.write(part)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


def _in_folder(folder: P, name: str) -> P:
    """The path of a file in a folder; raises ValueError if it would be another path.

    On Windows `C:evil` is in another folder, and `a:b` is a stream of the file `a`.
    """
    if isinstance(folder, PureWindowsPath) and ":" in name:
        raise ValueError(f"no file on Windows has the name {name!r}; give the path of the new file")
    return folder / name


def _checked(name: str) -> str:
    name = nfc(name)
    if error := file_name_error(name):
        raise ValueError(f"the name of a file {error}")
    return name


def _read_list(response: httpx.Response) -> list[dict[str, Any]]:
    listed = response.json()
    if not isinstance(listed, list) or not all(isinstance(file, dict) for file in listed):
        raise ValueError("not a list of files")
    return listed
