"""`TaskHandle` against a stand-in."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import time
from types import SimpleNamespace
from typing import ClassVar
from uuid import UUID

import httpx
import pytest

from tests.client.life import LifeServer, attempt
from tests.client.stand_in import Lost, Rotate, until
from zndraw_joblib.client import (
    Api,
    InvalidTaskTransitionError,
    JobManager,
    TaskCancelled,
    TaskFailed,
    TaskHandle,
    TaskNotFoundError,
    TaskWaitTimeout,
    UnexpectedAnswerError,
    retry,
)
from zndraw_joblib.client.api import send

ROTATE = "/rooms/r/tasks/@global:modifiers:Rotate"
TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no\n'


@pytest.fixture
def server():
    stand_in = LifeServer()
    yield stand_in
    stand_in.release()


@pytest.fixture
def manager(server):
    return JobManager(Api("http://x/", "secret", transport=httpx.MockTransport(server)))


@pytest.fixture
def handle(manager):
    return manager.send(Rotate(angle=3), room="r")


@pytest.fixture
def short_outages(monkeypatch):
    monkeypatch.setattr(retry, "backoff", lambda attempt: 0.01)


def later(*calls):
    """Make each call after another 0.1 s."""

    def run():
        for function, *arguments in calls:
            time.sleep(0.1)
            function(*arguments)

    threading.Thread(target=run, daemon=True).start()


# -- results


def test_a_result_is_waited_for(server, handle):
    later((server.end, "t1", "completed"))
    assert handle.result(timeout=10) == "t1"
    assert handle.result() == "t1"


def test_a_result_that_does_not_come_in_time_raises(server, handle):
    with pytest.raises(TaskWaitTimeout, match="t1 has not ended within 0 s"):
        handle.result(timeout=0)


def test_a_failed_task_raises_with_the_remote_traceback(server, handle):
    server.change("t1", "failed", error=f"ValueError: no\n\n{TRACE}")
    with pytest.raises(TaskFailed) as caught:
        handle.result()
    error = pickle.loads(pickle.dumps(caught.value))
    for one in (caught.value, error):
        assert str(one).startswith("task t1 of @global:modifiers:Rotate failed: ValueError: no")
        assert one.remote_traceback == TRACE
        assert TRACE in str(one)
        assert one.task.status == "failed"
    assert type(error) is TaskFailed


@pytest.mark.parametrize("error", [None, "Worker 'w' timed out"])
def test_a_failed_task_without_an_exception_has_no_traceback(server, handle, error):
    server.change("t1", "failed", error=error)
    with pytest.raises(TaskFailed) as caught:
        handle.result()
    assert (caught.value.error, caught.value.remote_traceback) == (error or "", "")


def test_a_cancelled_task_raises(server, handle):
    server.change("t1", "cancelled", error="enough")
    with pytest.raises(TaskCancelled, match="was cancelled: enough"):
        handle.result()


def test_the_handle_of_an_earlier_task_needs_its_id_alone(server, manager):
    server.end("t9", "completed")
    handle = manager.handle("t9")
    assert server.calls == []
    assert handle.result() == "t9"
    assert repr(handle) == "<TaskHandle t9>"
    server.hidden.add("t8")
    with pytest.raises(TaskNotFoundError):
        manager.handle("t8").result()


# -- states and changes


def test_status_and_progress_are_those_of_the_moment(server, handle):
    assert (handle.status(), handle.progress()) == ("pending", (None, None))
    server.change("t1", "running", progress=0.25, message="half of a half")
    assert (handle.status(), handle.progress()) == ("running", (0.25, "half of a half"))


def seen(changes):
    return [(task.status.value, task.progress) for task in changes]


CHANGES = [("pending", None), ("running", None), ("running", 0.5), ("completed", 0.5)]


def test_watch_yields_each_change_by_waits(server, handle):
    later(
        (server.change, "t1", "running"),
        (lambda: server.change("t1", progress=0.5),),
        (server.change, "t1", "completed"),
    )
    assert seen(handle.watch(timeout=10)) == CHANGES
    assert len(server.headers) == 4
    assert [headers.get("if-none-match") for headers in server.headers] == [
        None,
        *(f'W/"{revision}"' for revision in (1, 2, 3)),
    ]
    assert all("prefer" in headers for headers in server.headers[1:])


@pytest.mark.parametrize("has_etags", [True, False])
def test_watch_polls_where_the_server_does_not_wait(server, handle, has_etags):
    server.honours_waits, server.has_etags = False, has_etags
    changes = handle.watch(timeout=10)
    found = []
    for status, progress in CHANGES:
        server.change("t1", status, progress=progress)
        found += seen([next(changes)])
    assert found == CHANGES
    assert list(changes) == []


def test_watch_without_etags_never_waits_for_the_end(server, handle):
    """A server that knows no ETag would hold the request until the task has ended."""
    server.has_etags = False
    later((server.end, "t1", "completed"))
    assert seen(handle.watch(timeout=10))[-1] == ("completed", None)
    assert not any("prefer" in headers for headers in server.headers)


def test_watch_sees_a_change_that_is_no_field_of_the_task(server, handle):
    """A file is one. The ETag alone tells it."""
    later((server.change, "t1"), (server.change, "t1", "completed"))
    assert [task.status for task in handle.watch(timeout=10)] == ["pending", "pending", "completed"]


def test_a_place_in_the_queue_is_no_change(server, handle):
    server.has_etags = False
    server.change("t1", queue_position=7)
    changes = handle.watch(timeout=10)
    assert next(changes).queue_position == 7
    server.change("t1", queue_position=6)
    later((server.change, "t1", "running"))
    assert next(changes).status == "running"


def test_watch_polls_at_growing_intervals(server, handle):
    server.honours_waits = False
    with pytest.raises(TaskWaitTimeout):
        list(handle.watch(timeout=0.6))
    assert 3 <= len(server.headers) <= 7


def test_watch_goes_on_after_an_outage(server, handle, short_outages):
    server.fail["GET /tasks/t1"] = [httpx.ConnectError("down"), httpx.Response(502)]
    server.end("t1", "completed")
    assert seen(handle.watch(timeout=20)) == [("completed", None)]


def test_watch_raises_for_an_unknown_task(server, handle):
    server.hidden.add("t1")
    with pytest.raises(TaskNotFoundError):
        next(handle.watch())


def test_a_304_that_was_not_asked_for_is_no_answer(server, manager):
    server.fail["GET /tasks/t1"] = [httpx.Response(304)]
    with pytest.raises(UnexpectedAnswerError):
        send(manager.api, "GET", "/v1/joblib/tasks/t1", read=lambda answer: answer, retry=None)


# -- logs, files, attempts


def test_log_puts_the_parts_of_a_log_together(server, handle):
    assert handle.log() == ""
    server.write("t1", "one\ntwo\nthree\n")
    assert handle.log() == "one\ntwo\nthree\n"
    assert handle.log(offset=4) == "two\nthree\n"
    assert handle.log(offset=100) == ""


@pytest.mark.parametrize("honours_waits", [True, False])
def test_follow_log_yields_text_until_the_task_ends(server, handle, honours_waits):
    server.honours_waits = honours_waits
    server.write("t1", "begins ")
    later((server.write, "t1", "goes on "), (server.end, "t1", "completed"))
    assert "".join(handle.follow_log(timeout=10)) == "begins goes on "


def test_follow_log_ends_at_its_timeout(server, handle):
    server.write("t1", "abc")
    parts = handle.follow_log(timeout=0.3)
    assert next(parts) == "abc"
    with pytest.raises(TaskWaitTimeout):
        next(parts)


def test_attempts_are_listed(server, handle):
    server.attempts["t1"] = [attempt(1, outcome="lost", error="gone"), attempt(2, outcome=None)]
    first, second = handle.attempts()
    assert (first.attempt, first.outcome, first.error) == (1, "lost", "gone")
    assert (second.attempt, second.outcome, second.ended_at) == (2, None, None)


# -- cancel and retry


def test_cancel_reports_the_task_as_cancelled(server, handle):
    assert handle.cancel().status == "cancelled"
    assert server.sent("PATCH") == [("PATCH", "/tasks/t1", {"status": "cancelled"})]
    server.refused["t1"] = "invalid-task-transition"
    with pytest.raises(InvalidTaskTransitionError):
        handle.cancel()


def test_retry_gives_the_handle_of_one_new_task(server, handle, short_outages):
    with pytest.raises(InvalidTaskTransitionError):
        handle.retry()
    server.end("t1", "failed")
    server.fail["POST /tasks/t1/retry"] = [Lost()]
    again = handle.retry()
    assert repr(again) == "<TaskHandle again of @global:modifiers:Rotate>"
    # The repetition of the request whose answer was lost has the same key.
    assert len(server.keys) == 4
    assert len(set(server.keys)) == 3


# -- handles as values


def test_handles_are_copied_and_pickled(server, handle):
    for twin in (copy.copy(handle), copy.deepcopy(handle)):
        assert twin == handle
        assert twin.status() == "pending"
    assert len({handle, copy.copy(handle), TaskHandle(handle._api, "t2")}) == 2
    assert handle != "t1"
    with Api("http://127.0.0.1:1", "secret") as api:
        assert api.http.headers  # Connections must not be pickled.
        twin = pickle.loads(pickle.dumps(TaskHandle(api, "t1", Rotate)))
        assert twin == TaskHandle(api, "t1")
        assert twin._api.get_headers() == {"Authorization": "Token secret"}
        twin._api.close()


def test_threads_share_a_handle(server, handle):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(handle.result(timeout=10))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(server.sent("POST", "/tasks/lookup")) >= 8)
    server.end("t1", "completed")
    for thread in threads:
        thread.join(10)
    assert found == ["t1"] * 8


# -- bars


class Bar:
    """In place of tqdm's, because the extra need not be installed."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, total, **options):
        self.total, self.n, self.shown, self.closed = total, 0, [], False
        Bar.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def set_description_str(self, text, refresh=True):
        self.description = text

    def set_postfix_str(self, text, refresh=True):
        self.postfix = text

    def refresh(self):
        self.shown.append((self.n, self.postfix))

    def update(self):
        self.n += 1


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def test_a_bar_shows_the_progress_of_a_task(server, handle, bars):
    later(
        (lambda: server.change("t1", "running", progress=0.5, message="turning"),),
        (lambda: server.change("t1", "completed", message=None),),
    )
    assert handle.result(timeout=10, progress=True) == "t1"
    (bar,) = bars
    assert bar.shown == [(0, "pending"), (50, "turning"), (100, "completed")]
    assert (bar.total, bar.closed, bar.description) == (100, True, "@global:modifiers:Rotate")


