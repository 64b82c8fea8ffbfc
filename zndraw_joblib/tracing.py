"""W3C trace contexts: the text that is kept with a task, and spans where OpenTelemetry is there.

Server and SDK share it. Without `opentelemetry-api`, from the extra ``otel``, texts are kept all
the same and no span is made.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # The extra is not installed.
    HAS_OPENTELEMETRY = False
else:
    HAS_OPENTELEMETRY = True
    _propagator = TraceContextTextMapPropagator()

logger = logging.getLogger(__name__)

#: Name of the header, and of the field of a task.
HEADER = "traceparent"
#: Characters of a context.
LENGTH = 55
#: Version, trace id, parent id and flags (W3C Trace Context, section 3.2.2). A version ff and ids
#: of zeros are invalid; the longer texts of later versions are not kept.
_CONTEXT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NAME = "zndraw_joblib"


def valid_traceparent(text: str | None) -> str | None:
    """The text if it is a trace context; None otherwise, because a bad one is no error."""
    return text if text is not None and _CONTEXT.fullmatch(text) else None


def current_traceparent() -> str | None:
    """The context of the span that is current here; None without one."""
    if not HAS_OPENTELEMETRY:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return valid_traceparent(carrier.get(HEADER))


def current_header() -> dict[str, str]:
    """The header with the current context; empty without one."""
    context = current_traceparent()
    return {} if context is None else {HEADER: context}


def record(
    name: str,
    traceparent: str | None,
    began: int,
    attributes: Mapping[str, Any],
    *,
    linked: str | None = None,
) -> None:
    """Make a span that ends now, as a child of a task's context; nothing for a task without one.

    It is linked to the span that is current here, which is that of the request, and to the context
    `linked`. `began` is from `now`.
    """
    if traceparent is None or not HAS_OPENTELEMETRY:
        return
    with _errors_logged(name, attributes):
        contexts = [trace.get_current_span().get_span_context()]
        if linked is not None:
            contexts.append(trace.get_current_span(_context(linked)).get_span_context())
        links = [trace.Link(context) for context in contexts if context.is_valid]
        span = trace.get_tracer(_NAME).start_span(
            name,
            _context(traceparent),
            trace.SpanKind.INTERNAL,
            _known(attributes),
            links,
            start_time=began,
        )
        span.end()


def now() -> int:
    """The time of the beginning of a span, in nanoseconds."""
    return time.time_ns()


@contextmanager
def span_of_run(
    name: str,
    traceparent: str | None,
    attributes: Mapping[str, Any],
    no_errors: type[BaseException],
) -> Iterator[None]:
    """Make a span around the code of a task, which continues the trace of its submit.

    It is current meanwhile. An exception is recorded, and makes the status of the span an error if
    it is not one of `no_errors`.
    """
    if not HAS_OPENTELEMETRY:
        yield
        return
    span: trace.Span = trace.INVALID_SPAN
    with _errors_logged(name, attributes):
        context = None if traceparent is None else _context(traceparent)
        span = trace.get_tracer(_NAME).start_span(
            name, context, trace.SpanKind.CONSUMER, _known(attributes)
        )
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as error:
        # The code of an exception may fail, and its task must end with the exception itself.
        with suppress(BaseException):
            span.record_exception(error)
        if not isinstance(error, no_errors):
            span.set_status(trace.StatusCode.ERROR, type(error).__qualname__)
        raise
    finally:
        with _errors_logged(name, attributes):
            span.end()


@contextmanager
def _errors_logged(name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Log an error of a sampler or a span processor, which must fail neither request nor task."""
    try:
        yield
    except Exception:
        logger.exception("could not make the span %s", name, extra=dict(attributes))


def _context(traceparent: str) -> Any:
    return _propagator.extract({HEADER: traceparent})


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with the prefix of their names, without those that are None."""
    return {f"{_NAME}.{key}": value for key, value in attributes.items() if value is not None}
