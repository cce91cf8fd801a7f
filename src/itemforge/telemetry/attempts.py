"""A worker's tries at requests as spans: one consumer span for each attempt, under the message's context.

What cannot be its parent is linked: an earlier attempt, the context of another trace.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from itemforge.contract import QUEUE
from itemforge.telemetry.tracer import (
    SENT_AT,
    TRACEPARENT,
    Attributes,
    Made,
    inside,
    messaging,
    milliseconds,
    named,
    read,
    under,
    written,
)

#: Headers that a copy of a message keeps; `tracestate` belongs to foreign programs.
_CARRIED = (TRACEPARENT, "tracestate", SENT_AT)
#: Characters of an error in a span.
_LONGEST = 500


def carried(headers: Mapping[str, str | int]) -> dict[str, str | int]:
    """Those headers of a message that its copy must have as well."""
    return {name: headers[name] for name in _CARRIED if name in headers}


class Attempt:
    """One worker's try at a request, from the arrival of its message.

    The span is begun under the message's own context, so that the claim can tell it; a message without one
    waits for the claim's answer, which has the row's.
    """

    def __init__(self, headers: Mapping[str, str | int], request_id: str) -> None:
        self._headers = carried(headers)
        self._request_id = request_id
        self._arrived = time.time_ns()
        self._claiming = self._arrived
        self._parent = read(headers.get(TRACEPARENT))
        self._span: Span = trace.INVALID_SPAN
        if self._parent is not None:
            self._begin()

    def _begin(self) -> None:
        self._span = Made.tracer.start_span(
            f"process {QUEUE}",
            context=under(self._parent),
            kind=SpanKind.CONSUMER,
            start_time=self._arrived,
            attributes=messaging("process", "process", self._request_id),
        )

    @property
    def traceparent(self) -> str | None:
        """This attempt's own context; None where it is not traced."""
        return written(self._span.get_span_context()) if self._span.is_recording() else None

    def claiming(self) -> None:
        """Its claim is sent now; of several tries the last one counts."""
        self._claiming = time.time_ns()

    def claimed(self, row: str | None, previous: str | None, about: Attributes) -> None:
        """The claim was granted; `row` is the request's context, `previous` that of the attempt before."""
        request = read(row)
        if self._parent is None:
            self._parent = request
            self._begin()
        elif request is not None and request.trace_id != self._parent.trace_id:
            self._span.add_link(request, {"itemforge.link": "request"})
        if before := read(previous):
            self._span.add_link(before, {"itemforge.link": "previous attempt"})
        self._span.set_attributes(named(about))
        sent = self._headers.get(SENT_AT)
        if isinstance(sent, int) and 0 < sent * 10**6 < self._arrived:
            self._between("queue", sent * 10**6, self._arrived)
        self._between("claim", self._claiming, time.time_ns(), SpanKind.CLIENT)

    def _between(
        self, name: str, began: int, ended: int, kind: SpanKind = SpanKind.INTERNAL, **more: int
    ) -> None:
        self.child(name, began, kind, **more).end(ended)

    def child(
        self, name: str, began: int | None = None, kind: SpanKind = SpanKind.INTERNAL, **more: int
    ) -> Span:
        """A span under this attempt's, from `began` (nanoseconds since 1970) or now."""
        if not self._span.is_recording():
            return trace.INVALID_SPAN
        attributes = named(more)
        context = trace.set_span_in_context(self._span, Context())
        return Made.tracer.start_span(
            name, context=context, kind=kind, start_time=began, attributes=attributes
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        """What is done in the block is done for this attempt; it ends with it."""
        with inside(self._span):
            yield

    def ended(self, outcome: str, error: str | None = None) -> None:
        """How it went; called inside `active`."""
        self._span.set_attribute("itemforge.outcome", outcome)
        if error is not None:
            self._span.set_status(StatusCode.ERROR, Made.redact(error)[:_LONGEST])

    def headers(self) -> dict[str, str | int]:
        """What a copy of the message carries, so that the next attempt stands beside this one."""
        if not self._span.is_recording():
            return dict(self._headers)
        parent = written(self._parent or self._span.get_span_context())
        return {**self._headers, TRACEPARENT: parent or "", SENT_AT: milliseconds()}


class Picture:
    """One image of an attempt in the engine: spans made of the stage times that come back.

    Stages are in seconds of `time.monotonic`, which is one clock for all processes of a machine.
    """

    def __init__(self, attempt: Attempt, image: int) -> None:
        self._attempt = attempt
        self._image = image
        self._submitted = 0
        self._waited = False
        self._denoising: Span | None = None
        self._began = self._stepped = 0
        self._offset = time.time_ns() - time.monotonic_ns()

    def submitted(self) -> None:
        self._submitted = self._began = time.time_ns()

    def stage(self, name: str, began: float, ended: float) -> None:
        """The row went through `merge`, `encode` or `decode`."""
        start, end = self._wall(began), self._wall(ended)
        if not self._waited and name != "decode":
            self._waited = True
            self._between("queue wait", self._submitted, start)
        if name == "decode":
            self._stop_denoising(StatusCode.UNSET)
        self._between(name, start, end)
        self._began = end

    def step(self, step: int, at: float | None = None) -> None:
        """So many denoising steps are done, the last of them `at` then, or now."""
        if self._denoising is None:
            self._denoising = self._attempt.child("denoise", self._began, image=self._image)
        self._stepped = time.time_ns() if at is None else self._wall(at)
        self._denoising.add_event("step", {"itemforge.step": step}, self._stepped)

    def ended(self, error: str | None = None) -> None:
        """The engine has nothing more to say of it; again is no error."""
        self._stop_denoising(StatusCode.ERROR if error else StatusCode.UNSET, error)

    def _between(self, name: str, began: int, ended: int) -> None:
        self._attempt.child(name, min(began, ended), image=self._image).end(ended)

    def _stop_denoising(self, status: StatusCode, why: str | None = None) -> None:
        if self._denoising is not None and self._denoising.is_recording():
            self._denoising.set_status(status, why)
            self._denoising.end(max(self._began, self._stepped))

    def _wall(self, monotonic: float) -> int:
        """A moment of the engine's clock in nanoseconds since 1970."""
        return self._offset + round(monotonic * 1e9)
