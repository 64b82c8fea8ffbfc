"""A worker: one thread claims tasks, the threads of an executor run and report them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import httpx

from zndraw_joblib.client.calls import TaskCall
from zndraw_joblib.client.claiming import Claimer, Claims
from zndraw_joblib.client.exceptions import ApiError, TaskNotFoundError
from zndraw_joblib.client.execution import execute_task
from zndraw_joblib.client.forks import signals_call
from zndraw_joblib.client.pulse import Pulse
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.reports import LOST, Report, Reporter, with_remark
from zndraw_joblib.client.result_json import REMEDY
from zndraw_joblib.client.retry import LASTING, is_outage
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.client.threads import WorkThreads, as_exception
from zndraw_joblib.client.updates import UpdateSender
from zndraw_joblib.lifecycle import TaskStatus

logger = logging.getLogger(__name__)

#: Most seconds before a signal is handled. A signal does not end a wait of the main thread if it
#: comes just before the wait or to another thread, because Python runs handlers between bytecodes.
SIGNAL_LATENCY = 0.5


class Worker:
    """Claims, runs and reports tasks until it is stopped.

    A task occupies one of `concurrency + prefetch` places from its claim until the report of its
    end. Without prefetch there is a thread for each place, so that a claim may start its tasks.
    With prefetch the worker claims when half of the prefetch places are free, and the tasks wait in
    a queue.

    Parameters
    ----------
    claims
        Sends the claims.
    reporter
        Delivers the reports.
    pulse
        Explains the loss of tasks.
    updates
        Sends the last progress and log of a task before the report of its end.
    registration
        Has the class of each job, and the limit of results.
    call
        Calls the code of a task; closed at the end.
    stop_all
        Stops the worker and the streams of the manager; called after a signal or an error.
    concurrency
        Most tasks that run at once.
    prefetch
        Most tasks that are claimed ahead.
    wait
        Seconds of a long poll.
    """

    def __init__(
        self,
        claims: Claims,
        reporter: Reporter,
        pulse: Pulse,
        updates: UpdateSender,
        registration: Registration,
        call: TaskCall,
        stop_all: Callable[[], None],
        *,
        concurrency: int,
        prefetch: int,
        wait: int,
    ) -> None:
        self._grants = claims.grants
        self._reporter = reporter
        self._pulse = pulse
        self._updates = updates
        self._registration = registration
        self._classes = registration.known
        self._call = call
        self._stop_all = stop_all
        self._threads = WorkThreads(concurrency, "joblib-work")
        # Claimed tasks that have not started.
        self._queue: deque[ClaimedTask] = deque()
        self._error: Exception | None = None
        self._claimer = Claimer(
            claims,
            self,
            places=concurrency + prefetch,
            least=max(1, (prefetch + 1) // 2),
            starts=not prefetch,
            retry=LASTING,
            wait=wait,
        )

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._claimer.stopped

    def stop(self) -> None:
        """Start no more tasks, from any thread. Tasks that are queued are dropped."""
        self._claimer.stop()
        while (task := self._pop()) is not None:
            self._drop(task)

    def serve(self) -> None:
        """Serve until the worker is stopped or a signal comes, then finish the running tasks.

        Raises
        ------
        ApiError
            The server refuses to grant tasks, for instance because the token is no longer valid.
        Exception
            A thread of the worker ended unexpectedly.
        """
        drained = threading.Thread(target=self._drain, name="joblib-drain", daemon=True)
        with signals_call(self._stop_all):
            try:
                self._threads.start()
                self._claimer.start()
                while not self._claimer.wait_until_stopped(SIGNAL_LATENCY):
                    pass
                drained.start()
                while drained.is_alive():
                    drained.join(SIGNAL_LATENCY)
            finally:
                # Without waiting, because after an interrupt running tasks are not finished.
                self._threads.end()
        if self._error is not None:
            raise self._error

    def _drain(self) -> None:
        """Wait for running tasks and for tasks that a claim under way may start; close loops."""
        self._grants.wait_until_none_expected()
        self._threads.end()
        self._threads.join()
        self._call.close()

    def receive(self, tasks: Sequence[ClaimedTask]) -> None:
        """Run started tasks, and queue the others; the claimer calls this."""
        started = [task for task in tasks if task.status == TaskStatus.RUNNING]
        # All are queued before one runs, because the end of a task starts the next in the queue.
        queued = [task for task in tasks if task.status != TaskStatus.RUNNING]
        self._queue.extend(queued)
        for _ in queued:
            self._threads.submit(self._work)
        for task in started:
            # Not queued, because a started task must run at once, even after a stop.
            self._threads.submit(self._work, task)

    def fail(self, error: Exception) -> None:
        """End the worker with an error, which `serve` raises; called by any thread that fails."""
        self._error = self._error or error
        self._stop_all()

    def _work(self, started: ClaimedTask | None = None) -> None:
        """Run a started task, and then queued tasks until the queue is empty."""
        task = started
        try:
            task = task or self._start_next()
            while task is not None:
                task = self._start_next(self._run(task))
        except BaseException as error:
            logger.exception(
                "a thread of the worker ended",
                extra=task.log_fields() if task else {"worker_id": self._registration.worker_id},
            )
            if task is not None:
                # Its lease must end, because nobody will report on it.
                self._grants.drop(task.id, task.attempt)
            self.fail(as_exception(error))

    def _run(self, task: ClaimedTask) -> tuple[ClaimedTask, Report] | None:
        """Run a task; returns the task and the report of its end, None if there is no report."""
        cls = self._classes.get(task.job_name)
        report = execute_task(task, cls, self._call, self._registration.max_result_bytes)
        self._updates.finish(task.id, task.attempt)
        # Log text that the task's handlers and threads still write would be refused.
        task.bind(None)
        if report is None:
            self._drop(task)
            return None
        if late := self._pulse.explanation(task):
            # Kept as a remark, also of a completed task, because the next one may be lost.
            error = late if report.error is None else with_remark(report.error, late)
            report = replace(report, error=error)
        return task, report

    def _start_next(self, ended: tuple[ClaimedTask, Report] | None = None) -> ClaimedTask | None:
        """Report the end of a task and the start of the next queued one in one request.

        Returns the task that runs now; None when the queue is empty.
        """
        while True:
            task = self._next_queued()
            reports = [] if ended is None else [ended]
            if task is not None:
                reports.append((task, Report.on(task, TaskStatus.RUNNING)))
            accepted = self._deliver(reports) if reports else []
            if ended is not None:
                self._claimer.free()
            if task is None:
                return None
            if accepted[-1]:
                return task.started()
            self._claimer.free()
            ended = None

    def _deliver(self, reports: Sequence[tuple[ClaimedTask, Report]]) -> list[bool]:
        """Send reports until they are delivered; returns for each whether the server accepted it.

        Heartbeats renew the leases meanwhile. A task whose end the server refuses is reported as
        failed, with the refusal as its error. A task is dropped if that is refused too, if it is
        lost, or if the report was given up after a stop; the server recovers it after its lease.
        """
        late = [self._pulse.explanation(task) for task, _ in reports]
        outcomes = self._reporter.send([report for _, report in reports], lasting=True)
        for (task, report), outcome, reason in zip(reports, outcomes, late, strict=True):
            if isinstance(outcome, (*LOST, TaskNotFoundError)):
                logger.info(
                    "task %s attempt %d was dropped: %s",
                    task.id,
                    task.attempt,
                    outcome,
                    extra=task.log_fields(),
                )
                if reason:
                    self._explain_loss(task, reason)
            elif isinstance(outcome, Exception):
                logger.error(
                    "could not report on task %s: %s", task.id, outcome, extra=task.log_fields()
                )
                if report.status != TaskStatus.RUNNING and not is_outage(outcome):
                    self._report_refusal(task, outcome, has_result=report.result is not None)
            if isinstance(outcome, Exception):
                self._grants.drop(task.id, task.attempt)
        return [not isinstance(outcome, Exception) for outcome in outcomes]

    def _explain_loss(self, task: ClaimedTask, reason: str) -> None:
        """Say why a task was lost, also in its error, if the server has ended it meanwhile."""
        logger.error("task %s was lost. %s", task.id, reason, extra=task.log_fields())
        # Refused if the task goes on elsewhere; its error is then another attempt's to write.
        self._reporter.send([Report.on(task, TaskStatus.FAILED, reason)])

    def _report_refusal(self, task: ClaimedTask, refusal: Exception, *, has_result: bool) -> None:
        """Report a task as failed, because the server refuses the report of its end for good."""
        error = f"The result of this task was refused: {refusal}"
        status = refusal.status if isinstance(refusal, ApiError) else None
        if has_result and status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            error = f"{error} {REMEDY}"
        report = Report.on(task, TaskStatus.FAILED, error)
        (outcome,) = self._reporter.send([report], lasting=True)
        if isinstance(outcome, Exception):
            logger.error(
                "could not report task %s as failed: %s", task.id, outcome, extra=task.log_fields()
            )

    def _next_queued(self) -> ClaimedTask | None:
        """Take the next task from the queue; drops tasks that were cancelled or lost meanwhile."""
        while (task := self._pop()) is not None:
            if not self._grants.is_stopped(task):
                return task
            logger.info(
                "task %s attempt %d was dropped unstarted",
                task.id,
                task.attempt,
                extra=task.log_fields(),
            )
            self._drop(task)
        return None

    def _pop(self) -> ClaimedTask | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def _drop(self, task: ClaimedTask) -> None:
        """Stop renewing a queued task's lease and free its place."""
        self._grants.drop(task.id, task.attempt)
        self._claimer.free()
