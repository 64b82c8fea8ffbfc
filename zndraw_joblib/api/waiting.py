"""``Prefer: wait=N`` (RFC 7240): requests that wait without a thread or a database connection.

The sync view runs once in a thread. If its response may still change, the thread and its database
connection are released and the request waits on the event loop. After a wait for ends or changes
the tasks are read again, and after a heartbeat's wait its grants, in one query for all requests
whose waits ended at the same moment. After a wait for work the view of the claim runs again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from uuid import UUID

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase
from rest_framework.response import Response

from zndraw_joblib.api.awaited import (
    Until,
    UntilChange,
    UntilEnd,
    UntilMoreLog,
    UntilStop,
    UntilWork,
)
from zndraw_joblib.api.documents import log_document, task_document, task_tag
from zndraw_joblib.events.hub import get_hub
from zndraw_joblib.services.claim import requeue_granted
from zndraw_joblib.settings import get_settings
from zndraw_joblib.storage.connections import release_connections
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.waits import GrantState
from zndraw_joblib.tenancy import in_tenant, tenant_of

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]
RunView = Callable[[], Coroutine[Any, Any, HttpResponseBase]]

#: Fraction of its time by which a wait may end early.
MAX_EARLY = 0.25
#: Seconds after the deadline within which the last attempt of a claim must end.
MAX_LATE = 0.5


def wait_of(request: HttpRequest) -> int | None:
    """The seconds that a request may wait, by its `Prefer` header; None if it may not.

    None under WSGI, as in Django's test client. A heartbeat, the only PATCH that waits, may wait
    for a third of the lease, because the leases that it renewed must be renewed again.
    """
    wait = granted_wait(request.META.get("HTTP_PREFER"))
    if wait is None or not isinstance(request, ASGIRequest):
        return None
    match request.method:
        case "GET" | "POST":
            return wait
        case "PATCH":
            return min(wait, int(get_settings().worker_timeout_seconds / 3))
        case _:
            return None


def granted_wait(header: str | None) -> int | None:
    """The seconds to wait that a `Prefer` header asks for, capped; None without `wait`.

    Malformed preferences are ignored, and of several the first counts (RFC 7240, section 2).
    """
    for preference in (header or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"').strip()
            if not (digits.isascii() and digits.isdigit()):
                return None
            # More than nine digits are not parsed, because int() of thousands of digits is slow.
            wait = int(digits) if len(digits) < 10 else 10**9
            return min(wait, get_settings().long_poll_max_wait_seconds)
    return None


class MustWait(BaseException):
    """Leaves the middleware of the lane, because the request has to wait before its response.

    Not an `Exception`, because Django and DRF turn each of those into a response. Middleware treats
    it as a cancellation: only its `finally` clauses run.
    """


def waiting_view(view: View, method: str) -> Callable[..., Any]:
    """Make a coroutine of a sync DRF view, which runs the view in a thread and may wait.

    Only requests of this method wait.

    A response that may change has the attribute `waits_for`, one of the `Until`s.
    """

    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        wait = wait_of(request)
        if wait is None or request.method != method:
            return await sync_to_async(view)(request, *args, **kwargs)

        waits_for: Until | None = None

        async def run_view() -> HttpResponseBase:
            nonlocal waits_for
            # No middleware chooses the tenant for the thread of a later run.
            tenant = waits_for.tenant if waits_for else None
            response = await _run_in_thread(tenant, view, request, *args, **kwargs)
            waits_for = getattr(response, "waits_for", None)
            # Throttles count a request only once, although its view may run several times.
            request.joblib_is_rerun = True  # type: ignore[attr-defined]
            return response

        response = await last_response(run_view, wait)
        set_preference_applied(response, wait)
        return response

    return wrapper


def set_preference_applied(response: HttpResponseBase, wait: int) -> None:
    """Set the header `Preference-Applied`, except where no wait was possible.

    Errors do not wait, nor do responses with the attribute `never_waits`.
    """
    if response.status_code < 400 and not hasattr(response, "never_waits"):
        response["Preference-Applied"] = f"wait={wait}"


async def last_response(run_view: RunView, wait: int) -> HttpResponseBase:
    """The view's response once it is final, after up to `wait` seconds; `run_view` runs it."""

    async def run_shielded() -> HttpResponseBase:
        running = asyncio.ensure_future(run_view())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # The client left during the view. Tasks that the view claimed are requeued at once,
            # because they would otherwise wait for the end of their leases.
            running.add_done_callback(_requeue_claimed)
            raise

    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await run_shielded()
    # Earlier than `wait` seconds from now, because under load the request was queued before. That
    # time is unknown and estimated by the time that the first run of the view took.
    deadline = began + wait - min(loop.time() - began, MAX_EARLY * wait)
    match getattr(response, "waits_for", None):
        case UntilEnd() as until if wait:
            return await _wait_for_end(run_shielded, response, until, deadline)
        case UntilWork() as until if wait:
            return await _wait_for_work(run_shielded, response, until, deadline)
        case UntilMoreLog() as until if wait:
            return await _wait_for_log(run_shielded, response, until, deadline)
        case UntilChange() as until if wait:
            return await _wait_for_change(run_shielded, response, until, deadline)
        case UntilStop() as until if wait:
            return await _wait_for_stop(run_shielded, response, until, deadline)
    return response


