"""Reports on tasks; simultaneous reports share a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
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

#: Most seconds for which posted reports wait for further ones; a request takes longer than that.
GATHER_SECONDS = 0.003

#: Statuses of a refused list whose reports are then sent one by one, because the list may be longer
#: than the server's limit, or one report in it may be malformed or make the server fail.
_SEND_ALONE = {400, 413, 422, 500}

#: Refusals after which the task is no longer this worker's.
LOST = (LeaseLostError, ForbiddenError, InvalidTaskTransitionError)

#: Result of a report: the task, or the error that the report alone would have raised.
Outcome = TaskInfo | ApiError | httpx.TransportError

#: Receives the outcome of a report in the thread that runs `Reporter.deliver`; must not wait.
Settled = Callable[[Outcome], None]


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

    def __init__(self, report: Report, lasting: bool, settled: Settled | None) -> None:
        self.report = report
        self.settled = settled
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
        self.is_withdrawn = False


class Reporter:
    """Sends reports, one request at a time.

    Reports that are made during a request share the next one, because one request for several tasks
    costs the server less than one for each. A report may be sent twice, because the server answers
    a repeated report like the first.

    `send` waits for the outcomes. Its thread sends the request if none is under way, or if it has
    to repeat its own reports. `post` returns at once; a thread that runs `deliver` sends posted
    reports. A manager has a reporter for `send`, and each of its workers one for `post`.
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
        mine, sends = [_Entry(report, lasting, None) for report in reports], False
        try:
            self._add(mine)
            with self._turn:
                self._turn.wait_for(lambda: not self._sending or not _unsettled(mine))
                sends = bool(_unsettled(mine))
                self._sending = self._sending or sends
            if sends:
                self._send_while(lambda: bool(_unsettled(mine)))
        finally:
            # Removes its own reports after an interrupt; the next thread sends the others.
            self._withdraw(mine)
            if sends:
                with self._turn:
                    self._sending = False
                    self._turn.notify_all()
        return [entry.outcome for entry in mine if entry.outcome is not None]

    def post(self, reports: Sequence[tuple[Report, Settled]], *, lasting: bool = True) -> None:
        """Queue reports for the next request; each outcome is given to the report's function."""
        self._add([_Entry(report, lasting, settled) for report, settled in reports])

    def deliver(self, over: Callable[[], bool], more_soon: Callable[[], bool]) -> None:
        """Send posted reports until `over`, in the calling thread.

        While `more_soon` says that further reports are about to be posted, a request waits for
        them, at most `GATHER_SECONDS`. `notify` makes it look at both again. After an exception,
        of a `Settled` too, the posted reports are forgotten.
        """
        try:
            while True:
                with self._turn:
                    self._turn.wait_for(lambda: over() or self._waiting)
                    if over():
                        return
                    self._turn.wait_for(lambda: not more_soon(), GATHER_SECONDS)
                self._send_while(lambda: any(entry.error for entry in self._waiting))
        except BaseException:
            self._withdraw(self._waiting)
            raise

    def notify(self) -> None:
        """Tell threads in `deliver` that their conditions may have changed."""
        with self._turn:
            self._turn.notify_all()

    def _add(self, entries: Sequence[_Entry]) -> None:
        self._grants.begin_ends(_ends(entries))
        with self._turn:
            self._waiting += entries
            self._turn.notify_all()

    def _withdraw(self, entries: Sequence[_Entry]) -> None:
        unsettled = _unsettled(entries)
        with self._turn:
            for entry in unsettled:
                # Its request may be under way in another thread; it is not repeated then.
                entry.is_withdrawn = True
            self._waiting = _unsettled(self._waiting)
        self._grants.finish_ends(_ends(unsettled))

    def _send_while(self, unfinished: Callable[[], bool]) -> None:
        """Send the waiting reports, and again after a pause while reports that failed remain."""
        while True:
            with self._turn:
                batch, self._waiting = self._waiting, []
            try:
                self._deliver(batch)
            finally:
                with self._turn:
                    self._waiting[:0] = _unsettled(batch)
                    self._turn.notify_all()
            if not unfinished():
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
        report = entry.report
        ended = isinstance(outcome, TaskInfo) and report.status != TaskStatus.RUNNING
        if ended or isinstance(outcome, LOST):
            self._grants.drop(report.task_id, report.attempt)
        self._grants.finish_ends(_ends([entry]))
        entry.outcome = outcome
        if entry.settled is not None:
            entry.settled(outcome)

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


def _ends(entries: Sequence[_Entry]) -> list[str]:
    """The ids of the tasks whose end is reported."""
    return [entry.report.task_id for entry in entries if entry.report.status != TaskStatus.RUNNING]


def _unsettled(entries: Sequence[_Entry]) -> list[_Entry]:
    return [entry for entry in entries if entry.outcome is None and not entry.is_withdrawn]


def _outcome(result: ReportResult) -> Outcome:
    """The outcome of one report, from its result in the answer to a list."""
    if result.task is not None:
        return result.task
    return error_of(httpx.Response(result.status, json=result.problem), result.problem)