def test_the_bar_of_another_attempt_begins_again(server, handle, bars):
    server.change("t1", "running", progress=0.9)
    later((lambda: server.change("t1", "pending", progress=None),), (server.change, "t1", "failed"))
    with pytest.raises(TaskFailed):
        handle.result(timeout=10, progress=True)
    assert bars[0].shown == [(90, "running"), (0, "pending"), (0, "failed")]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_bar_counts_the_ends_of_map(server, manager, bars, ordered):
    server.tasks.update({"t0": "completed", "t1": "failed", "t2": "completed"})
    found = manager.map(
        [Rotate()] * 3, room="r", ordered=ordered, progress=True, return_exceptions=True
    )
    assert [str(one)[:9] for one in found] == ["t0", "task t1 o", "t2"]
    (bar,) = bars
    assert (bar.n, bar.total, bar.closed) == (3, 3, True)


def test_a_bar_without_tqdm_is_an_error_that_names_the_extra(server, manager, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"django-zndraw-joblib\[progress\]"):
        manager.map([Rotate()], room="r", progress=True)
    assert server.calls == []
    with pytest.raises(ImportError, match="tqdm"):
        manager.handle("t1").result(progress=True)


def test_ids_of_tasks_may_be_uuids(server, manager):
    task_id = UUID(int=5)
    server.tasks[str(task_id)] = "completed"
    handle = manager.handle(task_id)
    assert handle == manager.handle(str(task_id))
    assert handle.id == manager.task(task_id).id == manager.wait(task_id).id == str(task_id)
