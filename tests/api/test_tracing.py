"""The trace context of a submit is kept with the task, and spans continue it on both sides."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import ClassVar

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from tests.factories import ROTATE
from tests.runs import fail, lose, start
from tests.spans import CONTEXT, TRACE, keep_spans
from zndraw_joblib import tracing
from zndraw_joblib.client import Cancelled
from zndraw_joblib.client.api import Api
from zndraw_joblib.client.submitter import Submitter
from zndraw_joblib.host.declaring import declare_job
from zndraw_joblib.host.submitting import submit as host_submit
from zndraw_joblib.models import Task
from zndraw_joblib.testing.running import run_pending

OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PATH = f"/rooms/open/tasks/open:{ROTATE}"


@pytest.fixture
def spans(monkeypatch):
    """The finished spans of a real provider, by name."""
    provider, exporter = keep_spans(monkeypatch)

    class Finished:
        tracer = provider.get_tracer("test")

        def named(self, name):
            return [span for span in exporter.get_finished_spans() if span.name == name]

        def one(self, name):
            (span,) = self.named(name)
            return span

    yield Finished()
    provider.shutdown()


class BrokenProcessor(SpanProcessor):
    """Fails at the moments that a test names."""

    def __init__(self, *moments):
        self.moments = moments

    def on_start(self, span, parent_context=None):
        if "start" in self.moments:
            raise RuntimeError("the processor is broken")

    def on_end(self, span):
        if "end" in self.moments:
            raise RuntimeError("the processor is broken")


def submit(person, context=None, body=None, path=PATH):
    headers = {} if context is None else {"headers": {"traceparent": context}}
    answer = person.send("post", path, {"payload": {}} if body is None else body, **headers)
    assert answer.status_code == 202, answer.content
    return answer.json()


def test_the_context_of_a_submit_is_kept_and_granted(bob):
    bob.register()
    task = submit(bob, CONTEXT)
    assert task["traceparent"] == CONTEXT
    assert bob.claim()["traceparent"] == CONTEXT
    assert bob.get(f"/tasks/{task['id']}").json()["traceparent"] == CONTEXT
    assert [one["traceparent"] for one in bob.get("/rooms/open/tasks").json()] == [CONTEXT]


def test_each_task_of_a_batch_has_the_context(bob):
    bob.register()
    tasks = submit(bob, CONTEXT, [{"payload": {}}, {"payload": {}}])
    assert [task["traceparent"] for task in tasks] == [CONTEXT, CONTEXT]
    claimed = bob.send("post", "/tasks/claim", {"limit": 2}).json()["tasks"]
    assert [task["traceparent"] for task in claimed] == [CONTEXT, CONTEXT]


@pytest.mark.parametrize(
    "context",
    [
        "",
        "x" * 55,
        CONTEXT.upper(),
        CONTEXT + "-more",
        CONTEXT[:-1],
        f"ff{CONTEXT[2:]}",
        f"00-{'0' * 32}-00f0670010902017-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{CONTEXT},{OTHER}",
        f"{CONTEXT}\n",
        f"\uff10{CONTEXT[1:]}".encode().decode("latin1"),
    ],
)
def test_an_invalid_context_is_ignored(bob, context):
    bob.register()
    answer = bob.client.post(
        f"/v1/joblib{PATH}", {"payload": {}}, format="json", HTTP_TRACEPARENT=context
    )
    assert answer.status_code == 202
    assert answer.json()["traceparent"] is None


def test_a_repeated_submit_keeps_the_context_of_the_first(bob):
    bob.register()
    key = {"headers": {"Idempotency-Key": '"k"', "traceparent": CONTEXT}}
    again = {"headers": {"Idempotency-Key": '"k"', "traceparent": OTHER}}
    first = bob.send("post", PATH, {"payload": {}}, **key).json()
    assert bob.send("post", PATH, {"payload": {}}, **again).json()["id"] == first["id"]
    assert Task.objects.get().traceparent == CONTEXT


def test_a_retry_by_hand_is_in_the_trace_of_its_request_or_of_the_ended_task(bob, spans):
    bob.register()
    task = submit(bob, CONTEXT)
    start(bob, task["id"])
    fail(bob, task["id"])
    retry = f"/tasks/{task['id']}/retry"
    assert submit(bob, body={}, path=retry)["traceparent"] == CONTEXT
    assert submit(bob, OTHER, body={}, path=retry)["traceparent"] == OTHER
    linked = [span.links for span in spans.named("joblib submit")]
    assert [[f"{link.context.trace_id:032x}" for link in links] for links in linked] == [
        [],
        [],
        [TRACE],
    ]


def test_another_attempt_keeps_the_context(bob):
    bob.register()
    task = submit(bob, CONTEXT, {"payload": {}, "retries": 1})
    start(bob, task["id"])
    lose(bob)
    start(bob, task["id"])
    assert bob.get(f"/tasks/{task['id']}").json()["traceparent"] == CONTEXT


def test_the_server_has_spans_of_submit_claim_and_reports_in_the_trace(bob, spans):
    bob.register()
    task = submit(bob, CONTEXT)
    attempt = start(bob, task["id"])
    bob.report(task["id"], "running", attempt=attempt, progress=0.5)
    bob.report(task["id"], "completed", attempt=attempt)
    names = ["joblib submit", "joblib claim", "joblib report", "joblib report"]
    found = [span for name in dict.fromkeys(names) for span in spans.named(name)]
    assert [span.name for span in found] == names
    for span in found:
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == CONTEXT.split("-")[2]
        assert span.attributes["zndraw_joblib.task_id"] == task["id"]
        assert span.end_time > span.start_time
    assert found[-1].attributes["zndraw_joblib.status"] == "completed"


def test_a_task_without_a_context_has_no_span(bob, spans):
    bob.register()
    task = submit(bob)
    assert task["traceparent"] is None
    start(bob, task["id"])
    assert spans.named("joblib submit") + spans.named("joblib claim") == []


class Rotate(BaseModel):
    """A job."""

    outcome: str = "done"

    def run(self):
        if self.outcome == "fails":
            raise ValueError("no")
        if self.outcome == "cancelled":
            raise Cancelled
        child = host_submit("open:modifiers:Rotate", {"outcome": "nested"})
        return {"child": str(child.pk), "context": tracing.current_traceparent()}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("fails", StatusCode.ERROR), ("cancelled", StatusCode.UNSET)],
)
def test_the_span_of_a_run_has_the_status_of_its_end(db, spans, outcome, status):
    declare_job("open:modifiers:Rotate", Rotate)
    host_submit("open:modifiers:Rotate", {"outcome": outcome})
    run_pending(Rotate, limit=1)
    span = spans.one("open:modifiers:Rotate")
    assert span.status.status_code is status
    assert [event.name for event in span.events] == ["exception"]


def test_host_code_and_the_code_of_a_task_continue_the_trace(db, spans):
    declare_job("open:modifiers:Rotate", Rotate)
    with spans.tracer.start_as_current_span("request") as request:
        task = host_submit("open:modifiers:Rotate", {})
    submitted = request.get_span_context()
    assert task.traceparent.split("-")[1:3] == [
        f"{submitted.trace_id:032x}",
        f"{submitted.span_id:016x}",
    ]
    (ended,) = run_pending(Rotate, limit=1)
    span = spans.one("open:modifiers:Rotate")
    assert (span.context.trace_id, span.parent.span_id) == (submitted.trace_id, submitted.span_id)
    assert span.kind is SpanKind.CONSUMER
    assert dict(span.attributes) == {
        "zndraw_joblib.task_id": str(task.pk),
        "zndraw_joblib.attempt": 1,
        "zndraw_joblib.job": "open:modifiers:Rotate",
        "zndraw_joblib.room": "open",
        "zndraw_joblib.worker_id": "zndraw_joblib.testing",
    }
    child = Task.objects.get(pk=ended.result["child"])
    assert child.traceparent == ended.result["context"]
    assert child.traceparent.split("-")[2] == f"{span.context.span_id:016x}"


def test_without_opentelemetry_contexts_are_kept_and_no_span_is_made(bob, spans, monkeypatch):
    monkeypatch.setattr(tracing, "HAS_OPENTELEMETRY", False)
    bob.register()
    with spans.tracer.start_as_current_span("request"):
        assert submit(bob, CONTEXT)["traceparent"] == CONTEXT
        assert submit(bob)["traceparent"] is None
        assert tracing.current_header() == {}
    assert spans.named("joblib submit") == []


def test_the_sdk_sends_the_current_context(spans):
    sent = []

    def answer(request):
        sent.append(request.headers.get("traceparent"))
        return httpx.Response(202, json={"id": "t"})

    with Api("http://server", transport=httpx.MockTransport(answer)) as api:
        submitter = Submitter(api, 10, {})
        submitter.submit(Named(), room="open")
        with spans.tracer.start_as_current_span("program") as span:
            submitter.submit(Named(), room="open")
            submitter.handle("t").retry()
    context = span.get_span_context()
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert sent == [None, expected, expected]


class Named(BaseModel):
    """A job."""

    category: ClassVar[str] = "modifiers"


WITHOUT_EXTRAS = """
import sys
for name in ("opentelemetry", "prometheus_client", "health_check"):
    sys.modules[name] = None  # An import raises ImportError.
