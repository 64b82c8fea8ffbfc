"""A worker: one thread claims tasks, an executor's threads run them, and one reports on them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import httpx

from zndraw_joblib.client.calls import TaskCall
from zndraw_joblib.client.claiming import Claimer, Claims
from zndraw_joblib.client.exceptions import ApiError, TaskNotFoundError
from zndraw_joblib.client.execution import execute_task
from zndraw_joblib.client.forks import signals_call
from zndraw_joblib.client.pulse import Pulse
from zndraw_joblib.client.registration import Registration
from zndraw_joblib.client.reports import LOST, Outcome, Report, Reporter, with_remark
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
#: Most seconds of a short run: a request takes about as long.
SHORT_SECONDS = 0.005
#: Short runs in a row after which the next tasks are taken to be short too.
SHORT_RUNS = 8
#: Tasks that are started ahead for each thread, while tasks are short.
STARTS_AHEAD = 2


class Worker:
    """Claims, runs and reports tasks until it is stopped.

    A task occupies one of `concurrency + prefetch` places from its claim until the report of its
    end. Without prefetch there is a thread for each place, so that a claim may start its tasks.
    With prefetch the worker claims when half of the prefetch places are free, and the tasks wait in
    a queue. When a task has ended, the report of its end and of the next one's start share a
    request, and the thread is free for a task that is started already.

    While tasks are short, some are started ahead: `STARTS_AHEAD` for each thread. The threads then
    have work during a request, and a request has the reports of more tasks. After a long run no
    more are started ahead.

    Parameters
    ----------
    claims
        Sends the claims.
    reporter
        Delivers the reports of this worker only, in a thread of the worker.
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
        self._concurrency = concurrency
        # Held for the fields below.
        self._changed = threading.Condition()
        # Claimed tasks that have not started.
        self._queue: deque[ClaimedTask] = deque()
        # Tasks from the post of their start until the outcome of their end.
        self._open: dict[tuple[str, int], ClaimedTask] = {}
        # How many of these have not ended their run, and how many of those have a thread or wait
        # for one, because their start was accepted.
        self._unended = 0
        self._started = 0
        self._short_runs = 0
        # Whether no further task is run, because the threads end.
        self._ended = False
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
        """Report no more starts, from any thread; a start reported before is still run.

        Queued tasks are dropped. Reports are given up `GIVE_UP_SECONDS` after the stop.
        """
        self._reporter.stop()
        self._claimer.stop()
        with self._changed:
            queued = list(self._queue)
            self._queue.clear()
        self._drop(queued)

    def serve(self) -> None:
        """Serve until the worker is stopped or a signal comes, then finish the running tasks.

        Raises
        ------
        ApiError
            The server refuses to grant tasks, for instance because the token is no longer valid.
        Exception
            A thread of the worker ended unexpectedly.
        """
        delivery = threading.Thread(target=self._deliver, name="joblib-report", daemon=True)
        drained = threading.Thread(target=self._drain, name="joblib-drain", daemon=True)
        with signals_call(self._stop_all):
            try:
                delivery.start()
                self._threads.start()
                self._claimer.start()
                while not self._claimer.wait_until_stopped(SIGNAL_LATENCY):
                    pass
                drained.start()
                while drained.is_alive():
                    drained.join(SIGNAL_LATENCY)
            finally:
                # Without waiting, because after an interrupt running tasks are not finished.
                self._end()
        if self._error is not None:
            raise self._error

    def _end(self) -> None:
        """Run no further task, and end the threads when they have run those that they have."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._threads.end()
        self._reporter.notify()

    def _deliver(self) -> None:
        """Deliver reports until the worker has ended and no task is open."""
        try:
            self._reporter.deliver(
                over=lambda: self._ended and not self._open,
                more_soon=lambda: self._are_short() and self._started > 0,
            )
        except BaseException as error:
            self._end()
            with self._changed:
                unreported = list(self._open.values())
                self._open.clear()
                self._changed.notify_all()
            # Their leases must end, because nobody will report on them.
            self._drop(unreported)
            try:
                worker_id = self._registration.worker_id
                logger.exception(
                    "the thread that delivers reports ended", extra={"worker_id": worker_id}
                )
            finally:
                self.fail(as_exception(error))

    def _drain(self) -> None:
        """Wait for tasks that run or that a claim under way may start; close loops."""
        self._grants.wait_until_none_expected()
        with self._changed:
            self._changed.wait_for(lambda: not self._open)
        self._end()
        self._threads.join()
        self._call.close()

    def receive(self, tasks: Sequence[ClaimedTask]) -> None:
        """Run started tasks, and queue the others; the claimer calls this."""
        for task in tasks:
            if task.status == TaskStatus.RUNNING:
                # Not queued, because a started task must run at once, even after a stop.
                with self._changed:
                    self._begin(task)
                self._run_in_thread(task)
        with self._changed:
            self._queue += [task for task in tasks if task.status != TaskStatus.RUNNING]
        self._post()

    def fail(self, error: Exception) -> None:
        """End the worker with an error, which `serve` raises; called by any thread that fails."""
        self._error = self._error or error
        self._stop_all()

    def _post(self, *ends: tuple[ClaimedTask, Report]) -> None:
        """Report ends, and the starts of queued tasks, as far as there is room for these."""
        starts = [(task, Report.on(task, TaskStatus.RUNNING)) for task in self._take_queued()]
        # Explained now, because the grant at which the reason is noted ends with a refusal.
        posted = [
            (task, report, partial(settled, task, report, self._pulse.explanation(task)))
            for reports, settled in ((ends, self._end_settled), (starts, self._start_settled))
            for task, report in reports
        ]
        with self._changed:
            # None of those that were closed because the delivery ended.
            self._reporter.post([one[1:] for one in posted if self._is_open(one[0])])

    def _take_queued(self) -> list[ClaimedTask]:
        """Take tasks from the queue; drops those that were cancelled or lost meanwhile."""
        taken, dropped = [], []
        with self._changed:
            ahead = STARTS_AHEAD if self._are_short() else 0
            room = 0 if self._ended else self._concurrency * (1 + ahead)
            while self._queue and self._unended < room:
                task = self._queue.popleft()
                if self._grants.is_stopped(task):
                    dropped.append(task)
                else:
                    self._begin(task)
                    taken.append(task)
        self._drop(dropped)
        return taken

    def _are_short(self) -> bool:
        return self._short_runs >= SHORT_RUNS

    def _is_open(self, task: ClaimedTask) -> bool:
        return (task.id, task.attempt) in self._open

    def _begin(self, task: ClaimedTask) -> None:
        self._open[task.id, task.attempt] = task
        self._unended += 1

    def _run_in_thread(self, task: ClaimedTask) -> None:
        """Run a started task in the next free thread; drop it if there will be none."""
        with self._changed:
            if not self._ended:
                self._started += 1
                self._threads.submit(self._work, task)
                return
            self._unended -= 1
        self._close(task)

    def _start_settled(
        self, task: ClaimedTask, report: Report, late: str | None, outcome: Outcome
    ) -> None:
        if not isinstance(outcome, Exception):
            self._run_in_thread(task.started())
            return
        with self._changed:
            self._unended -= 1
        self._refused(task, report, late, outcome)
        self._post()

    def _work(self, task: ClaimedTask) -> None:
        """Run a started task in a thread of the executor, and post the report of its end."""
        try:
            begun = time.monotonic()
            # It may have been cancelled, also by this process, or lost since it started.
            runs = self._grants.holds(task) and not self._grants.is_stopped(task)
            report = self._run(task) if runs else None
            seconds = time.monotonic() - begun
            with self._changed:
                self._unended -= 1
                self._started -= 1
                self._short_runs = self._short_runs + 1 if seconds < SHORT_SECONDS else 0
            if report is None:
                self._close(task)
                self._post()
            else:
                self._post((task, report))
        except BaseException as error:
            # Its lease must end, because nobody will report on it.
            self._close(task)
            try:
                logger.exception("a thread of the worker ended", extra=task.log_fields())
            finally:
                self.fail(as_exception(error))

    def _run(self, task: ClaimedTask) -> Report | None:
        """Run a task; returns the report of its end, None if there is nothing to report."""
        cls = self._classes.get(task.job_name)
        report = execute_task(task, cls, self._call, self._registration.max_result_bytes)
        self._updates.finish(task.id, task.attempt)
        # Log text that the task's handlers and threads still write would be refused.
        task.bind(None)
        if report is not None and (late := self._pulse.explanation(task)):
            # Kept as a remark, also of a completed task, because the next one may be lost.
            error = late if report.error is None else with_remark(report.error, late)
            report = replace(report, error=error)
        return report

    def _end_settled(
        self, task: ClaimedTask, report: Report, late: str | None, outcome: Outcome
    ) -> None:
        if isinstance(outcome, Exception):
            self._refused(task, report, late, outcome)
        else:
            self._close(task)

    def _refused(
        self, task: ClaimedTask, report: Report, late: str | None, outcome: Exception
    ) -> None:
        """Drop a task whose report was refused, or given up after a stop.

        The server recovers it after its lease. A task whose end the server refuses is first
        reported as failed, with the refusal as its error.
        """
        if isinstance(outcome, (*LOST, TaskNotFoundError)):
            logger.info(
                "task %s attempt %d was dropped: %s",
                task.id,
                task.attempt,
                outcome,
                extra=task.log_fields(),
            )
            if late:
                logger.error("task %s was lost. %s", task.id, late, extra=task.log_fields())
                # Says in the task's error why it was lost, if the server has ended it meanwhile.
                # Refused if the task goes on elsewhere; its error is then another attempt's.
                explained = Report.on(task, TaskStatus.FAILED, late)
                self._reporter.post([(explained, lambda _: self._close(task))], lasting=False)
                return
        else:
            logger.error(
                "could not report on task %s: %s", task.id, outcome, extra=task.log_fields()
            )
            if report.status != TaskStatus.RUNNING and not is_outage(outcome):
                failed = Report.on(task, TaskStatus.FAILED, _refusal(outcome, report))
                self._reporter.post([(failed, partial(self._failure_settled, task))])
                return
        self._close(task)

    def _failure_settled(self, task: ClaimedTask, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            logger.error(
                "could not report task %s as failed: %s", task.id, outcome, extra=task.log_fields()
            )
        self._close(task)

    def _close(self, task: ClaimedTask) -> None:
        """Forget a task, stop renewing its lease, and free its place."""
        with self._changed:
            if not self._is_open(task):
                return  # Closed when the delivery ended.
            del self._open[task.id, task.attempt]
            self._changed.notify_all()
        self._drop([task])

    def _drop(self, tasks: Iterable[ClaimedTask]) -> None:
        """Stop renewing the leases of tasks and free their places."""
        for task in tasks:
            self._grants.drop(task.id, task.attempt)
            self._claimer.free()


def _refusal(error: Exception, report: Report) -> str:
    """The error of a task whose end the server refuses for good."""
    text = f"The result of this task was refused: {error}"
    status = error.status if isinstance(error, ApiError) else None
    if report.result is not None and status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        text = f"{text} {REMEDY}"
    return text
