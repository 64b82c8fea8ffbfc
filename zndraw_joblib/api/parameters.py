"""The parameters and headers of the operations, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from zndraw_joblib.api import job_bodies, task_bodies
from zndraw_joblib.api.autoschema import Header, Parameter
from zndraw_joblib.api.limits import AtMost, Described
from zndraw_joblib.api.parsing import MAX_KEY_LENGTH
from zndraw_joblib.lifecycle import TaskStatus

ROOM = Parameter(
    name="room_id",
    location="path",
    description="Room: 1 to {max_room_id_length} characters without `@ : /`, or `@global`.",
)
JOB = Parameter(
    name="full_name",
    location="path",
    description="Full name of a job of this room or of `@global`: `room:category:Name`.",
)
TASK = Parameter(name="task_id", location="path", description="Id of the task.", type=UUID)
WORKER = Parameter(name="worker_id", location="path", description="Id of one of your workers.")
STATUS = Parameter(
    name="status", location="query", description="Only tasks of this status.", type=TaskStatus
)
INCLUDE = Parameter(
    name="include",
    location="query",
    description="`result` adds the results, which lists leave out.",
    # No `Literal`, because OpenAPI 3.0 has no `const`.
    type=Annotated[str, Field(pattern="^result$")],
)
PAGE = [
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
LINK = Header(
    name="Link",
    description='The next page, `rel="next"` (RFC 8288); absent on the last page.',
    codes=[200],
)
PREFER = Parameter(
    name="Prefer",
    location="header",
    description="`wait=N`: wait up to N seconds for the answer to change (RFC 7240), at most "
    "{long_poll_max_wait_seconds}.",
)
PREFERENCE_APPLIED = Header(
    name="Preference-Applied",
    description="`wait=N` if the server honoured the wait; N is the number of seconds granted.",
    codes=[200],
)
ACCEPTED = [
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
IF_NONE_MATCH = Parameter(
    name="If-None-Match",
    location="header",
    description="`ETag`s of the task that you know: 304 while it is one of these. With `Prefer` "
    "the answer waits for the next change of the task rather than for its end.",
)
IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    location="header",
    description=f"A string of your own, 1 to {MAX_KEY_LENGTH} characters in quotes: the same "
    "request with the same key gives the same task, for {idempotency_key_ttl_seconds:g} seconds.",
)
TRACEPARENT = Parameter(
    name="traceparent",
    location="header",
    description="Trace context (W3C), which is kept with the task; an invalid one is ignored.",
)
SUBMISSIONS = Annotated[
    list[job_bodies.SubmissionBody],
    Field(min_length=1),
    Described("Submits several tasks, all or none.", max_items="max_batch_size"),
]
REPORTS = Annotated[
    list[task_bodies.ListedReportBody],
    Field(min_length=1),
    Described("Reports that are carried out one by one.", max_items="max_batch_size"),
]
