"""Strict reading of a request's body: JSON, bounded before it is parsed."""

from __future__ import annotations

import json
import math
import re
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
)
from zndraw_joblib.settings import get_settings

#: Digits of an integer; far beyond any identifier, far below what makes parsing slow.
MAX_DIGITS = 300
#: Longest Idempotency-Key, in characters.
MAX_KEY_LENGTH = 255
_KEY = re.compile(r'"(?P<quoted>(?:[ !#-\[\]-~]|\\["\\])*)"|(?P<bare>[!#-+\--~]+)')
_LARGE = re.compile(rb"[0-9]{19}")
_EMPTY = {None, "", "0"}
_NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))


def invalid(detail: str, pointer: str = "") -> ValidationError:
    """A validation error with a single fault."""
    return ValidationError(detail, errors=[FieldError(detail, pointer)])


def read_body(request: HttpRequest) -> Any:
    """The JSON in the request's body; ``{}`` when there is no body.

    Raises
    ------
    UnsupportedMediaType
        There is a body and it is not said to be application/json.
    ContentTooLarge
        It has more than `max_body_bytes`.
    LengthRequired
        It comes in chunks, and the WSGI server does not say that it ends them.
    ValidationError
        It is no JSON, is nested too deep, or holds what JSON or the database cannot: NaN,
        infinities, the character U+0000, lone surrogates.
    """
    body = _read(request)
    if not body:
        return {}
    if request.content_type != "application/json":
        raise UnsupportedMediaType(
            f"The body must be application/json, not {(request.content_type or '')[:100]!r}."
        )
    return parse_json(body)


def parse_json(body: bytes) -> Any:
    """Parse strict JSON of bounded depth; errors as in `read_body`."""
    limit = get_settings().max_json_depth
    if _depth(body) > limit:
        raise invalid(f"The body must not be nested deeper than {limit}.")
    try:
        # The fast parser makes a float of an integer beyond 64 bits.
        value = _parse_large(body) if _LARGE.search(body) else orjson.loads(body)
    except ValueError as error:
        raise invalid(f"The body is not valid JSON: {error}") from error
    if b"\\u" in body:
        _check_escapes(value)
    return value


def _parse_large(body: bytes) -> Any:
    return json.loads(
        body.decode("utf-8"),
        parse_constant=_refuse_constant,
        parse_float=_finite,
        parse_int=_bounded,
    )


def read_idempotency_key(request: HttpRequest) -> str | None:
    """The `Idempotency-Key`, a quoted string (RFC 9651, section 3.3.3) or bare; None without one.

    Raises
    ------
    ValidationError
        It is empty, too long, or holds what a header's string must not.
    """
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip(" "))
    key = (match["bare"] or re.sub(r"\\(.)", r"\1", match["quoted"])) if match else ""
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise invalid(
            f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters, in quotes."
        )
    return key


def _read(request: HttpRequest) -> bytes:
    """Read the body once and keep it: a view that waits is run again on the same request."""
    kept: bytes | None = getattr(request, "_joblib_body", None)
    if kept is None:
        limit = get_settings().max_body_bytes
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError as error:
            raise invalid("Content-Length must be a number.") from error
        # Looked at before anything is read; a chunked body tells its length by being read.
        kept = b"" if length > limit else _read_up_to(_stream(request), limit + 1)
        if max(length, len(kept)) > limit:
            raise ContentTooLarge(f"The body must have at most {limit} bytes.")
        request._joblib_body = kept  # type: ignore[attr-defined]
    return kept


def _stream(request: HttpRequest) -> Any:
    """What the body is read from. Django's own for WSGI ends at the Content-Length, or at once."""
    if not (isinstance(request, WSGIRequest) and _is_chunked(request)):
        return request
    if not request.META.get("wsgi.input_terminated"):
        raise LengthRequired
    return request.META["wsgi.input"]


def _read_up_to(stream: Any, size: int) -> bytes:
    """So many bytes, or all that there are; a stream may give a part at a time."""
    parts, left = [], size
    while left > 0 and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _is_chunked(request: HttpRequest) -> bool:
    return "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()


def pass_over_body(request: HttpRequest) -> None:
    """Under WSGI, read what is left of the body, up to 2 MiB.

    An answer such as 401 needs no body. A server that has not read all of it closes the
    connection, and a proxy that is still sending then sees that, and not the answer.
    """
    if not isinstance(request, WSGIRequest):
        return
    if request.META.get("CONTENT_LENGTH") not in _EMPTY or _is_chunked(request):
        # A client that is gone needs no answer, but the answer must be closed.
        with suppress(OSError, LengthRequired):
            stream = _stream(request)
            for _ in range(32):
                if not stream.read(65536):
                    return


def _depth(body: bytes) -> int:
    """The deepest nesting of brackets outside strings, without recursion."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Strings that hold no brackets are two quotes by now, and those are left out at once.
    brackets = body.translate(None, _NEITHER_BRACKETS_NOR_QUOTES).replace(b'""', b"")
    if b'"' in brackets:
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
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(text)


def _check_escapes(value: Any) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, str) and ("\x00" in item or has_surrogate(item)):
            raise invalid("Strings must not hold the character U+0000 or lone surrogates.")


def has_surrogate(text: str) -> bool:
    """Whether a text cannot be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
