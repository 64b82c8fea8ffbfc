"""The operations of the API, one for each endpoint, as the OpenAPI document shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from pydantic import Field

from zndraw_joblib import exceptions as problems
from zndraw_joblib.api import answers, bodies, parameters
from zndraw_joblib.api.autoschema import Header, Operation, Parameter
from zndraw_joblib.storage.logs import MAX_OFFSET

jobs_list = Operation(
    id="jobs_list",
    answers={200: list[answers.JobSummaryDocument]},
    problems=[problems.InvalidRoomId, problems.JobNotFound],
    parameters=[parameters.ROOM, *parameters.PAGE],
    headers=[parameters.LINK],
)
jobs_register = Operation(
    id="jobs_register",
    answers={200: answers.RegistrationDocument, 201: answers.RegistrationDocument},
    problems=[
        problems.InvalidRoomId,
        problems.InvalidCategory,
        problems.WorkerNotFound,
        problems.Forbidden,
        problems.SchemaConflict,
        problems.TooManyJobs,
        problems.TooManyWorkers,
    ],
    parameters=[parameters.ROOM],
    body=bodies.RegistrationBody,
)
jobs_retrieve = Operation(
    id="jobs_retrieve",
    answers={200: answers.JobDocument},
    problems=[problems.InvalidRoomId, problems.JobNotFound],
    parameters=[parameters.ROOM, parameters.JOB],
)
jobs_retire = Operation(
    id="jobs_retire",
    answers={204: None},
    problems=[problems.InvalidRoomId, problems.JobNotFound, problems.Forbidden],
    parameters=[
        parameters.ROOM,
        Parameter(
            name="full_name",
            location="path",
            description="Full name of a job of this room: `room:category:Name`.",
        ),
    ],
)
jobs_tasks = Operation(
    id="jobs_tasks",
    answers={200: list[answers.TaskDocument]},
    problems=[problems.InvalidRoomId, problems.JobNotFound],
    parameters=[
        parameters.ROOM,
        parameters.JOB,
        parameters.STATUS,
        parameters.INCLUDE,
        *parameters.PAGE,
    ],
    headers=[parameters.LINK],
)
tasks_submit = Operation(
    id="tasks_submit",
    answers={202: answers.TaskDocument | list[answers.TaskDocument]},
    problems=[
        problems.InvalidRoomId,
        problems.JobNotFound,
        problems.Forbidden,
        problems.InvalidPayload,
        problems.IdempotencyKeyReused,
        problems.TooManyPending,
    ],
    parameters=[
        parameters.ROOM,
        parameters.JOB,
        parameters.IDEMPOTENCY_KEY,
        parameters.TRACEPARENT,
    ],
    headers=parameters.ACCEPTED,
    body=bodies.SubmissionBody | parameters.SUBMISSIONS,
)
rooms_events = Operation(
    id="rooms_events",
    answers={200: {"text/event-stream": answers.ServerSentEvent}},
    problems=[problems.InvalidRoomId, problems.TaskNotFound],
    parameters=[
        parameters.ROOM,
        Parameter(
            name="cursor",
            location="query",
            description="The last cursor that you know: the present state of everything that "
            "changed since then comes first.",
        ),
        Parameter(
            name="task",
            location="query",
            description="Only events about this task; may be repeated.",
            type=list[UUID],
            is_repeatable=True,
        ),
        Parameter(
            name="Last-Event-ID",
            location="header",
            description="As `cursor`, and preferred; a browser that comes back sends it.",
        ),
    ],
)
tasks_list = Operation(
    id="tasks_list",
    answers={200: list[answers.TaskDocument]},
    problems=[problems.InvalidRoomId, problems.TaskNotFound],
    parameters=[parameters.ROOM, parameters.STATUS, parameters.INCLUDE, *parameters.PAGE],
    headers=[parameters.LINK],
)
tasks_submitted = Operation(
    id="tasks_submitted",
    answers={200: list[answers.TaskDocument]},
    problems=[problems.InvalidRoomId, problems.Forbidden],
    parameters=[
        Parameter(
            name="created_by",
            location="query",
            description="`me`, or for administrators the identity of any submitter; left out, "
            "your own tasks, or all for administrators.",
        ),
        parameters.STATUS,
        Parameter(
            name="job",
            location="query",
            description="Only tasks of the job with this full name, `room:category:Name`.",
        ),
        Parameter(name="room", location="query", description="Only tasks of this room."),
        parameters.INCLUDE,
        *parameters.PAGE,
    ],
    headers=[parameters.LINK],
)
tasks_claim = Operation(
    id="tasks_claim",
    answers={200: answers.ClaimDocument},
    problems=[problems.WorkerNotFound],
    parameters=[parameters.PREFER],
    headers=[parameters.PREFERENCE_APPLIED],
    body=bodies.ClaimBody,
)
tasks_retrieve = Operation(
    id="tasks_retrieve",
    answers={200: answers.TaskDocument, 304: None},
    problems=[problems.TaskNotFound],
    parameters=[parameters.TASK, parameters.PREFER, parameters.IF_NONE_MATCH],
    headers=[
        replace(parameters.PREFERENCE_APPLIED, codes=[200, 304]),
        Header(
            name="ETag",
            description="Weak; changes when the task changes, except for `queue_position`.",
            codes=[200, 304],
        ),
    ],
)
tasks_attempts = Operation(
    id="tasks_attempts",
    answers={200: list[answers.AttemptDocument]},
    problems=[problems.TaskNotFound],
    parameters=[parameters.TASK, *parameters.PAGE],
    headers=[parameters.LINK],
)
tasks_retry = Operation(
    id="tasks_retry",
    answers={202: answers.TaskDocument},
    problems=[
        problems.TaskNotFound,
        problems.Forbidden,
        problems.InvalidTaskTransition,
        problems.JobNotFound,
        problems.InvalidPayload,
        problems.IdempotencyKeyReused,
        problems.TooManyPending,
    ],
    parameters=[parameters.TASK, parameters.IDEMPOTENCY_KEY, parameters.TRACEPARENT],
    headers=parameters.ACCEPTED,
    body=bodies.EmptyBody,
)
tasks_lookup = Operation(
    id="tasks_lookup",
    answers={200: list[answers.TaskDocument]},
    parameters=[parameters.PREFER],
    headers=[parameters.PREFERENCE_APPLIED],
    body=bodies.LookupBody,
)
tasks_report = Operation(
    id="tasks_report",
    answers={200: answers.TaskDocument},
    problems=[
        problems.TaskNotFound,
        problems.Forbidden,
        problems.LeaseLost,
        problems.InvalidTaskTransition,
        problems.ResultTooLarge,
    ],
    parameters=[parameters.TASK],
    body=bodies.ReportBody,
)
tasks_report_many = Operation(
    id="tasks_report_many",
    answers={200: list[answers.ReportResultDocument]},
    body=parameters.REPORTS,
)
_FILE = Parameter(
    name="name",
    location="path",
    description="Name of the file: 1 to 255 characters without `/`, `\\` or control characters.",
)
files_list = Operation(
    id="files_list",
    answers={200: list[answers.FileDocument]},
    problems=[problems.TaskNotFound],
    parameters=[parameters.TASK],
)
files_upload = Operation(
    id="files_upload",
    answers={201: answers.FileDocument, 200: answers.FileDocument},
    problems=[
        problems.TaskNotFound,
        problems.Forbidden,
        problems.LeaseLost,
        problems.InvalidTaskTransition,
        problems.TooManyFiles,
        problems.FileTooLarge,
        problems.PreconditionFailed,
        problems.LengthRequired,
        problems.StorageUnavailable,
    ],
    parameters=[
        parameters.TASK,
        _FILE,
        Parameter(
            name="attempt",
            location="query",
            description="The attempt of the task that uploads.",
            type=Annotated[int, Field(ge=0)],
            is_required=True,
        ),
        Parameter(
            name="If-Match",
            location="header",
            description="`ETag`s of the attempt's file that may be replaced, or `*` for any.",
        ),
        Parameter(
            name="If-None-Match",
            location="header",
            description="`*`: do not replace a file of the attempt.",
        ),
    ],
    takes_file=True,
)
_FILE_ETAG = Header(
    name="ETag", description="SHA-256 of the content, in quotes.", codes=[200, 206, 304]
)
files_download = Operation(
    id="files_download",
    answers={
        200: {"*/*": bytes},
        206: {"*/*": bytes},
        304: None,
    },
    problems=[
        problems.TaskNotFound,
        problems.Forbidden,
        problems.FileNotFound,
        problems.PreconditionFailed,
        problems.RangeNotSatisfiable,
        problems.StorageUnavailable,
    ],
    parameters=[
        parameters.TASK,
        _FILE,
        Parameter(
            name="Range",
            location="header",
            description="One range of bytes (RFC 9110, section 14); several give the whole file.",
        ),
        Parameter(
            name="If-Range",
            location="header",
            description="An `ETag`: of another file the whole is sent.",
        ),
        Parameter(
            name="If-None-Match", location="header", description="`ETag`s for which 304 is sent."
        ),
    ],
    headers=[
        _FILE_ETAG,
        Header(
            name="Content-Range",
            description="The positions of the first and the last byte, and the size.",
            codes=[206, 416],
        ),
    ],
)
log_retrieve = Operation(
    id="log_retrieve",
    answers={200: answers.LogDocument},
    problems=[problems.TaskNotFound],
    parameters=[
        parameters.TASK,
        Parameter(
            name="offset",
            location="query",
            description="Where to begin, in bytes of UTF-8 from the first one ever written; 0 if "
            "left out. The last {max_log_bytes} bytes of a log are kept.",
            type=Annotated[int, Field(ge=0, le=MAX_OFFSET)],
        ),
        parameters.PREFER,
    ],
    headers=[parameters.PREFERENCE_APPLIED],
)
log_write = Operation(
    id="log_write",
    answers={204: None},
    problems=[
        problems.TaskNotFound,
        problems.Forbidden,
        problems.LeaseLost,
        problems.InvalidTaskTransition,
    ],
    parameters=[parameters.TASK],
    body=bodies.LogBody,
)
workers_list = Operation(
    id="workers_list",
    answers={200: list[answers.WorkerDocument]},
    parameters=parameters.PAGE,
    headers=[parameters.LINK],
)
workers_of_room = Operation(
    id="workers_of_room",
    answers={200: list[answers.WorkerDocument]},
    problems=[problems.InvalidRoomId, problems.WorkerNotFound],
    parameters=[parameters.ROOM, *parameters.PAGE],
    headers=[parameters.LINK],
)
workers_create = Operation(
    id="workers_create",
    answers={201: answers.NewWorkerDocument},
    problems=[problems.TooManyWorkers],
    body=bodies.EmptyBody,
)
workers_heartbeat = Operation(
    id="workers_heartbeat",
    answers={200: answers.HeartbeatDocument},
    problems=[problems.WorkerNotFound],
    parameters=[
        parameters.WORKER,
        Parameter(
            name="Prefer",
            location="header",
            description="`wait=N`: wait up to N seconds until one of the listed tasks is lost or "
            "cancelled (RFC 7240), at most a third of `worker_timeout_seconds`.",
        ),
    ],
    headers=[parameters.PREFERENCE_APPLIED],
    body=bodies.HeartbeatBody,
)
workers_delete = Operation(
    id="workers_delete",
    answers={204: None},
    problems=[problems.WorkerNotFound],
    parameters=[parameters.WORKER],
)
workers_withdraw = Operation(
    id="workers_withdraw",
    answers={204: None},
    problems=[problems.WorkerNotFound, problems.JobNotFound],
    parameters=[
        parameters.WORKER,
        Parameter(
            name="full_name",
            location="path",
            description="Full name of a job that the worker offers: `room:category:Name`.",
        ),
    ],
)
me = Operation(id="me", answers={200: answers.IdentityDocument})
problem_types = Operation(
    id="problem_types",
    answers={200: {"application/json": answers.ProblemTypeDocument, "text/html": str}},
    parameters=[
        Parameter(name="slug", location="path", description="Last part of the `type` of a problem.")
    ],
)
