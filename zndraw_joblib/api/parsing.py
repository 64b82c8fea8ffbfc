"""Reads a request's body as strict JSON, whose size and depth are checked before it is parsed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import orjson
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from zndraw_joblib.exceptions import (
    ContentTooLarge,
    FieldError,
    LengthRequired,
    UnsupportedMediaType,
    ValidationError,
    first_errors,
    json_pointer,
)
from zndraw_joblib.names import MAX_NAME_LENGTH
from zndraw_joblib.settings import get_settings
from zndraw_joblib.text import Message, clean_text
from zndraw_joblib.translation import library_message

#: Most digits of an integer, because parsing takes quadratic time; no identifier is that long.
MAX_DIGITS = 300
#: Longest Idempotency-Key, in characters.
MAX_KEY_LENGTH = 255
#: Most bytes of an unread body that are discarded before the answer is sent.
MAX_DISCARDED_BYTES = 2_097_152
_CHUNK_BYTES = 65_536
_KEY = re.compile(r'"(?P<quoted>(?:[ !#-\[\]-~]|\\["\\])*)"|(?P<bare>[!#-+\--~]+)')
#: Digits that may be an integer beyond 64 bits, which orjson would turn into a float.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
#: An escaped surrogate. orjson refuses a lone one, which free text may have.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ALL_BUT_BRACKETS_AND_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))


def invalid(detail: str, pointer: str = "") -> ValidationError:
    """A validation error at one place of the request."""
    return ValidationError(detail, errors=[FieldError(detail, pointer)])


def invalid_fields(errors: Iterable[FieldError]) -> ValidationError:
    """A validation error whose detail names the first five errors."""
    errors = first_errors(errors)
    parts = {
        f"error{number}": Message(
            "{place}: {detail}", place=error.pointer or Message("body"), detail=error.detail
        )
        for number, error in enumerate(errors[:5])
    }
    detail = Message("; ".join(f"{{{name}}}" for name in parts), **parts)
    return ValidationError(detail, errors=errors)


def check_query(
    request: HttpRequest, known: Sequence[str], repeatable: Collection[str] = ()
) -> None:
    """Refuse query parameters that are unknown, or repeated and not `repeatable`.

    Ignoring a misspelt filter would answer with more than the client asked for.

    Raises
    ------
    ValidationError
        `errors` has a pointer with the name of each such parameter.
    """
    if not request.META.get("QUERY_STRING"):
        return
    errors = []
    for name, values in request.GET.lists():
        pointer = json_pointer([name[:MAX_NAME_LENGTH]])
        if name not in known:
            detail = Message("Unknown query parameter; this endpoint has none.")
            if known:
                names = ", ".join(known)
                detail = Message("Unknown query parameter; known are {names}.", names=names)
            errors.append(FieldError(detail, pointer))
        elif len(values) > 1 and name not in repeatable:
            detail = Message("The query parameter must be given once only.")
            errors.append(FieldError(detail, pointer))
    if errors:
        raise invalid_fields(errors)


def digits_of(text: str, most: int) -> int | None:
    """The integer that up to `most` ASCII digits write; None for another text.

    Longer ones are not parsed, because `int` takes quadratic time.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= most else None


def read_body(request: HttpRequest, free_text: Collection[str] = ()) -> Any:
    """The JSON in the request's body; ``{}`` if the body is empty.

    `free_text` names the fields of the object, or of each object of the array, whose text may have
    any character. Their text is cleaned (`zndraw_joblib.text.clean_text`).

    Raises
    ------
    UnsupportedMediaType
        The body is not empty and its Content-Type is not application/json.
    ContentTooLarge
        The body has more than `max_body_bytes`.
    LengthRequired
        The body is chunked, and the WSGI server does not declare `wsgi.input_terminated`.
    ValidationError
        The body is not JSON, is nested too deep, or has NaN, an infinity, the character U+0000 or a
        lone surrogate, which JSON does not have or the database cannot store.
    """
    body = _read_bytes(request)
    if not body:
        return {}
    if request.content_type != "application/json":
        raise UnsupportedMediaType(
            Message(
                "The body must be application/json, not {type}.",
                type=repr((request.content_type or "")[:100]),
            )
        )
    return parse_json(body, free_text)


def parse_json(body: bytes, free_text: Collection[str] = ()) -> Any:
    """Parse strict JSON of bounded depth; raises the validation errors of `read_body`."""
    limit = get_settings().max_json_depth
    if _depth(body) > limit:
        raise invalid(Message("The body must not be nested deeper than {limit}.", limit=limit))
    try:
        slowly = _LONG_NUMBER.search(body) or (free_text and _SURROGATE.search(body))
        value = _parse_slowly(body) if slowly else orjson.loads(body)
    except ValueError as error:
        raise invalid(
            Message("The body is not valid JSON: {error}", error=library_message(str(error)))
        ) from error
    if b"\\u" in body:
        _clean_fields(value, free_text)
        _check_strings(value)
    return value


