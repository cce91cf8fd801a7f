"""One trace for one request, across processes, retries and lost workers, as a collector receives it."""

import itertools
import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from stack import Stack, pika_channel

from itemforge.contract import QUEUE
from otlp_sink import Sink, Span, tree
from polling import wait_until

PROCESS = "process image_generation_queue"
PUBLISH = "publish image_generation_queue"
SUBMIT = "POST /v1/generations"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def _start(stack: Stack, sink: Sink) -> Any:
    """A gateway and one worker that send their spans to the sink; gives the worker."""
    stack.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    return stack.worker(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)


def _attempts(sink: Sink, request_id: str, count: int) -> list[Span]:
    wait_until(lambda: len(sink.about(request_id, PROCESS)) >= count, 30, why=f"{count} attempts are traced")
    return sink.about(request_id, PROCESS)


def _with_gateways(sink: Sink, trace: str) -> list[Span]:
    """The trace, once the gateway's spans have come; its process sends them when it likes."""
    names = {SUBMIT, PUBLISH}
    wait_until(lambda: names <= {span.name for span in sink.of(trace)}, 30, why="the gateway's spans come")
    return sink.of(trace)


def _children(sink: Sink, span: Span) -> list[str]:
    return [s.name for s in sink.of(span.trace) if s.parent == span.id]


