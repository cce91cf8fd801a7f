"""What the metrics of every process stand on: one registry a process, labels that stay few, the text that
Prometheus reads.

Instruments are made once (`GatewayMetrics`, `WorkerMetrics`) on a registry that the command passes in, so
`itemforge up` shows gateway and worker in one answer and two gateways in one test do not share figures.
"""

import threading

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder

import itemforge

#: The value of a label that is not among the known ones.
OTHER = "other"
#: Buckets in seconds: of one denoising step or stage, and of what a job may wait for.
STAGE_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
JOB_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def new_registry(process: str) -> CollectorRegistry:
    """A registry that tells of the process itself (memory, CPU, files) and which version it runs."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "itemforge_build_info",
        "Always 1; the version that runs, and in which process.",
        ["version", "process"],
        registry=registry,
    )
    build.labels(itemforge.__version__, process).set(1)
    return registry


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """All figures as text, and its content type: OpenMetrics for who accepts it, else Prometheus' own."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class FewValues:
    """A label whose values come from outside: the first `most` of them keep their name, later ones are
    `other`. Whoever sends messages with ever new names cannot make ever new series."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        with self._lock:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class StyleLabel(FewValues):
    """The style's id; its version would make a new series with each release. No style is `none`."""

    def of(self, style: str | None) -> str:
        return "none" if style is None else self(style.partition("@")[0])