async def _wait_for_end(
    run_view: RunView, response: Any, until: UntilEnd, deadline: float
) -> HttpResponseBase:
    ends = get_hub(until.tenant).ends
    # Frees the documents, because they are read again after the wait and 500 of them may be large.
    response.data = None
    if response.is_rendered:
        response.content = b""
    await ends.wait(until.rooms, deadline)
    try:
        found = await ends.read(tuple(until.rooms), until.visible, until.include_result)
    except Exception:
        # The hub has logged an error of the database. The view runs again to answer with the
        # problem, and to log an error of a hook.
        return await run_view()
    if not found and not until.many:
        return await run_view()
    documents = [task_document(task, include_result=until.include_result) for task in found]
    if not until.many:
        response.headers["ETag"] = task_tag(found[0])
    return _with_data(response, documents if until.many else documents[0])


async def _wait_for_log(
    run_view: RunView, response: Any, until: UntilMoreLog, deadline: float
) -> HttpResponseBase:
    logs = get_hub(until.tenant).logs
    await logs.wait(until.task_id, until.offset, deadline)
    try:
        part = await logs.read(until.task_id, until.offset, until.visible)
    except Exception:
        # As after a wait for ends: the view runs again to answer with the problem.
        return await run_view()
    if part is None:
        return await run_view()
    return _with_data(response, log_document(part))


async def _wait_for_change(
    run_view: RunView, response: Any, until: UntilChange, deadline: float
) -> HttpResponseBase:
    def is_known(task: TaskRow) -> bool:
        return task_tag(task) in until.known

    task = (until.task_id, until.room_id, until.revision)
    try:
        now = await get_hub(until.tenant).changes.wait(task, until.visible, is_known, deadline)
    except Exception:
        # As in `_wait_for_end`.
        return await run_view()
    if now is None:
        return await run_view()
    response.headers["ETag"] = task_tag(now)
    if is_known(now):
        return response  # type: ignore[no-any-return]
    response.status_code = 200
    return _with_data(response, task_document(now))


async def _wait_for_stop(
    run_view: RunView, response: Any, until: UntilStop, deadline: float
) -> HttpResponseBase:
    try:
        states = await get_hub(until.tenant).stops.wait(until.grants, deadline)
    except Exception:
        # The hub has logged the error. The view runs again to answer with the problem.
        return await run_view()
    stopped = {
        name: [grant.id for grant, each in zip(until.grants, states, strict=True) if each == state]
        for name, state in (("lost", GrantState.LOST), ("cancelled", GrantState.CANCELLED))
    }
    return _with_data(response, response.data | stopped)