import zndraw_joblib.client
from zndraw_joblib import tracing
assert not tracing.HAS_OPENTELEMETRY
assert tracing.current_header() == {}
with tracing.span_of_run("run", None, {}, KeyError):
    tracing.record("joblib claim", "00-1-2-3", tracing.now(), {})
import django
django.setup()
import zndraw_joblib.api.urls, zndraw_joblib.routing, zndraw_joblib.contrib.asgi
"""


def test_server_and_sdk_run_without_the_extras():
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "example_project.settings"}
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], check=True, env=environment)


@pytest.mark.parametrize("moment", ["start", "end"])
def test_a_broken_span_processor_fails_neither_requests_nor_tasks(bob, monkeypatch, caplog, moment):
    """Control: without `_errors_logged` the submit of an accepted task is answered 500."""
    provider = TracerProvider()
    provider.add_span_processor(BrokenProcessor(moment))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    bob.register()
    task_id = submit(bob, CONTEXT)["id"]
    attempt = start(bob, task_id)
    assert bob.report(task_id, "completed", attempt=attempt).status_code == 200
    ran = []
    with tracing.span_of_run("run", CONTEXT, {"task_id": task_id}, KeyboardInterrupt):
        ran.append(task_id)
    assert ran == [task_id]
    with (
        pytest.raises(ValueError, match="of the task"),
        tracing.span_of_run("run", CONTEXT, {"task_id": task_id}, KeyboardInterrupt),
    ):
        raise ValueError("of the task")
    records = [r for r in caplog.records if r.message.startswith("could not make the span")]
    assert {record.task_id for record in records} == {task_id}
