"""Spans on their way out: to a collector that answers, one that is away, and one that hangs."""

import io
import json
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from itemforge.errors import ConfigurationError
from itemforge.settings import LogSettings, WorkerSettings, load
from itemforge.telemetry import export, traces
from itemforge.telemetry.attempts import Attempt, Picture
from itemforge.telemetry.export import tracing
from itemforge.telemetry.logs import setup_logs
from itemforge.telemetry.tracer import SENT_AT, TRACEPARENT, Made
from otlp_sink import Sink
from polling import wait_until
from services.process import free_port


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _settings(url: str, **values: Any) -> WorkerSettings:
    return WorkerSettings(otel_endpoint=url, log_format="json", log_level="debug", **values)


def _job(steps: int = 50) -> None:
    """What the worker says of one job."""
    attempt = Attempt({TRACEPARENT: f"00-{'a' * 32}-{'b' * 16}-01", SENT_AT: 1}, "an id")
    attempt.claiming()
    attempt.claimed(None, None, {"attempt": 1})
    with attempt.active():
        picture = Picture(attempt, 0)
        picture.submitted()
        for step in range(steps):
            picture.step(step + 1)
        picture.ended()
        with traces.span("upload", image=0):
            pass
        attempt.ended("completed")


def test_spans_reach_the_collector_with_the_headers_that_it_asks_for() -> None:
    with Sink() as sink:
        settings = _settings(f"{sink.url}/", otel_headers="x-team=art%20dept, authorization=Basic%20abc=")
        with tracing(settings, "worker"):
            _job(steps=150)
        assert sink.headers[0]["x-team"] == "art dept"
        assert sink.headers[0]["authorization"] == "Basic abc="
        (denoise,) = [span for span in sink.spans if span.name == "denoise"]
        assert len(denoise.events) == 150
        assert {span.service for span in sink.spans} == {"itemforge-worker"}


def test_without_an_endpoint_nothing_is_made() -> None:
    with tracing(LogSettings(), "worker"):
        _job()
        assert traces.here() is None
        with traces.publishing("an id", None) as headers:
            assert headers == {}


def test_a_part_of_the_requests_is_traced_and_the_callers_word_wins() -> None:
    with Sink() as sink:
        with tracing(_settings(sink.url, otel_ratio=0.0), "gateway"):
            with traces.serving("POST", "/x", None):
                assert str(traces.here()).endswith("-00")
            with traces.serving("POST", "/y", f"00-{'a' * 32}-{'b' * 16}-01"):
                pass
            with traces.serving("POST", "/z", f"00-{'c' * 32}-{'d' * 16}-00"):
                pass
        assert [span.attributes["url.path"] for span in sink.spans] == ["/y"]


@pytest.mark.parametrize("text", ["no pairs", "=hush", "good=1,bad"])
def test_headers_that_are_none_are_refused_without_showing_them(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", text)
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        load(WorkerSettings)
    assert text not in str(caught.value)


def test_a_collector_that_is_away_costs_one_line_and_a_bounded_queue(log: io.StringIO) -> None:
    settings = _settings(f"http://127.0.0.1:{free_port()}")
    setup_logs(settings, "worker", log)
    with tracing(settings, "worker"):
        for _ in range(2000):
            _job(steps=1)
        assert 0 < _queued() <= export.QUEUE_SIZE
        wait_until(lambda: "traces_not_sent" in log.getvalue(), 20)
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["message"] for line in told] == ["traces_not_sent"]


def test_a_collector_that_comes_back_is_sent_to_again(log: io.StringIO) -> None:
    with Sink(answer=503) as sink:
        settings = _settings(sink.url)
        setup_logs(settings, "worker", log)
        with tracing(settings, "worker"):
            _job()
            wait_until(lambda: "traces_not_sent" in log.getvalue(), 20)
            sink.answer = 200
            _job()
            wait_until(lambda: "traces_sent_again" in log.getvalue(), 20)
    assert [json.loads(line)["message"] for line in log.getvalue().splitlines()] == [
        "traces_not_sent",
        "traces_sent_again",
    ]


def test_a_collector_that_hangs_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FLUSH", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        ended = threading.Event()

        def run() -> None:
            with tracing(_settings(f"http://127.0.0.1:{silent.getsockname()[1]}"), "worker"):
                for _ in range(500):
                    _job(steps=1)
            ended.set()

        threading.Thread(target=run, daemon=True).start()
        # The SDK alone would try for minutes: 2048 spans in batches, each with its own repetitions.
        assert ended.wait(export._SEND * 3)


def test_secrets_in_errors_stay_out_of_spans() -> None:
    with Sink() as sink:
        settings = _settings(sink.url, api_key="k3y-of-the-worker")
        with tracing(settings, "worker"):
            attempt = Attempt({}, "an id")
            attempt.claimed(None, None, {})
            with attempt.active():
                attempt.ended("failed", "refused k3y-of-the-worker at amqp://user:pässword@host/")
        (span,) = [span for span in sink.spans if span.name.startswith("process")]
        assert span.status == "refused *** at amqp://user:***@host/"
        assert b"k3y" not in b"".join(sink.bodies)


def _queued() -> int:
    """Spans that wait, by the SDK's own queue."""
    provider = Made.tracer.span_processor  # type: ignore[attr-defined]
    return sum(len(p._batch_processor._queue) for p in provider._span_processors)
