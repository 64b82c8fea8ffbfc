"""How the endpoints describe themselves to drf-spectacular."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)

from zndraw_joblib import exceptions as problems
from zndraw_joblib.api import serializers as shapes
from zndraw_joblib.exceptions import ProblemException

Problem = type[ProblemException]

#: What every endpoint may answer.
GENERAL: tuple[Problem, ...] = (
    problems.NotAuthenticated,
    problems.NotFound,
    problems.MethodNotAllowed,
    problems.Throttled,
    problems.ServerError,
    problems.ServiceUnavailable,
)
#: What an endpoint with a body may answer besides.
WITH_BODY: tuple[Problem, ...] = (
    problems.ValidationError,
    problems.ContentTooLarge,
    problems.LengthRequired,
    problems.UnsupportedMediaType,
)


class EmptyBody(shapes.Body):
    """A body without fields."""


class JobLibSchema(AutoSchema):
    """The operations of this app; a host's own schema class stays its own."""

    def get_tags(self) -> list[str]:
        """All under one heading."""
        return ["joblib"]

    def get_filter_backends(self) -> list[Any]:
        """Parameters are named at each operation."""
        return []


def _header(name: str, description: str, codes: Sequence[int], type_: Any = str) -> Any:
    return OpenApiParameter(
        name, type_, OpenApiParameter.HEADER, description=description, response=list(codes)
    )


def _path(name: str, description: str, type_: Any = str) -> OpenApiParameter:
    return OpenApiParameter(name, type_, OpenApiParameter.PATH, description=description)


_ROOM = _path("room_id", "Room: 1 to 128 characters without `@ : /`, or `@global`.")
_JOB = _path("full_name", "Full name of a job of this room or of `@global`: `room:category:Name`.")
_TASK = _path("task_id", "Id of the task.", OpenApiTypes.UUID)
_WORKER = _path("worker_id", "Id of one of your workers.")
_PAGE = [
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
        description="Entries of a page.",
    ),
    OpenApiParameter(
        "cursor", str, description="Where the page begins, as the `Link` header gave it."
    ),
    _header("Link", 'The next page, `rel="next"` (RFC 8288); absent on the last.', [200]),
]
_STATUS = OpenApiParameter("status", str, enum=shapes.TASK_STATUSES, description="Only such tasks.")
_PREFER = [
    OpenApiParameter(
        "Prefer",
        str,
        OpenApiParameter.HEADER,
        description="`wait=N`: wait up to N seconds for the answer to change (RFC 7240).",
    ),
    _header("Preference-Applied", "`wait=N` when the wait was honoured, N capped.", [200]),
]


_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="A string of your own, 1 to 255 characters in quotes: the same request with the "
    "same key gives the same task, for 24 hours.",
)


def _operation(
    operation_id: str,
    answers: dict[Any, Any],
    *raised: Problem,
    parameters: Sequence[Any] = (),
    body: Any = None,
) -> Callable[..., Any]:
    raised = (*raised, *GENERAL, *(WITH_BODY if body is not None else ()))
    if _PAGE[0] in parameters:
        raised = (*raised, problems.ValidationError)
    by_status: dict[int, dict[str, Problem]] = defaultdict(dict)
    for problem in raised:
        by_status[problem.status][problem.slug()] = problem
    responses: dict[Any, Any] = dict(answers)
    for status, types in sorted(by_status.items()):
        responses[status, "application/problem+json"] = OpenApiResponse(
            shapes.ProblemDocument,
            description="\n".join(
                f"- `{slug}`: {problem.description()}" for slug, problem in types.items()
            ),
        )
    codes = [key[0] if isinstance(key, tuple) else key for key in answers]
    headers = [
        _header("Vary", "What answers may depend on.", codes),
        _header("WWW-Authenticate", "How to authenticate.", [401]),
        _header("Allow", "The methods there are.", [405]),
        _header("Retry-After", "Seconds to wait before trying again.", [429, 503], int),
    ]
    return extend_schema(
        operation_id=operation_id,
        request={"application/json": body} if body is not None else None,
        responses=responses,
        parameters=[*parameters, *headers],
    )


def _one_or_many(name: str, shape: Any) -> Any:
    return PolymorphicProxySerializer(
        name, [shape, shape(many=True)], resource_type_field_name=None, many=False
    )


