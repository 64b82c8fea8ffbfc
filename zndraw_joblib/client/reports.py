"""Reports on tasks; simultaneous reports share a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from zndraw_joblib.client.api import ApiManager, path, send
from zndraw_joblib.client.batches import array, batch_slices, encode
from zndraw_joblib.client.exceptions import (
    ApiError,
    ForbiddenError,
    InvalidTaskTransitionError,
    LeaseLostError,
    error_of,
)
from zndraw_joblib.client.grants import Grants
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.retry import LASTING, REPEATABLE, OutageLog
from zndraw_joblib.client.schemas import ReportResult, TaskInfo, read_list, read_results, read_task
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.text import truncate_utf8

#: Seconds for which a report is repeated after a stop, or after it was made if that is later. A
#: restart of the server may take as long, because the server answers its long polls first, and the
#: default lease is no longer.
GIVE_UP_SECONDS = 60.0

#: Most bytes of an error text in UTF-8. A server with a lower limit cuts the text itself.
MAX_ERROR_BYTES = 8192

#: Most bytes of a list of reports, whose results may be large.
REPORT_BYTES = 524_288

#: Seconds after a request within which its threads usually report again if their tasks are short.
GATHER_SECONDS = 0.003

#: Statuses of a refused list whose reports are then sent one by one, because the list may be longer
#: than the server's limit, or one report in it may be malformed or make the server fail.
_SEND_ALONE = {400, 413, 422, 500}

#: Refusals after which the task is no longer this worker's.
LOST = (LeaseLostError, ForbiddenError, InvalidTaskTransitionError)

#: Result of a report: the task, or the error that the report alone would have raised.
Outcome = TaskInfo | ApiError | httpx.TransportError


@dataclass(frozen=True)
class Report:
    """A report on a task. Without `attempt` the caller's identity alone is the fence.

    Attributes
    ----------
    error : str or None
        Why the task failed or was cancelled; beside completed it is a remark.
    result : bytes or None
        The result of a completed task, as JSON (`result_json`).
    retry : bool or None
        False if a failed task must not be tried again although it has retries left.
    retry_after : float or None
        Seconds before a failed task is tried again, in place of the job's backoff.
    """

    task_id: str
    status: TaskStatus
    attempt: int | None = None
    error: str | None = None
    result: bytes | None = None
    retry: bool | None = None
    retry_after: float | None = None

    @classmethod
    def on(
        cls,
        task: ClaimedTask | TaskInfo | str,
        status: TaskStatus,
        error: str | None = None,
        **fields: Any,
    ) -> Report:
        """A report on a task; it has an attempt only for a task from a claim.

        `fields` are further attributes of the report.
        """
        attempt = task.attempt if isinstance(task, ClaimedTask) else None
        return cls(task if isinstance(task, str) else task.id, status, attempt, error, **fields)

    @property
    def body(self) -> bytes:
        """The JSON that is sent; the error without characters that the server cannot store."""
        fields = {
            "status": self.status,
            "attempt": self.attempt,
            "error": self.error and truncate_utf8(self.error, MAX_ERROR_BYTES),
            "retry": self.retry,
            "retry_after": self.retry_after,
        }
        body = encode({key: value for key, value in fields.items() if value is not None})
        # Spliced in, because the result was encoded when it was checked.
        return body if self.result is None else body[:-1] + b',"result":' + self.result + b"}"


class _Entry:
    """A report that is being delivered; `lasting` ones are repeated until the outage is over."""

    def __init__(self, report: Report, lasting: bool) -> None:
        self.lasting = lasting
        self.retry = LASTING if lasting else REPEATABLE
        self.made_at = time.monotonic()
        self.url = path("tasks", report.task_id)
        self.single_body = report.body
        self.list_entry = encode({"id": report.task_id})[:-1] + b"," + self.single_body[1:]
        self.attempts = 0
        self.pause = 0.0
        self.error: ApiError | httpx.TransportError | None = None
        self.outcome: Outcome | None = None


class Reporter:
    """Sends reports, one request at a time.

    A thread sends its reports at once if no request is under way. Reports that are made during a
    request share the next one. The same thread sends it if it has to repeat its own reports, else
    one of the waiting threads. A report may be sent twice, because the server answers a repeated
    report like the first.

    The next request also waits for the threads whose reports the last one had, at most
    `GATHER_SECONDS` after its end: where tasks are short, one request for all threads costs the
    server less than one for each. A single thread never waits.
    """

    def __init__(
        self, api: ApiManager, registration: Registration, grants: Grants, batch_size: int
    ) -> None:
        self._api = api
        self._registration = registration
        self._grants = grants
        self._batch_size = batch_size
        self._outage = OutageLog("deliver reports")
        self._turn = threading.Condition()
        self._waiting: list[_Entry] = []
        self._sending = False
        # Calls of `send` that wait, and as many as a request waits for, until a monotonic time.
        self._calls = 0
        self._expected_calls = 0
        self._gather_until = 0.0
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Give lasting reports up when they cannot be delivered for `GIVE_UP_SECONDS`."""
        with self._turn:
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
            self._turn.notify_all()

    def resume(self) -> None:
        """Repeat lasting reports for ever again."""
        with self._turn:
            self._stopped_at = None

    def send(self, reports: Sequence[Report], *, lasting: bool = False) -> list[Outcome]:
        """Deliver reports; returns the outcome of each, in their order. Refusals are not raised.

        Tasks that have ended or were lost are removed from the grants.

        During an outage lasting reports are repeated until it is over or they are given up, others
        up to `retry.ATTEMPTS` times.
        """
        ends = [report.task_id for report in reports if report.status != TaskStatus.RUNNING]
        with self._grants.ending(ends):
            return self._send(reports, lasting)

    def _send(self, reports: Sequence[Report], lasting: bool) -> list[Outcome]:
        mine = [_Entry(report, lasting) for report in reports]
        with self._turn:
            self._waiting += mine
            self._calls += 1
            if self._calls == self._expected_calls:
                self._turn.notify_all()
            self._turn.wait_for(lambda: not self._sending or not _unsettled(mine))
            sends = bool(_unsettled(mine))
            self._sending = self._sending or sends
            if sends:
                self._gather()
        if sends:
            try:
                self._send_until_settled(mine)
            finally:
                with self._turn:
                    # Removes its own reports after an interrupt; the next thread sends the others.
                    self._waiting = [entry for entry in self._waiting if entry not in mine]
                    self._sending = False
                    self._turn.notify_all()
        outcomes = [entry.outcome for entry in mine if entry.outcome is not None]
        for report, outcome in zip(reports, outcomes, strict=True):
            ended = isinstance(outcome, TaskInfo) and report.status != TaskStatus.RUNNING
            if ended or isinstance(outcome, LOST):
                self._grants.drop(report.task_id, report.attempt)
        return outcomes

    def _gather(self) -> None:
        """Wait for the threads whose reports the last request had; called with the lock."""
        while (
            self._calls < self._expected_calls
            and (left := self._gather_until - time.monotonic()) > 0
        ):
            self._turn.wait(left)

    def _send_until_settled(self, mine: Sequence[_Entry]) -> None:
        while True:
            with self._turn:
                batch, self._waiting = self._waiting, []
                calls, self._calls = self._calls, 0
            try:
                self._deliver(batch)
            finally:
                with self._turn:
                    self._waiting[:0] = _unsettled(batch)
                    self._expected_calls = calls + self._calls
                    self._gather_until = time.monotonic() + GATHER_SECONDS
                    self._turn.notify_all()
            if not _unsettled(mine):
                return
            self._pause()

    def _pause(self) -> None:
        """Wait for the next attempt, until a report is given up at the latest."""
        with self._turn:
            failed = [entry for entry in self._waiting if entry.error is not None]
            error, seconds = failed[0].error, max(entry.pause for entry in failed)
            if error is not None:
                self._outage.failed(error, seconds)
            ends = time.monotonic() + seconds
            while (
                left := min([ends, *map(self._given_up_at, self._waiting)]) - time.monotonic()
            ) > 0:
                self._turn.wait(left)

    def _given_up_at(self, entry: _Entry) -> float:
        """When a lasting report is given up, by the monotonic clock; never for the others."""
        stopped_at = self._stopped_at
        if not entry.lasting or stopped_at is None:
            return float("inf")
        return max(stopped_at, entry.made_at) + GIVE_UP_SECONDS

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        """Set the outcome of a report, unless another attempt follows."""
        entry.attempts += 1
        if isinstance(outcome, Exception) and time.monotonic() < self._given_up_at(entry):
            # For a lease, because the server also refuses the heartbeats that would renew it.
            patience = entry.made_at + self._registration.lease - time.monotonic()
            pause = entry.retry.pause(outcome, entry.attempts, patience if entry.lasting else 0)
            if pause is not None:
                entry.error, entry.pause = outcome, pause
                return
        entry.outcome = outcome

    def _deliver(self, entries: Sequence[_Entry]) -> None:
        """Try once to deliver each report."""
        encoded = [entry.list_entry for entry in entries]
        for cut in batch_slices(encoded, self._batch_size, REPORT_BYTES):
            batch = entries[cut]
            if len(batch) == 1:
                self._deliver_alone(batch[0])
                continue
            body = array(encoded[cut])
            try:
                results = send(
                    self._api,
                    "PATCH",
                    path("tasks"),
                    read=read_list(read_results, len(batch)),
                    body=body,
                    retry=None,
                )
            except (ApiError, httpx.TransportError) as error:
                for entry in batch:
                    if isinstance(error, ApiError) and error.status in _SEND_ALONE:
                        self._deliver_alone(entry)
                    else:
                        self._settle(entry, error)
            else:
                self._outage.ended()
                for entry, result in zip(batch, results, strict=True):
                    self._settle(entry, _outcome(result))

    def _deliver_alone(self, entry: _Entry) -> None:
        try:
            task = send(
                self._api, "PATCH", entry.url, read=read_task, body=entry.single_body, retry=None
            )
        except (ApiError, httpx.TransportError) as error:
            self._settle(entry, error)
        else:
            self._outage.ended()
            self._settle(entry, task)


def with_remark(error: str, remark: str) -> str:
    """An error text with a remark at its end, for which the text is truncated if need be."""
    return f"{truncate_utf8(error, MAX_ERROR_BYTES - len(remark.encode()) - 2)}\n\n{remark}"


def _unsettled(entries: Sequence[_Entry]) -> list[_Entry]:
    return [entry for entry in entries if entry.outcome is None]


def _outcome(result: ReportResult) -> Outcome:
    """The outcome of one report, from its result in the answer to a list."""
    if result.task is not None:
        return result.task
    return error_of(httpx.Response(result.status, json=result.problem), result.problem)
