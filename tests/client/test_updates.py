"""A running task reports progress, writes its log, and learns that it was cancelled."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import multiprocessing
import pickle
import threading
import time

import httpx
import pytest

from tests.client.stand_in import (
    NOW,
    Lost,
    Rotate,
    bodies,
    granted,
    refusal,
    serve,
    task,
    until,
    use,
)
from zndraw_joblib.client import (
    Cancelled,
    ClaimedTask,
    GiveUp,
    RetryLater,
    TaskLogHandler,
    pending_updates,
    updates,
)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(updates, "INTERVAL", 0.05)


def progress_of(server, task_id):
    """The reports of progress of a task, in their order, as pairs of fraction and message."""
    return [
        (call.get("progress"), call.get("message"))
        for call in in_order(server, task_id)
        if call["status"] == "running" and ("progress" in call or "message" in call)
    ]


def in_order(server, task_id):
    """The reports of a task in the order of the requests."""
    reports = []
    for _, path, body in server.sent("PATCH", "/tasks"):
        entries = body if isinstance(body, list) else [{"id": path[7:], **body}]
        reports += [entry for entry in entries if entry["id"] == task_id]
    return reports


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_last_progress_and_the_whole_log_precede_the_end(server, manager, prefetch):
    def execute(claimed):
        for step in range(100):
            claimed.progress((step + 1) / 100, f"step {step}")
            claimed.log(f"line {step}")

    server.queue.append(task("a"))
    serve(server, manager, 1, execute, prefetch=prefetch)
    assert server.logs["a"] == "".join(f"line {step}\n" for step in range(100))
    assert progress_of(server, "a")[-1] == (1.0, "step 99")
    # Merged: the first at once, the others with the end.
    assert len(progress_of(server, "a")) <= 2
    assert len(server.sent("POST", "/tasks/a/log")) <= 2
    last = [call for call in server.calls if call[1] in {"/tasks/a", "/tasks", "/tasks/a/log"}][-1]
    assert last[2] == {"status": "completed", "attempt": 1}


def test_progress_and_log_are_sent_at_most_once_a_second(server, manager, running, monkeypatch):
    monkeypatch.setattr(updates, "INTERVAL", 0.2)
    done = threading.Event()
    times = []

    def slow(request):
        if request.method == "PATCH" and b'"progress"' in request.content:
            times.append(time.monotonic())
        return server(request)

    use(manager, slow)

    def execute(claimed):
        for step in range(1000):
            claimed.progress(step / 1000)
            time.sleep(0.001)
        done.set()

    server.queue.append(task("a"))
    running(execute)
    assert done.wait(20)
    until(lambda: server.tasks["a"] == "completed")
    # All but the last, which is sent at the end.
    pauses = [later - earlier for earlier, later in itertools.pairwise(times[:-1])]
    assert len(pauses) >= 2
    # Half of the interval, because a request may reach the handler late, and the next one not.
    assert min(pauses) > updates.INTERVAL / 2


@pytest.mark.usefixtures("fast")
def test_the_progress_of_many_tasks_goes_in_one_request(server, manager, running):
    together, go = threading.Barrier(4, timeout=10), threading.Event()

    def execute(claimed):
        claimed.progress(0.5)
        together.wait()
        claimed.progress(0.75)
        assert go.wait(10)

    server.queue += [task(x) for x in "abcd"]
    running(execute, concurrency=4)
    until(lambda: any(len(c[2]) == 4 for c in server.sent("PATCH", "/tasks") if c[1] == "/tasks"))
    go.set()
    until(lambda: set(server.tasks.values()) == {"completed"})
    for x in "abcd":
        assert progress_of(server, x)[-1] == (0.75, None)


def test_a_task_without_progress_and_log_costs_no_request_and_no_thread(server, manager):
    server.queue += [task("a"), task("b")]
    names = []
    serve(server, manager, 2, lambda claimed: names.extend(t.name for t in threading.enumerate()))
    assert len(server.sent("PATCH", "/tasks")) == 2
    assert not server.logs
    assert manager._updates._thread is None


def test_track_reports_the_position(server, manager):
    seen = []

    def execute(claimed):
        positions = []
        record = ClaimedTask.progress

        class Recording(ClaimedTask):
            def progress(self, fraction, message=None):
                positions.append((fraction, message))
                record(self, fraction, message)

        recording = Recording.model_validate(claimed.model_dump())
        assert list(recording.track("abcd")) == list("abcd")
        assert list(recording.track(iter("ab"), total=4)) == ["a", "b"]
        assert list(recording.track(iter("ab"))) == ["a", "b"]
        assert list(recording.track([])) == []
        seen.append(positions)
        assert list(claimed.track(range(10))) == list(range(10))

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert seen == [
        [
            *((0.0, None), (0.25, None), (0.5, None), (0.75, None), (1.0, None)),
            *((0.0, None), (0.25, None), (0.5, None)),
            *((None, "0"), (None, "1"), (None, "2")),
            (1.0, None),
        ]
    ]
    assert progress_of(server, "a")[-1] == (1.0, None)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((1.5, None), (1.0, None)),
        ((-1, None), (0.0, None)),
        ((float("inf"), None), (1.0, None)),
        ((float("nan"), "m"), (None, "m")),
        ((None, "only a message"), (None, "only a message")),
        ((0.5, "x" * 2000), (0.5, "x" * 1000)),
        ((0.5, "a\x00\ud800"), (0.5, "a\ufffd\ufffd")),
        ((0, ""), (0.0, "")),
    ],
)
def test_progress_is_made_fit_for_the_server(server, manager, given, sent):
    server.queue.append(task("a"))
    serve(server, manager, 1, lambda claimed: claimed.progress(*given))
    assert progress_of(server, "a") == [sent]
    assert server.tasks == {"a": "completed"}


def test_a_message_stays_until_another_is_given(server, manager):
    def execute(claimed):
        claimed.progress(0.1, "first")
        claimed.progress(0.2)

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert progress_of(server, "a")[-1] == (0.2, "first")


UPDATE = {"progress": lambda t: t.progress(0.5), "log": lambda t: t.log("x")}
PLACE = {"progress": "PATCH /tasks/a", "log": "POST /tasks/a/log"}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("kind", UPDATE)
@pytest.mark.parametrize(
    "answer",
    [
        refusal("validation-error", 400),
        refusal("not-found", 404),
        refusal("method-not-allowed", 405),
        refusal("server-error", 400),
    ],
)
def test_a_server_that_refuses_updates_fails_no_task(server, manager, kind, answer, caplog):
    """Control: the task is asked again and again when a refusal does not end its updates."""
    server.fail[PLACE[kind]] = [answer]
    go = threading.Event()

    def execute(claimed):
        for _ in range(3):
            UPDATE[kind](claimed)
            until(lambda: not server.fail[PLACE[kind]])
            time.sleep(0.1)
        go.set()

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert go.is_set()
    assert server.tasks == {"a": "completed"}
    method, _, path = PLACE[kind].partition(" ")
    ends = [{"status": "completed", "attempt": 1}]
    assert [c[2] for c in server.sent(method, path)][1:] == (ends if method == "PATCH" else [])
    warnings = [r for r in caplog.records if "refused the" in r.message]
    assert [r.levelname for r in warnings] == ["WARNING"]


@pytest.mark.usefixtures("fast")
def test_updates_wait_for_the_end_of_an_outage(server, manager, running):
    server.fail["POST /tasks/a/log"] = [httpx.ConnectError("no"), httpx.Response(502)]
    server.fail["PATCH /tasks/a"] = [httpx.ConnectError("no"), refusal("not-authenticated", 401)]
    go = threading.Event()

    def execute(claimed):
        claimed.log("one")
        claimed.progress(0.5)
        assert go.wait(20)

    server.queue.append(task("a"))
    running(execute)
    until(lambda: server.logs.get("a") == "one\n" and (0.5, None) in progress_of(server, "a"))
    go.set()
    until(lambda: server.tasks["a"] == "completed")


def test_an_outage_delays_the_end_for_a_bounded_time(server, manager, running, monkeypatch, caplog):
    monkeypatch.setattr(updates, "FLUSH_SECONDS", 0.2)
    server.fail["POST /tasks/a/log"] = [httpx.ConnectError("no") for _ in range(1000)]
    server.queue.append(task("a"))
    started = time.monotonic()
    running(lambda claimed: claimed.log("one"))
    until(lambda: server.tasks.get("a") == "completed")
    assert time.monotonic() - started < 3
    assert "the last progress or log of task a could not be sent" in caplog.text


def test_updates_do_not_wait_for_a_slow_server(server, manager, running):
    go, called = threading.Event(), threading.Event()

    def slow(request):
        if request.url.path.endswith("/log"):
            assert go.wait(20)
        return server(request)

    use(manager, slow)

    def execute(claimed):
        for _ in range(1000):
            claimed.log("x")
            claimed.progress(0.5)
        called.set()

    server.queue.append(task("a"))
    running(execute)
    assert called.wait(2)
    go.set()
    until(lambda: server.tasks.get("a") == "completed")


def test_log_text_beyond_the_bound_is_dropped_from_the_front_and_says_so(
    server, manager, monkeypatch
):
    monkeypatch.setattr(pending_updates, "MAX_LOG_BUFFER", 100)
    monkeypatch.setattr(pending_updates, "MAX_LOG_TEXT", 60)

    def execute(claimed):
        with manager._updates._changed:  # The thread cannot send meanwhile.
            for number in range(100):
                claimed.log(f"line {number:04}")

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    text = server.logs["a"]
    assert text.startswith("[900 characters of the log were dropped here]\n")
    assert text.endswith("".join(f"line {number:04}\n" for number in range(90, 100)))
    assert len(text) == len("[900 characters of the log were dropped here]\n") + 100
    assert len(server.sent("POST", "/tasks/a/log")) == 2


def test_a_long_line_is_sent_in_pieces(server, manager, monkeypatch):
    monkeypatch.setattr(pending_updates, "MAX_LOG_TEXT", 1000)
    line = "".join(chr(97 + i % 26) for i in range(4500))
    server.queue.append(task("a"))
    serve(server, manager, 1, lambda claimed: claimed.log(line))
    assert server.logs["a"] == line + "\n"
    assert len(server.sent("POST", "/tasks/a/log")) == 5


@pytest.mark.parametrize("text", ["a\x00b\ud800", "a\ufffdb\ufffd\n"])
def test_log_text_is_made_fit_for_the_server(server, manager, text):
    server.queue.append(task("a"))
    serve(server, manager, 1, lambda claimed: claimed.log(text))
    assert server.logs["a"] == "a\ufffdb\ufffd\n"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("slug", ["lease-lost", "invalid-task-transition", "forbidden"])
@pytest.mark.parametrize("kind", UPDATE)
def test_a_refusal_of_an_update_shows_that_the_task_is_lost(server, manager, running, slug, kind):
    server.fail[PLACE[kind]] = [refusal(slug)]
    ended = []

    def execute(claimed):
        assert not claimed.cancelled
        UPDATE[kind](claimed)
        until(lambda: claimed.cancelled)
        ended.append(claimed.id)
        claimed.checkpoint()

    server.queue.append(task("a"))
    running(execute)
    until(lambda: ended == ["a"] and not manager._grants.held())
    assert not [body for body in bodies(server, "a") if body["status"] == "completed"]


@pytest.mark.parametrize("listed", ["cancelled", "lost"])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_nothing_is_reported_on_a_task_that_ended_by_a_cancel(
    server, manager, running, listed, prefetch
):
    """Control: the task is reported as failed when `execute_task` does not know `Cancelled`."""
    answer = {"id": "w1", "last_heartbeat": NOW, listed: ["a"]}
    began, ended = threading.Event(), threading.Event()

    def execute(claimed):
        if claimed.id != "a":
            return
        began.set()
        try:
            while True:
                claimed.checkpoint()
                try:
                    time.sleep(0.005)
                    claimed.checkpoint()
                except Exception:
                    pytest.fail("a cancel is no Exception")
        finally:
            ended.set()

    server.queue.append(task("a"))
    running(execute, prefetch=prefetch)
    assert began.wait(10)
    server.fail["PATCH /workers/w1"] = [httpx.Response(200, json=answer)]
    assert ended.wait(10)
    # Its place is free, and its lease is not renewed.
    server.queue.append(task("b"))
    server.release()
    until(lambda: server.tasks.get("b") == "completed")
    assert [body for body in bodies(server, "a") if body["status"] != "running"] == []
    until(lambda: server.sent("PATCH", "/workers")[-1][2] == {"tasks": []})


def test_a_cancel_by_the_task_itself_is_reported(server, manager):
    def execute(claimed):
        raise Cancelled("no atoms")

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    (body,) = bodies(server, "a")
    assert body["status"] == "cancelled"
    assert body["error"].startswith("Cancelled: no atoms")


def test_give_up_fails_the_task_without_a_retry(server, manager):
    def execute(claimed):
        raise GiveUp("no such file")

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    (body,) = bodies(server, "a")
    assert (body["status"], body["retry"]) == ("failed", False)
    assert body["error"].startswith("GiveUp: no such file")
    assert "retry_after" not in body


@pytest.mark.parametrize("arguments", [(12.5,), (12.5, "busy")])
def test_retry_later_fails_the_attempt_with_the_seconds_before_the_next(server, manager, arguments):
    async def execute(claimed):
        await asyncio.sleep(0)
        raise RetryLater(*arguments)

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    (body,) = bodies(server, "a")
    assert (body["status"], body["retry_after"]) == ("failed", 12.5)
    assert body["error"].startswith(f"RetryLater: {[*arguments, 'try again in 12.5 s'][1]}")
    assert "retry" not in body


@pytest.mark.parametrize(("seconds", "sent"), [(-1, 0), (1e9, 86_400), (float("inf"), 86_400)])
def test_the_seconds_of_retry_later_are_made_fit_for_the_server(server, manager, seconds, sent):
    def execute(claimed):
        raise RetryLater(seconds)

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert bodies(server, "a")[-1]["retry_after"] == sent


def test_retry_later_without_a_number_fails_the_task_alone(server, manager):
    def execute(claimed):
        if claimed.id == "a":
            raise RetryLater(float("nan"))

    server.queue += [task("a"), task("b")]
    serve(server, manager, 2, execute)
    assert server.tasks == {"a": "failed", "b": "completed"}


def test_fail_takes_the_same(server, manager):
    manager.fail(granted("a")[0], "no", retry=False, retry_after=3)
    assert bodies(server, "a") == [
        {"status": "failed", "attempt": 1, "error": "no", "retry": False, "retry_after": 3}
    ]


@pytest.mark.parametrize("lost", [Lost(), httpx.ReadError("no")])
def test_claim_and_complete_send_the_updates_too(server, manager, lost):
    manager.register(Rotate)
    server.queue.append(task("a"))
    claimed = manager.claim()
    claimed.progress(0.5)
    claimed.log("text")
    server.fail["PATCH /tasks/a"] = [lost]
    manager.complete(claimed)
    assert server.logs["a"] == "text\n"
    assert (0.5, None) in progress_of(server, "a")
    assert server.tasks == {"a": "completed"}


@pytest.mark.parametrize("handle", ["with a task", "of the root logger"])
def test_a_logging_handler_writes_to_the_log_of_its_task(server, manager, handle):
    logger = logging.getLogger("tests.work")
    logger.setLevel(logging.INFO)
    together = threading.Barrier(2, timeout=10)
    shared = TaskLogHandler()
    shared.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def execute(claimed):
        own = None
        if handle == "with a task":
            own = claimed.logging_handler()
            own.setFormatter(shared.formatter)
            logger.addHandler(own)
        together.wait()
        try:
            logger.info("in %s", claimed.id)
            together.wait()
        finally:
            if own:
                logger.removeHandler(own)

    if handle != "with a task":
        logger.addHandler(shared)
    try:
        server.queue += [task("a"), task("b")]
        serve(server, manager, 2, execute, concurrency=2)
    finally:
        logger.removeHandler(shared)
    assert server.logs == {"a": "INFO in a\n", "b": "INFO in b\n"}


def test_a_logging_handler_takes_the_records_of_the_threads_of_its_task(server, manager):
    logger = logging.getLogger("tests.threads")

    def execute(claimed):
        handler = claimed.logging_handler(logging.WARNING)
        logger.addHandler(handler)
        try:
            thread = threading.Thread(target=logger.warning, args=("in a thread",))
            thread.start()
            thread.join()
            logger.info("too low")
        finally:
            logger.removeHandler(handler)

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert server.logs == {"a": "in a thread\n"}


def test_the_sdk_does_not_log_its_own_requests(server, manager, running, monkeypatch):
    """Control: the log grows for ever when `TaskLogHandler` takes the records of all threads."""
    monkeypatch.setattr(updates, "INTERVAL", 0.01)
    logger = logging.getLogger("httpx")
    level = logger.level
    logger.setLevel(logging.INFO)

    def execute(claimed):
        handler = TaskLogHandler(claimed)
        logger.addHandler(handler)
        try:
            claimed.log("text")
            until(lambda: server.logs)
            time.sleep(0.1)
        finally:
            logger.removeHandler(handler)

    try:
        server.queue.append(task("a"))
        serve(server, manager, 1, execute)
    finally:
        logger.setLevel(level)
    assert server.logs == {"a": "text\n"}


def test_a_process_that_a_task_forked_writes_to_its_log(server, manager):
    """Control: the child waits for ever where it has the lock of the parent's thread."""
    codes = []

    def in_child(claimed):
        claimed.progress(0.9)
        claimed.log("in the child")
        # The child's copy of the stand-in.
        until(lambda: server.logs == {"a": "in the child\n"})

    def execute(claimed):
        claimed.progress(0.1)
        with manager._updates._changed:
            child = multiprocessing.get_context("fork").Process(target=in_child, args=(claimed,))
            child.start()
        child.join(20)
        codes.append(child.exitcode)

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert codes == [0]
    assert server.tasks == {"a": "completed"}


