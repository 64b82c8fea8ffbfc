"""``Prefer: wait=N`` (RFC 7240): requests that wait without a thread or a connection.

The sync view runs once in a thread. If its answer may yet change, the thread and its database
connection are given back and the request waits on the event loop. A task is read again for all
whose wait ends at that moment at once; a claim runs its view again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import UUID

from asgiref.sync import SyncToAsync, sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from rest_framework.response import Response

from zndraw_joblib.api.documents import task_document
from zndraw_joblib.api.lookup import tasks
from zndraw_joblib.events.hub import get_hub, release_connections
from zndraw_joblib.models import Task
from zndraw_joblib.settings import get_settings

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]
Run = Callable[[], Coroutine[Any, Any, HttpResponseBase]]


#: Share of its time by which a wait may end early.
MAX_EARLY = 0.25
#: Seconds after its time that a claim may take to look once more.
MAX_LATE = 0.5


@dataclass(frozen=True)
class UntilEnd:
    """The answer changes when this task ends; `sees` says whether the caller may still read it."""

    task_id: UUID
    room_id: str
    sees: Callable[[Task], bool]


@dataclass(frozen=True)
class UntilWork:
    """The answer changes when there is work for one of these jobs of a worker."""

    worker_id: str
    jobs: tuple[UUID, ...]


def granted_wait(header: str | None) -> int | None:
    """The seconds to wait that a `Prefer` header asks for, capped; None without such a wish.

    Preferences that make no sense are ignored, and of several the first counts (RFC 7240,
    section 2).
    """
    for preference in (header or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"').strip()
            if not (digits.isascii() and digits.isdigit()):
                return None
            # Nine digits are 31 years; int() must not see thousands.
            wait = int(digits) if len(digits) < 10 else 10**9
            return min(wait, get_settings().long_poll_max_wait_seconds)
    return None


class MustWait(BaseException):
    """Ends a request's way through the middleware of the lane, because its answer may yet change.

    Middleware sees a cancellation: `finally` clauses run, and no response is made. Django and DRF
    make a response of each `Exception`, so this is none.
    """


def can_wait(request: HttpRequest) -> bool:
    """Whether the request is of a kind that may wait. Synchronous test clients have no ASGI."""
    return isinstance(request, ASGIRequest) and request.method in {"GET", "POST"}


def waits(view: View) -> Callable[..., Any]:
    """Let a sync DRF view wait. Its response may carry `waits_for`, what would change it."""

    # Django wraps no async view in ATOMIC_REQUESTS; a transaction must not outlast a wait anyway.
    @transaction.non_atomic_requests
    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        wait = granted_wait(request.META.get("HTTP_PREFER"))
        if wait is None or not can_wait(request):
            return await sync_to_async(view)(request, *args, **kwargs)

        async def look() -> HttpResponseBase:
            response = await _run(view, request, *args, **kwargs)
            # The host's throttles count the request once, however often the view runs.
            request.joblib_looks_again = True  # type: ignore[attr-defined]
            return response

        response = await last_response(look, wait)
        set_preference_applied(response, wait)
        return response

    return wrapper


def set_preference_applied(response: HttpResponseBase, wait: int) -> None:
    """Set the header which says that the wait was honoured; errors do not wait."""
    if response.status_code < 400:
        response["Preference-Applied"] = f"wait={wait}"


async def last_response(look: Run, wait: int) -> HttpResponseBase:
    """The view's response once it is final, after up to `wait` seconds; `look` runs the view."""

    async def run() -> HttpResponseBase:
        running = asyncio.ensure_future(look())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # The client left while the database was asked: what it got goes back at once.
            running.add_done_callback(_give_back)
            raise

    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await run()
    # Under load the request has queued before it came here, about as long as its first look took,
    # and its deadline counts from its arrival.
    deadline = began + wait - min(loop.time() - began, MAX_EARLY * wait)
    match getattr(response, "waits_for", None):
        case UntilEnd() as until if wait:
            return await _until_end(run, response, until, deadline)
        case UntilWork() as until if wait:
            return await _claim(run, response, until, deadline)
    return response


async def _until_end(run: Run, response: Any, until: UntilEnd, deadline: float) -> HttpResponseBase:
    await get_hub().wait_for_end(until.task_id, until.room_id, deadline)
    try:
        task = await get_hub().read(until.task_id, until.sees)
    except Exception:
        # The view says what is wrong; the hub has logged it.
        return await run()
    if task is None:
        return await run()
    response.data = task_document(task)
    if response.is_rendered:
        response.content = response.rendered_content
    return response  # type: ignore[no-any-return]


async def _claim(run: Run, response: Any, until: UntilWork, deadline: float) -> HttpResponseBase:
    async def attempt() -> list[str] | None:
        nonlocal response
        response = await run()
        # An error ends the wait like a task does.
        taken = [task["id"].hex for task in _claimed(response)]
        return taken if taken or response.status_code >= 400 else None

    if not await get_hub().wait_for_work(until.jobs, deadline, attempt):
        # As the task of a wait is: the news may have been lost, the worker deleted or registered.
        try:
            async with asyncio.timeout_at(deadline + MAX_LATE):
                if await _may_be_granted(until.worker_id):
                    await attempt()
        except TimeoutError:
            # Whatever else this request needs a thread for must not stand behind that look.
            _release_thread()
    result: HttpResponseBase = response
    return result


async def _may_be_granted(worker_id: str) -> bool:
    try:
        return await get_hub().may_be_granted(worker_id)
    except Exception:
        # The view says what is wrong; the hub has logged it.
        return True


def _claimed(response: HttpResponseBase) -> list[dict[str, Any]]:
    """The tasks in the answer to a claim."""
    if isinstance(response, Response) and isinstance(response.data, dict):
        one = response.data.get("task")
        return response.data.get("tasks") or ([one] if one else [])
    return []


def _give_back(running: asyncio.Future[HttpResponseBase]) -> None:
    if running.cancelled() or running.exception():
        return
    if claimed := _claimed(running.result()):
        grants = [(task["id"], task["attempt"]) for task in claimed]
        giving = sync_to_async(_requeue, thread_sensitive=False)(grants)
        pending = asyncio.ensure_future(giving)
        _giving_back.add(pending)
        pending.add_done_callback(_giving_back.discard)


def _requeue(grants: list[tuple[UUID, int]]) -> None:
    try:
        tasks().granted(grants).requeue()
    except Exception:
        ids = ", ".join(str(task_id) for task_id, _ in grants)
        logger.exception("could not give back %s; left for the sweeper", ids)
    finally:
        release_connections()


_giving_back: set[asyncio.Future[Any]] = set()


async def _run(view: View, *args: Any, **kwargs: Any) -> HttpResponseBase:
    """Run the view in the thread that asgiref keeps for this request, and end that thread."""

    def call() -> HttpResponseBase:
        try:
            return view(*args, **kwargs)
        finally:
            release_connections()

    async with get_hub().looking:
        try:
            return await sync_to_async(call)()
        finally:
            _release_thread()


def _release_thread() -> None:
    """End the thread that asgiref keeps for this request; the next call makes a new one."""
    context = SyncToAsync.thread_sensitive_context.get(None)
    executors = getattr(SyncToAsync, "context_to_thread_executor", None)
    if context is not None and executors is not None:
        executor = executors.pop(context, None)
        if executor is not None:
            executor.shutdown(wait=False)