def _submit(stack: Stack, prompt: str, traceparent: str | None = None) -> str:
    headers = {"traceparent": traceparent} if traceparent else {}
    body = {"prompt": prompt, "num_inference_steps": 5}
    answer = stack.http.post("/v1/generations", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_job_that_was_retried_once_is_one_trace(stack: Stack, sink: Sink) -> None:
    worker = _start(stack, sink)
    request_id = _submit(stack, "flaky a key", CALLER)
    assert stack.wait_status(request_id, "Completed").attempt == 2
    first, second = _attempts(sink, request_id, 2)
    trace = CALLER.split("-")[1]
    spans = _with_gateways(sink, trace)
    drawn = ["queue", "claim", "queue wait", "merge", "encode", "denoise", "decode", "upload", "report"]
    assert tree(spans) == {
        SUBMIT: [
            {
                PUBLISH: [
                    {PROCESS: [{name: []} for name in ("queue", "claim", "report")]},
                    {PROCESS: [{name: []} for name in drawn]},
                ]
            }
        ]
    }
    submit = spans[0]
    assert submit.parent == CALLER.split("-")[2]
    assert submit.attributes["itemforge.request.id"] == request_id
    assert (submit.attributes["http.response.status_code"], submit.kind) == (202, 2)
    assert {s.service for s in spans} == {"itemforge-gateway", "itemforge-worker"}
    assert first.error and first.status == "out of memory"
    assert not second.error
    assert [s.attributes["itemforge.outcome"] for s in (first, second)] == ["retry", "completed"]
    assert [s.attributes["itemforge.request.attempt"] for s in (first, second)] == [1, 2]
    assert {s.attributes["itemforge.worker.id"] for s in (first, second)} == {worker.name}
    assert first.links == ()
    assert second.links == ((trace, first.id, {"itemforge.link": "previous attempt"}),)
    (denoise,) = [s for s in spans if s.name == "denoise"]
    assert [(name, about["itemforge.step"]) for name, about in denoise.events] == [
        ("step", n) for n in (1, 2, 3, 4, 5)
    ]
    by_name = {s.name: s for s in spans if s.parent == second.id}
    order = [by_name[name] for name in drawn]
    assert all(span.began <= span.ended for span in spans)
    assert all(before.ended <= after.ended for before, after in itertools.pairwise(order))
    assert second.began >= first.ended - 1_000_000
    lines = worker.events("job_completed")
    assert [(line["trace"]["id"], line["span"]["id"]) for line in lines] == [(trace, second.id)]


def test_a_job_whose_worker_was_killed_goes_on_in_its_trace(stack: Stack, sink: Sink) -> None:
    worker = _start(stack, sink)
    request_id = _submit(stack, "held a key")
    stack.wait_drawing([request_id])
    worker.kill()
    stack.release()
    stack.worker(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert stack.wait_status(request_id, "Completed", within=60).attempt == 2
    (second,) = _attempts(sink, request_id, 1)  # the first one's span died with its worker
    ((trace, lost, why),) = second.links
    assert (trace, why) == (second.trace, {"itemforge.link": "previous attempt"})
    assert lost not in {span.id for span in sink.spans}
    (submit,) = [span for span in _with_gateways(sink, second.trace) if span.name == SUBMIT]
    assert submit.parent == ""
    assert submit.attributes["itemforge.request.id"] == request_id


def test_a_cancelled_and_a_failed_jobs_traces_tell_how_they_ended(stack: Stack, sink: Sink) -> None:
    _start(stack, sink)
    failed, cancelled = _submit(stack, "bad a key"), _submit(stack, "held a key")
    stack.wait_status(failed, "Failed")
    stack.wait_drawing([cancelled])
    assert stack.http.post(f"/v1/generations/{cancelled}/cancel").is_success
    (bad,), (left,) = _attempts(sink, failed, 1), _attempts(sink, cancelled, 1)
    assert (bad.attributes["itemforge.outcome"], left.attributes["itemforge.outcome"]) == (
        "failed",
        "dropped",
    )
    assert bad.error and bad.status, "why it failed"
    assert not left.error, "what its user asked for is no fault"
    assert "report" in _children(sink, bad) and "upload" not in _children(sink, bad)
    (denoise,) = [s for s in sink.of(left.trace) if s.name == "denoise"]
    assert len(denoise.events) < 5
    assert not {"decode", "upload", "report"} & set(_children(sink, left))


def test_a_foreign_publishers_trace_is_honoured_and_linked_to_the_requests(stack: Stack, sink: Sink) -> None:
    stack.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, ITEMFORGE_RELAY_INTERVAL="600")
    request_id = _held_from_the_relay(stack, "a key")
    body = json.dumps({"request_id": request_id, "params": {"prompt": "a key"}}).encode()
    stack.publish(body, headers={"traceparent": OTHER, "tracestate": "theirs=1", "n": 5})
    stack.worker(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    stack.wait_status(request_id, "Completed")
    (attempt,) = _attempts(sink, request_id, 1)
    assert (attempt.trace, attempt.parent) == tuple(OTHER.split("-")[1:3])
    ((trace, _, why),) = attempt.links
    assert (trace, why) == (CALLER.split("-")[1], {"itemforge.link": "request"})
    assert "queue" not in _children(sink, attempt)  # nobody knows when it was sent


def _held_from_the_relay(stack: Stack, prompt: str) -> str:
    """A request whose row has a trace, and which the relay takes for published already."""
    request_id = _submit(stack, prompt, CALLER)
    wait_until(lambda: stack.row(request_id).published, 20)
    wait_until(lambda: stack.ready_messages(QUEUE) == 1, 20)
    with pika_channel(stack.vhost.url) as channel:
        channel.queue_purge(QUEUE)
    return request_id


@pytest.mark.parametrize("headers", [None, {"traceparent": "not-a-context"}, {"traceparent": 7}])
def test_without_a_usable_header_the_rows_trace_goes_on(
    stack: Stack, sink: Sink, headers: dict[str, Any] | None
) -> None:
    stack.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, ITEMFORGE_RELAY_INTERVAL="600")
    request_id = _held_from_the_relay(stack, "a key")
    body = json.dumps({"request_id": request_id, "params": {"prompt": "a key"}}).encode()
    stack.publish(body, headers=headers)
    stack.worker(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    stack.wait_status(request_id, "Completed")
    (attempt,) = _attempts(sink, request_id, 1)
    (submit,) = [span for span in _with_gateways(sink, attempt.trace) if span.name == SUBMIT]
    assert (attempt.trace, attempt.parent) == (CALLER.split("-")[1], submit.id)


def test_a_row_from_before_and_a_gateway_without_traces_give_a_trace_of_their_own(
    stack: Stack, sink: Sink
) -> None:
    stack.gateway()
    worker = stack.worker(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    old, passed_on = _submit(stack, "a key"), _submit(stack, "a key", CALLER)
    for request_id in (old, passed_on):
        stack.wait_status(request_id, "Completed")
    (attempt,) = _attempts(sink, old, 1)
    assert attempt.parent == ""
    (attempt,) = _attempts(sink, passed_on, 1)
    assert (attempt.trace, attempt.parent) == tuple(CALLER.split("-")[1:3])
    assert worker.end(signal.SIGTERM) == 0


def test_an_id_that_nobody_knows_is_no_attempt(stack: Stack, sink: Sink) -> None:
    _start(stack, sink)
    body = json.dumps({"request_id": str(uuid.uuid4()), "params": {"prompt": "a key"}}).encode()
    stack.publish(body, headers={"traceparent": OTHER})
    (dead,) = wait_until(stack.dead, 30) or []
    assert dead["body"] == body
    request_id = _submit(stack, "a key")
    _attempts(sink, request_id, 1)
    assert not sink.of(OTHER.split("-")[1])
