"""The view of a task's log."""

from __future__ import annotations

from typing import ClassVar

from django.http import QueryDict
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from zndraw_joblib.api import openapi_parts
from zndraw_joblib.api.awaited import UntilMoreLog
from zndraw_joblib.api.base import JobLibView
from zndraw_joblib.api.documents import log_document
from zndraw_joblib.api.lookup import parse_task_id
from zndraw_joblib.api.parsing import digits_of, invalid
from zndraw_joblib.api.task_bodies import LogBody
from zndraw_joblib.services.log import append_log, find_log
from zndraw_joblib.storage.logs import MAX_OFFSET
from zndraw_joblib.text import Message


class LogViewSet(JobLibView, ViewSet):
    """The log of a task."""

    throttle_scopes: ClassVar = {"write": "joblib_work"}
    unthrottled: ClassVar = {"write"}

    @openapi_parts.log_write
    def write(self, request: Request, task_id: str) -> Response:
        """Add text to the log of a task, and renew its lease."""
        body = self.body(LogBody)
        append_log(self.caller, parse_task_id(task_id), body.attempt, body.text)
        return Response(status=204)

    @openapi_parts.log_retrieve
    def retrieve(self, request: Request, task_id: str) -> Response:
        """A part of the log; `Prefer: wait=N` waits for more text, or the end of the task."""
        parsed_id, offset = parse_task_id(task_id), _offset(request.query_params)
        part = find_log(self.caller, parsed_id, offset)
        response = Response(log_document(part))
        if part.next_offset <= offset and not part.ended:
            until = UntilMoreLog(parsed_id, offset, self.caller.visible, tenant=self.caller.tenant)
            response.waits_for = until  # type: ignore[attr-defined]
        return response


def _offset(query: QueryDict) -> int:
    offset = digits_of(query.get("offset", "0"), 19)
    if offset is not None and offset <= MAX_OFFSET:
        return offset
    raise invalid(
        Message("offset must be an integer from 0 to {limit}.", limit=MAX_OFFSET), "/offset"
    )
