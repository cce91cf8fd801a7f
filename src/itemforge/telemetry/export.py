"""Where spans go: an OTLP/HTTP collector, in the background, and at no risk to the work itself.

Finished spans wait in a bounded queue for a thread that sends them. A collector that is away costs neither
time nor memory beyond that: the oldest spans are dropped, and the log says so once.
"""

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

import itemforge
from itemforge.settings import LogSettings
from itemforge.telemetry.logs import Redactor, secrets_of
from itemforge.telemetry.tracer import use

log = structlog.get_logger(__name__)

#: Finished spans that wait at most, and that go in one message.
QUEUE_SIZE, BATCH_SIZE = 2048, 256
#: Milliseconds after which a batch goes that is not full.
_DELAY = 1000
#: Seconds that sending one batch may take, with its repetitions.
_SEND = 3.0
#: Seconds that the end of the process waits for what is left.
FLUSH = 3.0
#: Steps are events of one span, and a row has at most 150.
_EVENTS = 256
#: Characters of one attribute; errors may be long.
_TEXT = 1024


@contextmanager
def tracing(settings: LogSettings, process: str) -> Iterator[None]:
    """Inside the block spans are made and sent, if the settings name a collector."""
    if settings.otel_endpoint is None:
        yield
        return
    # It would tell of every lost batch; `_Told` says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = _provider(settings, process)
    tracer = provider.get_tracer("itemforge", itemforge.__version__)
    use(tracer, Redactor(secrets_of(settings)))
    try:
        yield
    finally:
        use(None)
        # In a thread: the SDK's own end takes as long as the collector lets it.
        last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH)


def _provider(settings: LogSettings, process: str) -> TracerProvider:
    about = {
        "service.name": settings.service_name(process),
        "service.namespace": "itemforge",
        "service.version": itemforge.__version__,
        "service.instance.id": str(uuid4()),
        "host.name": socket.gethostname(),
    }
    exporter = OTLPSpanExporter(
        endpoint=f"{(settings.otel_endpoint or '').rstrip('/')}/v1/traces",
        headers=settings.otlp_headers(),
        timeout=_SEND,
    )
    provider = TracerProvider(
        resource=Resource.create(about),
        sampler=ParentBased(TraceIdRatioBased(settings.otel_ratio)),
        span_limits=SpanLimits(max_events=_EVENTS, max_attribute_length=_TEXT),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            Told(exporter),
            max_queue_size=QUEUE_SIZE,
            schedule_delay_millis=_DELAY,
            max_export_batch_size=BATCH_SIZE,
        )
    )
    return provider


class Told(SpanExporter):
    """An exporter whose failures are one line in the log, and whose recovery is another."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.info("traces_sent_again", lost=self._lost)
            self._lost = 0
            return result
        if not self._lost:
            log.warning(
                "traces_not_sent", reason="the collector of OTEL_EXPORTER_OTLP_ENDPOINT does not take them"
            )
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