def _parse_slowly(body: bytes) -> Any:
    return json.loads(
        body.decode("utf-8"),
        parse_constant=_refuse_constant,
        parse_float=_finite_float,
        parse_int=_bounded_int,
    )


def read_idempotency_key(request: HttpRequest) -> str | None:
    """The `Idempotency-Key`: a quoted string (RFC 9651, section 3.3.3) or bare; None without one.

    Raises
    ------
    ValidationError
        The key is empty, too long, or has characters that such a string must not have.
    """
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip(" "))
    key = (match["bare"] or re.sub(r"\\(.)", r"\1", match["quoted"])) if match else ""
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise invalid(
            Message(
                "Idempotency-Key must be 1 to {limit} printable ASCII characters, in quotes.",
                limit=MAX_KEY_LENGTH,
            )
        )
    return key


def _read_bytes(request: HttpRequest) -> bytes:
    """The body, kept on the request because a view that waits runs again on the same request."""
    kept: bytes | None = getattr(request, "_joblib_body", None)
    if kept is None:
        limit = get_settings().max_body_bytes
        length = body_length(request) or 0
        # A body with a Content-Length above the limit is refused unread; the length of a chunked
        # one is known only after reading it.
        kept = b"" if length > limit else _read_up_to(body_stream(request), limit + 1)
        if max(length, len(kept)) > limit:
            raise ContentTooLarge(Message("The body must have at most {limit} bytes.", limit=limit))
        request._joblib_body = kept  # type: ignore[attr-defined]
    return kept


def body_length(request: HttpRequest) -> int | None:
    """The Content-Length; None without one. Raises ValidationError if it is no number."""
    given = request.META.get("CONTENT_LENGTH")
    if given in {None, ""}:
        return None
    try:
        return int(given)
    except ValueError as error:
        raise invalid(Message("Content-Length must be a number.")) from error


def body_stream(request: HttpRequest) -> Any:
    """The stream of the body.

    For a chunked body under WSGI not Django's, which ends at the Content-Length and so is empty.
    """
    if not (isinstance(request, WSGIRequest) and is_chunked(request)):
        return request
    if not request.META.get("wsgi.input_terminated"):
        raise LengthRequired
    return request.META["wsgi.input"]


def _read_up_to(stream: Any, size: int) -> bytes:
    """Up to `size` bytes, in several reads, because a stream may return fewer bytes at a time."""
    parts, left = [], size
    while left > 0 and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def is_chunked(request: HttpRequest) -> bool:
    """Whether the body may come in parts, without a Content-Length.

    HTTP/2 needs no `Transfer-Encoding` for that (RFC 9113, section 8.1).
    """
    if request.META.get("SERVER_PROTOCOL", "").startswith(("HTTP/2", "HTTP/3")):
        return request.META.get("CONTENT_LENGTH") in {None, ""}
    return "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()


def discard_body(request: HttpRequest) -> None:
    """Under WSGI, read and drop the rest of the body, up to `MAX_DISCARDED_BYTES`.

    A server closes the connection after an answer (a 401, say) if part of the body is unread. A
    proxy that is still sending would then find the connection closed and not read the answer.
    """
    if not isinstance(request, WSGIRequest):
        return
    if request.META.get("CONTENT_LENGTH") not in {None, "", "0"} or is_chunked(request):
        # The client may have disconnected.
        with suppress(OSError, LengthRequired):
            stream = body_stream(request)
            for _ in range(MAX_DISCARDED_BYTES // _CHUNK_BYTES):
                if not stream.read(_CHUNK_BYTES):
                    return


def _depth(body: bytes) -> int:
    """The deepest nesting of brackets outside strings.

    Computed without recursion, because a deep body would exhaust the stack.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A string without brackets is reduced to its two quotes, which `replace` drops.
    brackets = body.translate(None, _ALL_BUT_BRACKETS_AND_QUOTES).replace(b'""', b"")
    if b'"' in brackets:
        # Every second part is the inside of a string.
        brackets = b"".join(brackets.split(b'"')[::2])
    depth = deepest = 0
    for byte in brackets:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(text)


def _clean_fields(value: Any, names: Collection[str]) -> None:
    """Clean the text of these fields, in the object or in each object of the array."""
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict):
            for name in names:
                if isinstance(text := entry.get(name), str):
                    entry[name] = clean_text(text)


def _check_strings(value: Any) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, str) and ("\x00" in item or has_surrogate(item)):
            raise invalid(Message("Strings must not have the character U+0000 or lone surrogates."))


def has_surrogate(text: str) -> bool:
    """Whether a text has a lone surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