def test_updates_after_the_end_are_dropped(server, manager):
    kept = []
    server.queue.append(task("a"))
    serve(server, manager, 1, kept.append)
    kept[0].log("late")
    kept[0].progress(0.5)
    assert not manager._updates._updates


def test_a_task_that_no_manager_claimed_drops_its_updates():
    (claimed,) = granted("a")
    claimed.progress(0.5, "m")
    claimed.log("x")
    assert list(claimed.track([1])) == [1]
    assert not claimed.cancelled
    claimed.checkpoint()
    with pytest.raises(RuntimeError, match="claimed can upload"):
        claimed.upload(b"", "name")


def test_a_claimed_task_can_be_compared_pickled_and_copied(server, manager):
    compared = []

    def execute(claimed):
        other = granted("a")[0].started()
        compared.append(claimed == other)
        compared.append(pickle.loads(pickle.dumps(claimed)) == other)
        compared.append(copy.deepcopy(claimed) == other)
        compared.append(claimed.model_dump() == other.model_dump())
        pickle.loads(pickle.dumps(claimed)).log("dropped")

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert compared == [True] * 4
    assert not server.logs


def test_upload_stores_a_file_of_the_attempt(server, manager, monkeypatch):
    stored = []

    def upload(api, task_id, attempt, source, name, *, content_type):
        stored.append((api, task_id, attempt, source, content_type))
        return {"name": name}

    monkeypatch.setattr("zndraw_joblib.client.files.upload", upload)
    server.queue.append(task("a", attempt=3))
    serve(server, manager, 1, lambda claimed: claimed.upload(b"data", "a.bin"))
    assert stored == [(manager.api, "a", 3, b"data", None)]
    assert bodies(server, "a")[-1]["result"] == {"name": "a.bin"}


