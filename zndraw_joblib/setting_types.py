"""Types of settings whose values are checked by more than their limits."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from django.utils.module_loading import import_string
from pydantic import AfterValidator

from zndraw_joblib.names import nfc


def _is_origin(entry: str) -> str:
    parts = urlsplit(entry)
    # `port` raises ValueError if it is not a number.
    whole = parts.port != 0 and entry.lower() == f"{parts.scheme}://{parts.netloc}".lower()
    if entry != "*" and not (parts.scheme and parts.hostname and whole):
        raise ValueError(
            f"{entry!r} is not an origin: a scheme, a host and perhaps a port, without a path"
        )
    if parts.scheme in {"ws", "wss"} or "@" in parts.netloc or "*" in parts.netloc:
        raise ValueError(f"{entry!r} is not the origin of a page, such as https://app.example.org")
    return entry


def _is_importable(path: str) -> str:
    try:
        hook = import_string(path)
    except ImportError as error:
        raise ValueError(f"{path!r} cannot be imported: {error}") from error
    if not callable(hook):
        raise ValueError(f"{path!r} is not callable")
    return path


#: A category of jobs in Unicode's normal form NFC, as those of registrations are compared.
Category = Annotated[str, AfterValidator(nfc)]
#: The origin of pages, or ``*`` for every one.
Origin = Annotated[str, AfterValidator(_is_origin)]
#: The dotted path of a callable of the host.
HookPath = Annotated[str, AfterValidator(_is_importable)]
