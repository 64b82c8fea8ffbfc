"""A worker continues the trace that the answer to its claim names."""

from __future__ import annotations

import pytest
from opentelemetry import trace

from tests.client.stand_in import Rotate, task, until
from tests.spans import CONTEXT, TRACE, keep_spans


@pytest.fixture
def exporter(monkeypatch):
    provider, exporter = keep_spans(monkeypatch)
    yield exporter
    provider.shutdown()


def test_the_code_of_a_task_runs_in_a_span_of_its_submits_trace(server, running, exporter):
    seen = {}

    def execute(task):
        context = trace.get_current_span().get_span_context()
        seen[task.id] = f"{context.trace_id:032x}"

    server.queue += [task("a", traceparent=CONTEXT, worker_id="w1"), task("b")]
    running(execute)
    until(lambda: len(exporter.get_finished_spans()) == 2)
    spans = {
        span.attributes["zndraw_joblib.task_id"]: span for span in exporter.get_finished_spans()
    }
    assert seen["a"] == TRACE
    assert f"{spans['a'].parent.span_id:016x}" == "00f0670010902017"
    assert spans["a"].name == "@global:modifiers:Rotate"
    assert spans["a"].attributes["zndraw_joblib.worker_id"] == "w1"
    # A task of a server that tells no context begins a trace of its own.
    assert seen["b"] not in {TRACE, "0" * 32}
    assert spans["b"].parent is None
    assert Rotate.ran == []
