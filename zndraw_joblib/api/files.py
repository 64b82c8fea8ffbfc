"""Views of the files of tasks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Self
from urllib.parse import unquote_to_bytes

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi_parts
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.bodies import MAX_ATTEMPT
from zndraw_joblib.api.conditional import may_change
from zndraw_joblib.api.documents import file_document
from zndraw_joblib.api.lookup import parse_task_id
from zndraw_joblib.api.parsing import body_length, body_stream, digits_of, invalid, is_chunked
from zndraw_joblib.api.ranges import requested_part
from zndraw_joblib.exceptions import (
    Forbidden,
    LengthRequired,
    PreconditionFailed,
    UnsupportedMediaType,
)
from zndraw_joblib.models import TaskFile
from zndraw_joblib.services.files import find_file, list_files, open_part
from zndraw_joblib.services.uploads import Upload, upload
from zndraw_joblib.storage.files import StoredPart
from zndraw_joblib.text import Message

#: Type of a file whose upload names none.
UNKNOWN_TYPE = "application/octet-stream"
#: A media type with parameters (RFC 9110, section 8.3.1), in printable ASCII.
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+ *(;[ -~]*)?")
_MAX_TYPE_LENGTH = 255
#: Uses of a file that a browser may make (`Sec-Fetch-Dest`). A page of the site must not load one
#: as a script, for instance, which none of the headers below prevents.
_DESTINATIONS = {"empty", "document", "image", "audio", "video", "iframe", "frame"}
#: Headers that keep a browser from running a file as a part of the site.
_SANDBOX = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class FileViewSet(JobLibView, ViewSet):
    """Files of tasks."""

    throttle_scopes: ClassVar = {"upload": "joblib_work"}
    unthrottled: ClassVar = {"upload"}
    #: The lane passes the body of this method on as it arrives, because it may be large.
    streamed_method = "PUT"

    def initialize_request(self, request: Any, *args: Any, **kwargs: Any) -> Request:
        """Leave the body alone where a host's permission reads `data`, because it is a file."""
        made: Any = super().initialize_request(request, *args, **kwargs)
        made._full_data = {}
        return made  # type: ignore[no-any-return]

    @openapi_parts.files_list
    def list(self, request: Request, task_id: str) -> Response:
        """The files of all attempts of a task, by name and attempt."""
        files = list_files(self.caller, parse_task_id(task_id))
        return Response([file_document(file) for file in files])

    @openapi_parts.files_upload
    def upload(self, request: Request, task_id: str, name: str) -> Response:
        """Upload a file of an attempt, or replace the attempt's file of this name."""
        attempt = _attempt(request.query_params.get("attempt"))
        sent = request._request
        if isinstance(sent, WSGIRequest) and is_chunked(sent):
            # Some WSGI servers end the stream of a body that was cut off as that of a whole one.
            raise LengthRequired
        _check_is_whole_file(sent)
        _check_path(sent)

        def may_replace(file: TaskFile | None) -> bool:
            return may_change(sent, *(_validators(file) if file else (None,)))

        given = Upload(name, _content_type(sent), body_stream(sent), body_length(sent), may_replace)
        file, is_new = upload(self.caller, parse_task_id(task_id), attempt, given)
        return Response(file_document(file), status=201 if is_new else 200)

    @openapi_parts.files_download
    def retrieve(self, request: Request, task_id: str, name: str) -> HttpResponseBase:
        """The content of the latest attempt's file of this name, or one range of it."""
        if request.META.get("HTTP_SEC_FETCH_DEST", "empty") not in _DESTINATIONS:
            raise Forbidden(Message("A file of a task may not be a part of a page."))
        file = find_file(self.caller, parse_task_id(task_id), name)
        etag, modified = _validators(file)
        headers = {
            **_SANDBOX,
            "Accept-Ranges": "bytes",
            "Content-Disposition": content_disposition_header(True, file.name) or "attachment",
            "ETag": etag,
            "Last-Modified": http_date(modified),
            "Vary": "Sec-Fetch-Dest",
        }
        whole = HttpResponse(content_type=file.content_type, headers=headers)
        checked: Any = get_conditional_response(request._request, etag, modified, whole)
        if checked.status_code == 412:
            raise PreconditionFailed
        if checked.status_code == 304:
            return checked  # type: ignore[no-any-return]
        if request.method == "HEAD":
            whole.headers["Content-Length"] = str(file.size)
            return whole
        part = requested_part(
            request.META.get("HTTP_RANGE"), request.META.get("HTTP_IF_RANGE"), etag, file.size
        )
        status = 200
        if part is not None:
            status = 206
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
            # Keeps a host's GZipMiddleware from compressing a range, which no client could join.
            headers["Content-Encoding"] = "identity"
        return _stream(request._request, file, part or range(file.size), status, headers)


class AsyncPart(AsyncIterator[bytes]):
    """Reads a part of a stored file in threads, for an event loop."""

    def __init__(self, part: StoredPart) -> None:
        self._part = part

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await asyncio.to_thread(next, self._part, None)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def close(self) -> None:
        """Close the file."""
        self._part.close()


def _stream(
    request: HttpRequest, file: TaskFile, positions: range, status: int, headers: dict[str, str]
) -> StreamingHttpResponse:
    part: Any = open_part(file, positions.start, len(positions))
    response = StreamingHttpResponse(
        # Under ASGI Django would read the whole of a sync iterator into memory.
        AsyncPart(part) if isinstance(request, ASGIRequest) else part,
        status=status,
        content_type=file.content_type,
        headers=headers,
    )
    response.headers["Content-Length"] = str(len(positions))
    return response


def _validators(file: TaskFile) -> tuple[str, int]:
    """The `ETag`, and the `Last-Modified` in seconds since 1970."""
    return f'"{file.sha256}"', int(file.created_at.timestamp())


def _check_is_whole_file(request: HttpRequest) -> None:
    """Refuse a body that is a part of a file or is compressed, because it is stored as it is.

    `curl -C` sends parts, for instance (RFC 9110, sections 14.5 and 8.4).
    """
    if "HTTP_CONTENT_RANGE" in request.META:
        raise invalid(Message("Content-Range is not supported; upload the whole file."))
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType(
            Message("Content-Encoding is not supported; upload the file as it is."),
            headers={"Accept-Encoding": "identity"},
        )


def _check_path(request: HttpRequest) -> None:
    """Refuse a name that is not UTF-8.

    ASGI servers put the same character for each such byte, so different names would be one file.
    """
    if isinstance(request, ASGIRequest):
        try:
            unquote_to_bytes(request.scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError as error:
            detail = Message("The name of a file must be UTF-8, percent-encoded.")
            raise invalid(detail) from error


def _attempt(text: str | None) -> int:
    if text is None:
        raise invalid(Message("The query parameter attempt is required."), "/attempt")
    attempt = digits_of(text, 10)
    if attempt is None or attempt > MAX_ATTEMPT:
        raise invalid(Message("attempt must be the number of an attempt."), "/attempt")
    return attempt


def _content_type(request: HttpRequest) -> str:
    """The type of the body, as the client wrote it."""
    given: str = request.META.get("CONTENT_TYPE", "").strip() or UNKNOWN_TYPE
    if len(given) > _MAX_TYPE_LENGTH or not _MEDIA_TYPE.fullmatch(given):
        raise invalid(
            Message(
                "Content-Type must be a media type of at most {limit} characters.",
                limit=_MAX_TYPE_LENGTH,
            )
        )
    return given
