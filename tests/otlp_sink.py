"""An OTLP/HTTP collector for tests: it takes protobuf on /v1/traces and keeps the spans, as Jaeger would."""

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """What a trace's reader sees. Times are nanoseconds since 1970; ids are hexadecimal."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    service: str
    began: int
    ended: int
    error: bool
    status: str
    attributes: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    links: tuple[tuple[str, str, dict[str, Any]], ...]  # trace, span, attributes


@dataclass
class Sink:
    """`url` is what OTEL_EXPORTER_OTLP_ENDPOINT gets; `bodies` and `headers` are of every call."""

    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: int = 200

    def __enter__(self) -> "Sink":
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.headers.append({name.lower(): value for name, value in self.headers.items()})
                sink.bodies.append(body)
                code = sink.answer if self.path == "/v1/traces" else 404
                if code == 200:
                    sink.spans.extend(read(body))
                data = ExportTraceServiceResponse().SerializeToString()
                self.send_response(code)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, trace: str) -> list[Span]:
        """The spans of a trace, in the order in which they began."""
        return sorted((s for s in list(self.spans) if s.trace == trace), key=lambda s: s.began)

    def about(self, request_id: str, name: str) -> list[Span]:
        """Spans of that name that tell of a request, in the order in which they began."""
        found = [
            s
            for s in list(self.spans)
            if s.name == name and s.attributes.get("itemforge.request.id") == request_id
        ]
        return sorted(found, key=lambda s: s.began)


def read(body: bytes) -> list[Span]:
    """The spans of one call."""
    request = ExportTraceServiceRequest.FromString(body)
    found = []
    for resource in request.resource_spans:
        service = str(_plain(resource.resource.attributes).get("service.name", ""))
        found += [_span(span, service) for scope in resource.scope_spans for span in scope.spans]
    return found


def _span(span: Any, service: str) -> Span:
    return Span(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=span.kind,
        service=service,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        error=span.status.code == 2,
        status=span.status.message,
        attributes=_plain(span.attributes),
        events=tuple((event.name, _plain(event.attributes)) for event in span.events),
        links=tuple((k.trace_id.hex(), k.span_id.hex(), _plain(k.attributes)) for k in span.links),
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


def tree(spans: list[Span]) -> dict[str, Any]:
    """Names as a tree: each name to the list of its children's trees, siblings in the order of their start."""

    def below(parent: str) -> list[Any]:
        return [{span.name: below(span.id)} for span in spans if span.parent == parent]

    ids = {span.id for span in spans}
    roots = [span for span in spans if span.parent not in ids]
    return {span.name: below(span.id) for span in roots}
