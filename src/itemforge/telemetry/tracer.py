"""The tracer of this process, and the few words that every span of ours is made of.

For this room only: everybody else calls `traces` and `attempts`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Span, SpanContext, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from itemforge.contract import QUEUE
from itemforge.telemetry import logs
from itemforge.telemetry.ecs import field_of

Attributes = Mapping[str, str | int | float | bool]

TRACEPARENT = "traceparent"
#: Message header: when the message was put on the queue, in milliseconds since 1970.
SENT_AT = "x-sent-at"

_propagator = TraceContextTextMapPropagator()


class Made:
    """How spans are made now: `tracer` makes them, `redact` takes secrets out of errors."""

    tracer: Tracer = NoOpTracer()
    redact: Callable[[str], str] = str


def use(tracer: Tracer | None, redact: Callable[[str], str] = str) -> None:
    """Make spans with this tracer from now on; None: make none. `redact` takes secrets out of errors."""
    Made.tracer = tracer or NoOpTracer()
    Made.redact = staticmethod(redact)
    logs.ids_from(_current_ids if tracer else None)


def _current_ids() -> tuple[str, str] | None:
    span = trace.get_current_span()
    # A task that outlives the request in which it began must not speak in its name.
    return _ids(span.get_span_context()) if span.is_recording() else None


def _ids(context: SpanContext) -> tuple[str, str]:
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def written(context: SpanContext) -> str | None:
    """The context as a header; None where there is none."""
    if not context.is_valid:
        return None
    return "-".join(("00", *_ids(context), f"{context.trace_flags & 1:02x}"))


def read(traceparent: object) -> SpanContext | None:
    """The context that a header names; None if there is none, or it is not the standard's."""
    if not isinstance(traceparent, str):
        return None
    found = trace.get_current_span(_propagator.extract({TRACEPARENT: traceparent}, Context()))
    context = found.get_span_context()
    return context if context.is_valid else None


def under(parent: SpanContext | None) -> Context:
    """Where a span begins that has this parent, or none."""
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context()) if parent else Context()


def named(attributes: Attributes) -> Attributes:
    """Attributes in the words of the log."""
    return {field_of(key): value for key, value in attributes.items()}


@contextmanager
def around(
    name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL, parent: Context | None = None
) -> Iterator[Span]:
    """A span around the block. Of an error that leaves it the kind is told; its text may hold a prompt."""
    current = Made.tracer.start_span(name, context=parent, kind=kind, attributes=attributes)
    with inside(current):
        try:
            yield current
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


@contextmanager
def inside(current: Span) -> Iterator[None]:
    """The span is the one around the block, and ends with it."""
    with trace.use_span(current, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield


def messaging(operation: str, kind: str, request_id: str) -> Attributes:
    """What a span about a request's message says."""
    return {
        "messaging.system": "rabbitmq",
        "messaging.destination.name": QUEUE,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        field_of("request_id"): request_id,
    }


def milliseconds() -> int:
    """Now, since 1970."""
    return time.time_ns() // 10**6