@pytest.mark.parametrize("error", [Cancelled("stop"), GiveUp("no"), RetryLater(30, "busy")])
def test_the_exceptions_that_end_a_task_can_be_pickled(error):
    # As for a task that works in a pool of processes.
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def grouped(*errors):
    return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (grouped(GiveUp("no such file")), {"retry": False}),
        (grouped(grouped(RetryLater(7)), RetryLater(9)), {"retry_after": 9}),
        # `GiveUp` decides, because another attempt would be in vain.
        (grouped(RetryLater(7), ValueError(), GiveUp("no such file")), {"retry": False}),
        (grouped(ValueError(), RetryLater(7)), {"retry_after": 7}),
        (grouped(ValueError()), {}),
        (grouped(Cancelled(), ValueError()), {}),
    ],
)
def test_an_exception_that_ends_a_task_counts_within_a_group(server, manager, error, fields):
    def execute(claimed):
        raise error

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    body = bodies(server, "a")[-1]
    assert body["status"] == "failed"
    assert {key: body[key] for key in ("retry", "retry_after") if key in body} == fields


def test_a_group_of_cancelled_alone_cancels_the_task(server, manager):
    def execute(claimed):
        raise grouped(Cancelled("stop"), grouped(Cancelled("stop")))

    server.queue.append(task("a"))
    serve(server, manager, 1, execute)
    assert bodies(server, "a")[-1]["status"] == "cancelled"


def test_a_task_that_has_ended_sends_no_more_updates(server, manager, fast):
    manager.register(Rotate)
    server.queue.append(task("a"))
    claimed = manager.claim()
    claimed.log("in time")
    manager.complete(claimed)
    for step in range(10):
        claimed.log("late")
        claimed.progress(step / 10)
    time.sleep(0.15)
    assert server.logs == {"a": "in time\n"}
    assert progress_of(server, "a") == []
