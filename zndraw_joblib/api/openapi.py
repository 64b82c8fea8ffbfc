"""The operations of the API, one for each endpoint, as the OpenAPI document shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from pydantic import Field

from zndraw_joblib import exceptions as problems
from zndraw_joblib.api import answers, bodies
from zndraw_joblib.api.autoschema import Header, Operation, Parameter
from zndraw_joblib.api.limits import AtMost, Described
from zndraw_joblib.api.parsing import MAX_KEY_LENGTH
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.storage.logs import MAX_OFFSET

_ROOM = Parameter(
    name="room_id",
    location="path",
    description="Room: 1 to {max_room_id_length} characters without `@ : /`, or `@global`.",
)
_JOB = Parameter(
    name="full_name",
    location="path",
    description="Full name of a job of this room or of `@global`: `room:category:Name`.",
)
_TASK = Parameter(name="task_id", location="path", description="Id of the task.", type=UUID)
_WORKER = Parameter(name="worker_id", location="path", description="Id of one of your workers.")
_STATUS = Parameter(
    name="status", location="query", description="Only tasks of this status.", type=TaskStatus
)
_INCLUDE = Parameter(
    name="include",
    location="query",
    description="`result` adds the results, which lists leave out.",
    # No `Literal`, because OpenAPI 3.0 has no `const`.
    type=Annotated[str, Field(pattern="^result$")],
)
_PAGE = [
    Parameter(
        name="limit",
        location="query",
        description="Entries of a page, {default_page_size} if left out.",
        type=Annotated[int, Field(ge=1), AtMost("max_page_size")],
    ),
    Parameter(
        name="cursor",
        location="query",
        description="Beginning of the page, from the `Link` header of the page before.",
    ),
]
_LINK = Header(
    name="Link",
    description='The next page, `rel="next"` (RFC 8288); absent on the last page.',
    codes=[200],
)
_PREFER = Parameter(
    name="Prefer",
    location="header",
    description="`wait=N`: wait up to N seconds for the answer to change (RFC 7240), at most "
    "{long_poll_max_wait_seconds}.",
)
_PREFERENCE_APPLIED = Header(
    name="Preference-Applied",
    description="`wait=N` if the server honoured the wait; N is the number of seconds granted.",
    codes=[200],
)
_ACCEPTED = [
    Header(
        name="Location",
        description="Path of the task, or of the job's tasks for an array.",
        codes=[202],
    ),
    Header(
        name="Retry-After",
        description="Seconds to wait before a request for the task.",
        codes=[202],
        type=int,
    ),
]
_IF_NONE_MATCH = Parameter(
    name="If-None-Match",
    location="header",
    description="`ETag`s of the task that you know: 304 while it is one of these. With `Prefer` "
    "the answer waits for the next change of the task rather than for its end.",
)
_IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    location="header",
    description=f"A string of your own, 1 to {MAX_KEY_LENGTH} characters in quotes: the same "
    "request with the same key gives the same task, for {idempotency_key_ttl_seconds:g} seconds.",
)
_SUBMISSIONS = Annotated[
    list[bodies.SubmissionBody],
    Field(min_length=1),
    Described("Submits several tasks, all or none.", max_items="max_batch_size"),
]
_REPORTS = Annotated[
    list[bodies.ListedReportBody],
    Field(min_length=1),
    Described("Reports that are carried out one by one.", max_items="max_batch_size"),
]

jobs_list = Operation(
    id="jobs_list",
    answers={200: list[answers.JobSummaryDocument]},
    problems=[problems.InvalidRoomId, problems.JobNotFound],
    parameters=[_ROOM, *_PAGE],
    headers=[_LINK],
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
    parameters=[_ROOM],
    body=bodies.RegistrationBody,
)
jobs_retrieve = Operation(
    id="jobs_retrieve",
    answers={200: answers.JobDocument},
    problems=[problems.InvalidRoomId, problems.JobNotFound],
    parameters=[_ROOM, _JOB],
)
jobs_retire = Operation(
    id="jobs_retire",
    answers={204: None},
    problems=[problems.InvalidRoomId, problems.JobNotFound, problems.Forbidden],
    parameters=[
        _ROOM,
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
    parameters=[_ROOM, _JOB, _STATUS, _INCLUDE, *_PAGE],
    headers=[_LINK],
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
    parameters=[_ROOM, _JOB, _IDEMPOTENCY_KEY],
    headers=_ACCEPTED,
    body=bodies.SubmissionBody | _SUBMISSIONS,
)
tasks_list = Operation(
    id="tasks_list",
    answers={200: list[answers.TaskDocument]},
    problems=[problems.InvalidRoomId, problems.TaskNotFound],
    parameters=[_ROOM, _STATUS, _INCLUDE, *_PAGE],
    headers=[_LINK],
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
        _STATUS,
        Parameter(
            name="job",
            location="query",
            description="Only tasks of the job with this full name, `room:category:Name`.",
        ),
        Parameter(name="room", location="query", description="Only tasks of this room."),
        _INCLUDE,
        *_PAGE,
    ],
    headers=[_LINK],
)
tasks_claim = Operation(
    id="tasks_claim",
    answers={200: answers.ClaimDocument},
    problems=[problems.WorkerNotFound],
    parameters=[_PREFER],
    headers=[_PREFERENCE_APPLIED],
    body=bodies.ClaimBody,
)
tasks_retrieve = Operation(
    id="tasks_retrieve",
    answers={200: answers.TaskDocument, 304: None},
    problems=[problems.TaskNotFound],
    parameters=[_TASK, _PREFER, _IF_NONE_MATCH],
    headers=[
        replace(_PREFERENCE_APPLIED, codes=[200, 304]),
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
    parameters=[_TASK, *_PAGE],
    headers=[_LINK],
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
    parameters=[_TASK, _IDEMPOTENCY_KEY],
    headers=_ACCEPTED,
    body=bodies.EmptyBody,
)
tasks_lookup = Operation(
    id="tasks_lookup",
    answers={200: list[answers.TaskDocument]},
    parameters=[_PREFER],
    headers=[_PREFERENCE_APPLIED],
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
    parameters=[_TASK],
    body=bodies.ReportBody,
)
tasks_report_many = Operation(
    id="tasks_report_many",
    answers={200: list[answers.ReportResultDocument]},
    body=_REPORTS,
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
    parameters=[_TASK],
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
        problems.LengthRequired,
        problems.StorageUnavailable,
    ],
    parameters=[
        _TASK,
        _FILE,
        Parameter(
            name="attempt",
            location="query",
            description="The attempt of the task that uploads.",
            type=Annotated[int, Field(ge=0)],
            is_required=True,
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
        _TASK,
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
        _TASK,
        Parameter(
            name="offset",
            location="query",
            description="Where to begin, in bytes of UTF-8 from the first one ever written; 0 if "
            "left out. The last {max_log_bytes} bytes of a log are kept.",
            type=Annotated[int, Field(ge=0, le=MAX_OFFSET)],
        ),
        _PREFER,
    ],
    headers=[_PREFERENCE_APPLIED],
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
    parameters=[_TASK],
    body=bodies.LogBody,
)
workers_list = Operation(
    id="workers_list",
    answers={200: list[answers.WorkerDocument]},
    parameters=_PAGE,
    headers=[_LINK],
)
workers_of_room = Operation(
    id="workers_of_room",
    answers={200: list[answers.WorkerDocument]},
    problems=[problems.InvalidRoomId, problems.WorkerNotFound],
    parameters=[_ROOM, *_PAGE],
    headers=[_LINK],
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
        _WORKER,
        Parameter(
            name="Prefer",
            location="header",
            description="`wait=N`: wait up to N seconds until one of the listed tasks is lost or "
            "cancelled (RFC 7240), at most a third of `worker_timeout_seconds`.",
        ),
    ],
    headers=[_PREFERENCE_APPLIED],
    body=bodies.HeartbeatBody,
)
workers_delete = Operation(
    id="workers_delete",
    answers={204: None},
    problems=[problems.WorkerNotFound],
    parameters=[_WORKER],
)
workers_withdraw = Operation(
    id="workers_withdraw",
    answers={204: None},
    problems=[problems.WorkerNotFound, problems.JobNotFound],
    parameters=[
        _WORKER,
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
