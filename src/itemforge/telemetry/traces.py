"""Traces: what became of one request, as spans of OpenTelemetry behind small calls of our own.

Outside of this room nobody knows OpenTelemetry. Until `export.tracing` has set a tracer every call here does nothing. A
request's context is written as W3C `traceparent`: in its row, since the relay publishes later and perhaps
in another process, and in the message's headers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from itemforge.contract import QUEUE
from itemforge.telemetry.tracer import (
    SENT_AT,
    TRACEPARENT,
    around,
    messaging,
    milliseconds,
    named,
    read,
    under,
    written,
)


def here() -> str | None:
    """The `traceparent` of the span around the caller; None where nothing is traced."""
    return written(trace.get_current_span().get_span_context())


def link(traceparent: str | None, why: str) -> None:
    """Point from the span around the caller to another."""
    if context := read(traceparent):
        trace.get_current_span().add_link(context, {"itemforge.link": why})


def tag(**attributes: str | int | float | bool) -> None:
    """Say more of the span around the caller, in the words of the log."""
    trace.get_current_span().set_attributes(named(attributes))


def happened(name: str, **attributes: str | int | float | bool) -> None:
    """Note a moment in the span around the caller."""
    trace.get_current_span().add_event(name, named(attributes))


@contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[None]:
    """A span around the block, under the one around the caller."""
    with around(name, named(attributes)):
        yield


@dataclass
class Served:
    """What is known of an answer in the end. `route` is the path's template."""

    status: int = 0
    route: str | None = None


@contextmanager
def serving(method: str, path: str, traceparent: str | None) -> Iterator[Served]:
    """A server span around one HTTP request, under its caller's context if it sent one."""
    served = Served()
    about = {"http.request.method": method, "url.path": path}
    with around(method, about, SpanKind.SERVER, under(read(traceparent))) as current:
        yield served
        if served.route:
            current.update_name(f"{method} {served.route}")
            current.set_attribute("http.route", served.route)
        current.set_attribute("http.response.status_code", served.status)
        if served.status >= 500:
            current.set_status(StatusCode.ERROR)


@contextmanager
def publishing(request_id: str, traceparent: str | None) -> Iterator[dict[str, str | int]]:
    """A producer span around the publishing of a request's message; gives the headers it carries."""
    about = messaging("publish", "send", request_id)
    with around(f"publish {QUEUE}", about, SpanKind.PRODUCER, under(read(traceparent))) as current:
        here = written(current.get_span_context())
        yield {TRACEPARENT: here, SENT_AT: milliseconds()} if here else {}
