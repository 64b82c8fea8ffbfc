"""Ids and answers about tasks that several views need."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework.response import Response

from zndraw_joblib.exceptions import TaskNotFound


def parse_task_id(text: str) -> UUID:
    """The task id in a path; raises TaskNotFound for a text that is not a UUID."""
    try:
        return UUID(text)
    except ValueError as error:
        raise TaskNotFound from error


def accepted(document: Any, location: str) -> Response:
    """The answer to a submit, with the path of the task or tasks."""
    return Response(document, status=202, headers={"Location": location, "Retry-After": "1"})