def _with_data(response: Any, data: Any) -> HttpResponseBase:
    """The response with other data, rendered if it was rendered."""
    response.data = data
    if response.is_rendered:
        response.content = response.rendered_content
    return response  # type: ignore[no-any-return]


async def _wait_for_work(
    run_view: RunView, response: Any, until: UntilWork, deadline: float
) -> HttpResponseBase:
    async def attempt() -> list[str] | None:
        nonlocal response
        response = await run_view()
        claimed = [task["id"].hex for task in _claimed(response)]
        now: UntilWork | None = getattr(response, "waits_for", None)
        # An error ends the wait, as a claimed task does. So does a change of the worker's jobs,
        # because this claimer would take wakeups of a job that its worker offers no more.
        ends = claimed or now is None or set(now.jobs) != set(until.jobs)
        return claimed if ends else None

    if not await get_hub(until.tenant).work.wait(until.jobs, deadline, attempt):
        # One more attempt, because a message may have been lost, or the worker may have been
        # deleted or registered for another job.
        try:
            async with asyncio.timeout_at(deadline + MAX_LATE):
                if await _is_worth_claiming(until):
                    await attempt()
        except TimeoutError:
            # A new thread for the rest of the request, because the attempt still uses this one.
            release_thread()
    result: HttpResponseBase = response
    return result


async def _is_worth_claiming(until: UntilWork) -> bool:
    try:
        return await get_hub(until.tenant).work.is_worth_claiming(until.worker_id)
    except Exception:
        # The hub has logged the error. A claim runs the view, which answers with the problem.
        return True


def _claimed(response: HttpResponseBase) -> list[dict[str, Any]]:
    """The tasks in the response to a claim."""
    if isinstance(response, Response) and isinstance(response.data, dict):
        one = response.data.get("task")
        return response.data.get("tasks") or ([one] if one else [])
    return []


def _requeue_claimed(running: asyncio.Future[HttpResponseBase]) -> None:
    if running.cancelled() or running.exception():
        return
    if claimed := _claimed(running.result()):
        grants = [(task["id"], task["attempt"]) for task in claimed]
        request = running.result().renderer_context["request"]  # type: ignore[attr-defined]
        requeue = sync_to_async(_requeue, thread_sensitive=False)(request, grants)
        requeueing = asyncio.ensure_future(requeue)
        _requeueing.add(requeueing)
        requeueing.add_done_callback(_requeueing.discard)


def _requeue(request: Any, grants: list[tuple[UUID, int]]) -> None:
    try:
        with in_tenant(tenant_of(request)):
            requeue_granted(grants)
    except Exception:
        ids = ", ".join(str(task_id) for task_id, _ in grants)
        logger.exception("could not requeue %s; left for the sweeper", ids)
    finally:
        release_connections()


#: Requeues under way, referenced because a loop keeps only weak references to its tasks.
_requeueing: set[asyncio.Future[Any]] = set()


async def _run_in_thread(
    tenant: str | None, view: View, /, *args: Any, **kwargs: Any
) -> HttpResponseBase:
    """Run the view in the thread that asgiref keeps for this request, and end that thread.

    With `tenant` None the view runs in the tenant that the host's middleware chose.
    """

    def call() -> HttpResponseBase:
        try:
            with in_tenant(tenant):
                return view(*args, **kwargs)
        finally:
            release_connections()

    async with get_hub().views:
        try:
            return await sync_to_async(call)()
        finally:
            release_thread()


def release_thread() -> None:
    """End the thread that asgiref keeps for this request; the next call makes a new one."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    executors = getattr(SyncToAsync, "context_to_thread_executor", None)
    if context is not None and executors is not None:
        executor = executors.pop(context, None)
        if executor is not None:
            executor.shutdown(wait=False)
