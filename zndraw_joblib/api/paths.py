"""Paths of this app's resources, below the address at which the host includes its URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.http import HttpRequest
from django.urls import get_script_prefix
from django.utils.encoding import escape_uri_path
from django.utils.http import escape_leading_slashes

#: The first segment of each path of this app, and the prefix of most of them.
VERSION = "v1"
API = f"{VERSION}/joblib/"
#: The fields of log records, by the variables of a path that they come from.
_LOG_FIELDS = {
    "task_id": "task_id",
    "worker_id": "worker_id",
    "full_name": "job",
    "room_id": "room",
}
#: Characters besides letters and digits that stay as they are in a segment (RFC 3986, section 3.3).
_SEGMENT = "!$&'()*+,;=:@~"


def client_path(path_info: str) -> str:
    """The percent-encoded path at which a client finds a path of the site's URLs.

    The prefix is the one that `reverse` uses. `HttpRequest.path` may lack it: under ASGI it is the
    path that the server received, without a prefix that a proxy took off.
    """
    return escape_leading_slashes(
        escape_uri_path(get_script_prefix() + path_info.removeprefix("/"))
    )


def request_path(request: HttpRequest) -> str:
    """The path of a request, as `client_path` gives it."""
    return client_path(request.path_info)


def mount_path(path_info: str, route: str) -> str:
    """The path at which the host includes this app's URLs, with a slash at its end.

    Cut from the path of the request, which matched `route`. `reverse` would need the host's
    namespaces and the values in its prefix (``t/<slug:tenant>/``), and cannot fill unnamed groups.
    """
    return client_path(path_info.rsplit("/", route.count("/"))[0].removesuffix(VERSION))


def task_path(mount: str, task_id: UUID) -> str:
    """The path of a task."""
    return f"{mount}{API}tasks/{task_id}"


def job_tasks_path(mount: str, room_id: str, full_name: str) -> str:
    """The path of a room's tasks of one job."""
    room, job = quote(room_id, safe=_SEGMENT), quote(full_name, safe=_SEGMENT)
    return f"{mount}{API}rooms/{room}/jobs/{job}/tasks"


def problem_type_path(mount: str, slug: str) -> str:
    """The path of a problem type's description."""
    return f"{mount}{VERSION}/problems/{slug}"


def log_fields(variables: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a log record about a request, from the variables of its path."""
    return {
        _LOG_FIELDS[name]: str(value) for name, value in variables.items() if name in _LOG_FIELDS
    }
