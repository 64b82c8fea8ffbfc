"""The operations on what belongs to a task or a room: files, logs and events."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from zndraw_joblib import exceptions as problems
from zndraw_joblib.api import answers, parameters, task_bodies
from zndraw_joblib.api.autoschema import Header, Operation, Parameter
from zndraw_joblib.storage.logs import MAX_OFFSET

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
    body=task_bodies.LogBody,
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
