"""The worker's instruments. What they count is observed at the worker's borders (`worker.metering`)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from itemforge.telemetry.gpu import GpuCollector
from itemforge.telemetry.metrics import JOB_BUCKETS, OTHER, STAGE_BUCKETS, StyleLabel, new_registry

#: How a claimed job may leave this worker. `stale`: another attempt had it; `dropped`: cancelled or lost.
JOB_OUTCOMES = ("completed", "failed", "retried", "stale", "dropped", "given_back", "broken")
CLAIM_OUTCOMES = ("claimed", "leased", "done", "unknown", "exhausted")
#: The engine's, and the worker's own.
STAGES = ("merge", "encode", "unet", "preview", "decode", "claim", "upload", "report")
STATES = ("starting", "ready", "paused", "draining")
INFRASTRUCTURE = ("claim", "engine", "storage", "report")
UPLOAD_RESULTS = ("created", "present", "failed")
FILL_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


class WorkerMetrics:
    """Made once by the command; every method is cheap and never raises."""

    def __init__(self, registry: CollectorRegistry | None = None, price_per_hour: float = 0.0) -> None:
        self.registry = registry = registry or new_registry("worker")
        GpuCollector(registry)
        self._style = StyleLabel()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"itemforge_worker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"itemforge_worker_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(
                f"itemforge_worker_{name}", text, labels, registry=registry, buckets=tuple(buckets)
            )

        self._jobs = counter("jobs_total", "Claimed jobs that left this worker.", "outcome", "style")
        self._images = counter("images_total", "Images of completed jobs.", "style")
        self._job_seconds = histogram(
            "job_seconds", "From claim to the job's end in this worker.", JOB_BUCKETS, "outcome"
        )
        self._claims = counter("claims_total", "Answers of the gateway to claims.", "outcome")
        self._stages = histogram(
            "stage_seconds", "Time of each stage: of a batch or of one call.", STAGE_BUCKETS, "stage"
        )
        self._step_seconds = histogram("step_seconds", "One denoising step of a whole batch.", STAGE_BUCKETS)
        self._steps = counter("steps_total", "Denoising steps done, counted for each image.")
        self._fill = histogram(
            "batch_fill_ratio", "Images in a denoising step, of the batch size.", FILL_BUCKETS
        )
        self._batch_size = gauge("batch_size", "Images that share a denoising step at most.")
        self._in_hand = gauge("images_in_hand", "Images claimed, waiting for the engine or in it.")
        self._held = gauge("messages_held", "Messages taken from the queue and not claimed yet.")
        self._state = gauge("state", "1 for the worker's state, 0 for the others.", "state")
        self._out_of_memory = counter("out_of_memory_total", "Batches that did not fit into memory.")
        self._engine_lost = counter("engine_lost_total", "Engine processes that died or fell silent.")
        self._deliveries = counter("deliveries_total", "Messages taken from the queue.")
        self._redeliveries = counter(
            "redeliveries_total", "Messages that the queue has given to somebody before."
        )
        self._retries = counter("retries_total", "Jobs sent to a retry queue after a failed attempt.")
        self._stale = counter("stale_reports_total", "Reports that the gateway refused as out of date.")
        self._dead = counter("dead_letters_total", "Messages put on the dead queue.")
        self._uploads = counter("uploads_total", "Tries to store a picture.", "result")
        self._upload_bytes = counter("upload_bytes_total", "Bytes of pictures that were stored.")
        self._infrastructure = counter(
            "infrastructure_failures_total", "Calls that failed because something was away.", "what"
        )
        price = gauge("price_per_hour", "What this machine costs an hour (ITEMFORGE_PRICE_PER_HOUR).")
        price.set(price_per_hour)
        # A series that begins at its first event has no rate for it: all known ones begin at 0.
        for family, values in (
            (self._claims, CLAIM_OUTCOMES),
            (self._uploads, UPLOAD_RESULTS),
            (self._infrastructure, INFRASTRUCTURE),
            (self._job_seconds, JOB_OUTCOMES),
            (self._stages, STAGES),
        ):
            for value in values:
                family.labels(value)
        for outcome in JOB_OUTCOMES:
            self._jobs.labels(outcome, "none")
        self.enter("starting")

    def enter(self, state: str) -> None:
        for each in STATES:
            self._state.labels(each).set(each == state)

    def holds(self, images: int, messages: int, batch_size: int) -> None:
        """What the worker has in hand now."""
        self._in_hand.set(images)
        self._held.set(messages)
        self._batch_size.set(batch_size)

    def delivered(self, redelivered: bool) -> None:
        self._deliveries.inc()
        if redelivered:
            self._redeliveries.inc()

    def claim_answered(self, outcome: str) -> None:
        self._claims.labels(_one_of(CLAIM_OUTCOMES, outcome)).inc()

    def job_ended(self, outcome: str, style: str | None, images: int, seconds: float) -> None:
        """A claimed job is out of this worker's hands, `seconds` after its claim."""
        outcome, style = _one_of(JOB_OUTCOMES, outcome), self._style.of(style)
        self._jobs.labels(outcome, style).inc()
        self._job_seconds.labels(outcome).observe(seconds)
        if outcome == "completed":
            self._images.labels(style).inc(images)
        if outcome == "retried":
            self._retries.inc()

    def engine_worked(
        self, rows: int, batch_size: int, stages: Iterable[tuple[str, float]], out_of_memory: int
    ) -> None:
        """One turn of the engine: `rows` images are one step further; stages with their seconds."""
        for stage, seconds in stages:
            self._stages.labels(_one_of(STAGES, stage)).observe(seconds)
            if stage == "unet":
                self._step_seconds.observe(seconds)
        if rows:
            self._steps.inc(rows)
            self._fill.observe(rows / max(1, batch_size))
        if out_of_memory:
            self._out_of_memory.inc(out_of_memory)

    def engine_lost(self) -> None:
        self._engine_lost.inc()

    def uploaded(self, created: bool, size: int) -> None:
        """A picture of `size` bytes is stored; not `created`: it was there already."""
        self._uploads.labels("created" if created else "present").inc()
        if created:
            self._upload_bytes.inc(size)

    def upload_failed(self) -> None:
        self._uploads.labels("failed").inc()

    def report_stale(self) -> None:
        self._stale.inc()

    def buried(self) -> None:
        self._dead.inc()

    def infrastructure_failed(self, what: str) -> None:
        self._infrastructure.labels(_one_of(INFRASTRUCTURE, what)).inc()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures the block, also one that fails."""
        began = perf_counter()
        try:
            yield
        finally:
            self._stages.labels(_one_of(STAGES, name)).observe(perf_counter() - began)


def _one_of(known: tuple[str, ...], value: str) -> str:
    return value if value in known else OTHER
