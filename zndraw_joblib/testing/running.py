"""Runs submitted tasks in the process of a test, by the SDK's own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import router
from django.db.models import Q
from pydantic import BaseModel

from zndraw_joblib.access import HostCaller
from zndraw_joblib.api.parsing import parse_json
from zndraw_joblib.api.task_bodies import ReportBody
from zndraw_joblib.api.tasks import parse_report
from zndraw_joblib.client import reports as client_reports
from zndraw_joblib.client.calls import check_has_run, check_run
from zndraw_joblib.client.execution import execute_task
from zndraw_joblib.client.tasks import ClaimedTask
from zndraw_joblib.exceptions import (
    InvalidTaskTransition,
    LeaseLost,
    ProblemException,
    TaskNotFound,
)
from zndraw_joblib.host.declarations import declared_classes
from zndraw_joblib.lifecycle import TaskStatus
from zndraw_joblib.models import Task
from zndraw_joblib.names import nfc
from zndraw_joblib.services.report import report
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.single_grants import grant_at_once
from zndraw_joblib.testing.actions import LocalActions
from zndraw_joblib.testing.calls import LocalCall
from zndraw_joblib.testing.classes import JobCode, class_of, tasks_of_class

#: Id and identity of the worker that the tasks are granted to. It has no row.
WORKER = "zndraw_joblib.testing"


def run_pending(
    *jobs: JobCode,
    room_id: str | None = None,
    limit: int | None = None,
    scheduled: bool = False,
) -> list[Task]:
    """Run the due tasks of these jobs as a worker would, until none is left.

    The tasks run one by one in this thread, the longest due first, also those that are submitted
    meanwhile. Each is granted, started and reported as over HTTP, with results, retries and
    signals. A task that fails and has retries left is pending until its backoff is over.

    Parameters
    ----------
    jobs
        The jobs: pydantic classes with a method `run`, or functions as for `JobManager.job`.
        Without any, the classes with this method that `declare_job` got in this process.
    room_id
        Run the tasks of this room only.
    limit
        Most attempts that are run.
    scheduled
        Run also tasks that are not due yet: those with a `run_at` ahead, and retries before the end
        of their backoff.

    Returns
    -------
    list of Task
        The tasks that ended, in the order of their ends. The `error` of a failed one has the
        traceback.

    Raises
    ------
    TypeError
        A job has no method `run`, or its method cannot be called with a task.
    """
    classes = [class_of(job) for job in jobs]
    if not jobs:
        classes = [cls for cls in declared_classes.values() if hasattr(cls, "run")]
    for cls in classes:
        check_run(cls)
        check_has_run(cls)
    ended: list[Task] = []
    attempts = 0
    while limit is None or attempts < limit:
        found = _next_pending(classes, room_id, scheduled)
        if found is None:
            break
        attempts += 1
        task = _run(*found)
        if task is not None and task.is_terminal:
            ended.append(task)
    return ended


def _next_pending(
    classes: Sequence[type[BaseModel]], room_id: str | None, scheduled: bool
) -> tuple[UUID, type[BaseModel]] | None:
    """The longest due task of these classes, and its class; None if there is none."""
    using = router.db_for_write(Task)
    tasks = Task.objects.using(using).filter(status=TaskStatus.PENDING)
    if room_id is not None:
        tasks = tasks.filter(room_id=nfc(room_id))
    if not scheduled:
        tasks = tasks.filter(due_at__lte=Now())
    of_classes = Q()
    for cls in classes:
        of_classes |= tasks_of_class(cls)
    if not of_classes:
        return None
    first = tasks.filter(of_classes).order_by("due_at", "pk").first()
    if first is None:
        return None
    own = Task.objects.using(using).filter(pk=first.pk)
    return first.pk, next(cls for cls in classes if own.filter(tasks_of_class(cls)).exists())


def _run(task_id: UUID, cls: type[BaseModel]) -> Task | None:
    """Grant a task, run it and report its end; returns it as it is then, None without the grant."""
    settings = get_settings()
    row = grant_at_once(Task.objects, task_id, WORKER, settings.lease)
    if row is None:
        return None
    caller = HostCaller(acts_for=WORKER)
    task = ClaimedTask(
        id=str(row.id),
        job_name=row.job_name,
        room_id=row.room_id,
        payload=row.payload,
        created_at=row.created_at,
        attempt=row.attempt,
        status=TaskStatus.RUNNING,
        worker_id=row.worker_id,
        traceparent=row.traceparent,
    )
    actions = LocalActions(caller)
    call = LocalCall(actions, cls)
    task.bind(actions)
    interrupts: list[KeyboardInterrupt] = []

    def call_code(task: ClaimedTask, instance: BaseModel) -> Any:
        try:
            return call(task, instance)
        except KeyboardInterrupt as interrupt:
            interrupts.append(interrupt)
            raise

    given = execute_task(task, cls, call_code, settings.max_result_bytes)
    actions.flush()
    task.bind(None)
    if given is not None:
        _report(caller, given)
    if interrupts:
        # Ctrl-C interrupts the main thread, which no worker runs tasks in.
        raise interrupts[0]
    now: TaskRow | None = Task.objects.read([task_id]).get(task_id)
    return None if now is None else Task.objects.instance(now)


def _report(caller: HostCaller, given: client_reports.Report) -> None:
    """Report the end of a task as a worker does; a refused result makes the task fail."""
    try:
        body = ReportBody.read(parse_json(given.body, ReportBody.free_text))
        report(caller, parse_report(UUID(given.task_id), body))
    except (LeaseLost, InvalidTaskTransition, TaskNotFound):
        return  # The task was cancelled, or is no more.
    except ProblemException as refusal:
        error = f"The result of this task was refused: {refusal}"
        failed = client_reports.Report(given.task_id, TaskStatus.FAILED, given.attempt, error)
        _report(caller, failed)
