"""The operations of the API but those of `openapi_parts`, as the OpenAPI document shows them."""

from __future__ import annotations

from dataclasses import replace

from zndraw_joblib import exceptions as problems
from zndraw_joblib.api import answers, bodies, job_bodies, parameters, task_bodies
from zndraw_joblib.api.autoschema import Header, Operation, Parameter

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
    body=job_bodies.RegistrationBody,
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
    body=job_bodies.SubmissionBody | parameters.SUBMISSIONS,
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
    body=task_bodies.ClaimBody,
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
    body=task_bodies.LookupBody,
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
    body=task_bodies.ReportBody,
)
tasks_report_many = Operation(
    id="tasks_report_many",
    answers={200: list[answers.ReportResultDocument]},
    body=parameters.REPORTS,
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
    body=task_bodies.HeartbeatBody,
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