jobs_list = _operation(
    "jobs_list",
    {200: shapes.JobSummaryDocument(many=True)},
    problems.InvalidRoomId,
    problems.JobNotFound,
    parameters=[_ROOM, *_PAGE],
)
jobs_register = _operation(
    "jobs_register",
    {200: shapes.RegistrationDocument, 201: shapes.RegistrationDocument},
    problems.InvalidRoomId,
    problems.InvalidCategory,
    problems.WorkerNotFound,
    problems.Forbidden,
    problems.SchemaConflict,
    problems.TooManyJobs,
    problems.TooManyWorkers,
    parameters=[_ROOM],
    body=shapes.RegistrationBody,
)
jobs_retrieve = _operation(
    "jobs_retrieve",
    {200: shapes.JobDocument},
    problems.InvalidRoomId,
    problems.JobNotFound,
    parameters=[_ROOM, _JOB],
)
jobs_tasks = _operation(
    "jobs_tasks",
    {200: shapes.TaskDocument(many=True)},
    problems.InvalidRoomId,
    problems.JobNotFound,
    parameters=[_ROOM, _JOB, _STATUS, *_PAGE],
)
tasks_submit = _operation(
    "tasks_submit",
    {202: _one_or_many("AcceptedDocument", shapes.TaskDocument)},
    problems.InvalidRoomId,
    problems.JobNotFound,
    problems.Forbidden,
    problems.InvalidPayload,
    problems.IdempotencyKeyReused,
    problems.TooManyPending,
    parameters=[
        _ROOM,
        _JOB,
        _KEY,
        _header("Location", "Path of the task, or of the job's tasks for an array.", [202]),
        _header("Retry-After", "Seconds until it is worth asking for the task.", [202], int),
    ],
    body=_one_or_many("Submission", shapes.SubmissionBody),
)
tasks_list = _operation(
    "tasks_list",
    {200: shapes.TaskDocument(many=True)},
    problems.InvalidRoomId,
    problems.TaskNotFound,
    parameters=[_ROOM, _STATUS, *_PAGE],
)
tasks_claim = _operation(
    "tasks_claim",
    {200: shapes.ClaimDocument},
    problems.WorkerNotFound,
    parameters=_PREFER,
    body=shapes.ClaimBody,
)
tasks_retrieve = _operation(
    "tasks_retrieve",
    {200: shapes.TaskDocument},
    problems.TaskNotFound,
    parameters=[_TASK, *_PREFER],
)
tasks_lookup = _operation(
    "tasks_lookup",
    {200: shapes.TaskDocument(many=True)},
    parameters=_PREFER,
    body=shapes.LookupBody,
)
tasks_report = _operation(
    "tasks_report",
    {200: shapes.TaskDocument},
    problems.TaskNotFound,
    problems.Forbidden,
    problems.LeaseLost,
    problems.InvalidTaskTransition,
    parameters=[_TASK],
    body=shapes.ReportBody,
)
tasks_report_many = _operation(
    "tasks_report_many",
    {200: shapes.ReportResultDocument(many=True)},
    body=shapes.ListedReportBody(many=True),
)
workers_list = _operation("workers_list", {200: shapes.WorkerDocument(many=True)}, parameters=_PAGE)
workers_of_room = _operation(
    "workers_of_room",
    {200: shapes.WorkerDocument(many=True)},
    problems.InvalidRoomId,
    problems.WorkerNotFound,
    parameters=[_ROOM, *_PAGE],
)
workers_create = _operation(
    "workers_create",
    {201: shapes.NewWorkerDocument},
    problems.TooManyWorkers,
    body=EmptyBody,
)
workers_heartbeat = _operation(
    "workers_heartbeat",
    {200: shapes.HeartbeatDocument},
    problems.WorkerNotFound,
    parameters=[_WORKER],
    body=shapes.HeartbeatBody,
)
workers_delete = _operation(
    "workers_delete", {204: None}, problems.WorkerNotFound, parameters=[_WORKER]
)
me = _operation("me", {200: shapes.IdentityDocument})
problem_types = _operation(
    "problem_types",
    {
        (200, "application/json"): shapes.ProblemTypeDocument,
        (200, "text/html"): OpenApiTypes.STR,
    },
    parameters=[_path("slug", "Last part of a problem's `type`.")],
)
