"""The gateway's instruments: what passes through this process since it started.

Figures of the whole system (what waits, who works) are no counters of one process: they are read from the
database when somebody scrapes (`gateway.metrics`).
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from itemforge.telemetry.metrics import HTTP_BUCKETS, JOB_BUCKETS, OTHER, StyleLabel, new_registry

OUTCOMES = ("completed", "failed", "cancelled")
CLAIM_OUTCOMES = ("claimed", "leased", "done", "unknown", "exhausted")
REPORT_STATUSES = ("completed", "failed", "retry", "released")
REPORT_RESULTS = {200: "accepted", 409: "stale", 404: "unknown"}
WEBHOOK_OUTCOMES = ("delivered", "retried", "failed")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class GatewayMetrics:
    """Made once by the app factory; every method is cheap and never raises."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or new_registry("gateway")
        self._style = StyleLabel()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"itemforge_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"itemforge_{name}", text, labels, registry=registry, buckets=tuple(buckets))

        self._requests = counter("requests_total", "Requests taken in.", "style")
        self._jobs = counter("jobs_total", "Requests that ended.", "outcome", "style")
        self._images = counter("images_total", "Images of completed requests.", "style")
        self._wait = histogram("wait_seconds", "From submission to the first claim.", JOB_BUCKETS)
        self._job_seconds = histogram("job_seconds", "From submission to the end.", JOB_BUCKETS, "outcome")
        self._claims = counter("claims_total", "Answers to workers' claims.", "outcome")
        self._again = counter("attempts_repeated_total", "Claims of a request that was claimed before.")
        self._reports = counter("reports_total", "Workers' reports.", "status", "result")
        self._expired = counter("leases_expired_total", "Requests taken from workers that fell silent.")
        self._republished = counter("republished_total", "Requests whose message the queue had lost.")
        self._published = counter("published_total", "Messages put on the queue.")
        self._webhooks = counter("webhooks_total", "Tries of webhook deliveries.", "outcome")
        self._http = counter("http_requests_total", "Answers of the gateway.", "method", "route", "status")
        self._http_seconds = histogram(
            "http_request_seconds", "From request to the end of the answer.", HTTP_BUCKETS, "method", "route"
        )
        self._http_now = Gauge(
            "itemforge_http_requests_in_progress",
            "Answers under way, event streams among them.",
            registry=registry,
        )
        # A series that begins at its first event has no rate for it: all known ones begin at 0.
        for outcome in OUTCOMES:
            self._jobs.labels(outcome, "none")
            self._job_seconds.labels(outcome)
        for outcome in CLAIM_OUTCOMES:
            self._claims.labels(outcome)
        for outcome in WEBHOOK_OUTCOMES:
            self._webhooks.labels(outcome)
        for status in REPORT_STATUSES:
            for result in REPORT_RESULTS.values():
                self._reports.labels(status, result)

    def request_created(self, style: str | None) -> None:
        self._requests.labels(self._style.of(style)).inc()

    def request_claimed(self, attempt: int, waited: float) -> None:
        """`waited`: seconds since the submission."""
        if attempt == 1:
            self._wait.observe(waited)
        else:
            self._again.inc()

    def request_ended(self, outcome: str, style: str | None, images: int, took: float) -> None:
        """`took`: seconds since the submission."""
        name = self._style.of(style)
        self._jobs.labels(outcome, name).inc()
        self._job_seconds.labels(outcome).observe(took)
        if outcome == "completed":
            self._images.labels(name).inc(images)

    def claims_answered(self, outcomes: Iterable[str]) -> None:
        for outcome in outcomes:
            self._claims.labels(outcome).inc()

    def report_answered(self, status: str, code: int) -> None:
        self._reports.labels(status.lower(), REPORT_RESULTS[code]).inc()

    def swept(self, expired: int, republished: int) -> None:
        self._expired.inc(expired)
        self._republished.inc(republished)

    def published(self, messages: int) -> None:
        self._published.inc(messages)

    def webhook_tried(self, outcome: str) -> None:
        """`outcome`: one of `WEBHOOK_OUTCOMES`."""
        self._webhooks.labels(outcome).inc()

    def http_began(self) -> None:
        self._http_now.inc()

    def http_ended(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is the address's pattern; None where no route was reached. `status` 0: the client left."""
        self._http_now.dec()
        method, route = method if method in _METHODS else OTHER, route or OTHER
        self._http.labels(method, route, str(status) if status else "aborted").inc()
        self._http_seconds.labels(method, route).observe(seconds)
