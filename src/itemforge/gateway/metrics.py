"""`/metrics`: what passed through this gateway, and the system's figures from the database.

The database is asked when somebody scrapes, at most every few seconds and for a bounded time. While it is
away its figures are left out, since old ones would look like new ones, and `itemforge_database_up` is 0.
"""

import asyncio
import time
from collections.abc import Iterable

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from itemforge.errors import BrokerUnavailable, DatabaseUnavailable
from itemforge.gateway.context import Gateway
from itemforge.jobs import deliveries, figures
from itemforge.jobs.records import Change
from itemforge.telemetry.gateway_metrics import GatewayMetrics
from itemforge.telemetry.metrics import exposition

log = structlog.get_logger(__name__)
router = APIRouter()

#: Seconds for which a look into database and broker is shown again.
_FRESH = 5.0
#: Seconds that such a look may take; Prometheus gives a scrape ten.
_PATIENCE = 3.0
#: Name and meaning of every gauge, in the order of `_Figures.values`.
GAUGES = (
    ("itemforge_open_requests", "Requests that are open, by status.", "status"),
    ("itemforge_unpublished_requests", "Open requests that are not on the queue yet.", None),
    ("itemforge_queue_age_seconds", "Age of the oldest request that waits.", None),
    ("itemforge_backlog_steps", "Denoising steps of all images that wait.", None),
    ("itemforge_backlog_seconds", "How long the live workers need for all that waits.", None),
    ("itemforge_step_seconds", "Time from claim to report for each step of an image, measured.", None),
    ("itemforge_capacity_images", "Images that live workers have in hand or could take.", None),
    ("itemforge_workers", "Workers by state; silent ones said nothing of their end.", "state"),
    ("itemforge_webhooks_waiting", "Webhook deliveries that were not yet told, nor given up.", None),
    ("itemforge_queue_messages", "Messages that wait in the broker.", "queue"),
    ("itemforge_database_up", "1 when the database answered this scrape.", None),
    ("itemforge_broker_up", "1 while messages can be published.", None),
)

Values = dict[str, float]


class FiguresCollector(Collector):
    """Shows the last look, and asks nothing itself: scraping has no event loop."""

    def __init__(self) -> None:
        self.shown: dict[str, Values] = {}

    def describe(self) -> Iterable[Metric]:
        return [
            GaugeMetricFamily(name, text, labels=[label] if label else []) for name, text, label in GAUGES
        ]

    def collect(self) -> Iterable[Metric]:
        for name, text, label in GAUGES:
            if (values := self.shown.get(name)) is None:
                continue
            family = GaugeMetricFamily(name, text, labels=[label] if label else [])
            for value, figure in values.items():
                family.add_metric([value] if label else [], figure)
            yield family


class Look:
    """Keeps `collector` fresh; several scrapes at once share one look."""

    def __init__(self, gateway: Gateway, collector: FiguresCollector) -> None:
        self._gateway = gateway
        self._collector = collector
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._counting: asyncio.Task[figures.Backlog] | None = None
        self._last: figures.Backlog | None = None

    async def refresh(self) -> None:
        async with self._lock:
            if time.monotonic() < self._until:
                return
            database, queues = await asyncio.gather(self._database(), self._queues())
            self._collector.shown = {
                **(database or {}),
                **({"itemforge_queue_messages": queues} if queues else {}),
                "itemforge_database_up": {"": float(database is not None)},
                "itemforge_broker_up": {"": float(self._gateway.broker.connected)},
            }
            self._until = time.monotonic() + _FRESH

    async def _database(self) -> dict[str, Values] | None:
        gateway = self._gateway
        if not gateway.migrated.is_set():
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                load = await figures.load(gateway.db, gateway.settings.worker_timeout)
                untold = await gateway.counted(deliveries.waiting)
            backlog = await self._backlog()
        except (DatabaseUnavailable, TimeoutError) as error:
            log.warning("figures_not_read", reason=str(error) or "the database took too long")
            return None
        shown: dict[str, Values] = {
            "itemforge_queue_age_seconds": {"": load.oldest_seconds},
            "itemforge_capacity_images": {"": float(load.places)},
            "itemforge_workers": {state: float(n) for state, n in load.workers.items()},
            "itemforge_webhooks_waiting": {"": float(untold)},
        }
        if backlog is None:
            return shown
        return shown | {
            "itemforge_open_requests": {
                "pending": float(backlog.pending),
                "processing": float(backlog.processing),
            },
            "itemforge_unpublished_requests": {"": float(backlog.unpublished)},
            "itemforge_backlog_steps": {"": float(backlog.steps)},
            "itemforge_backlog_seconds": {"": figures.backlog_seconds(backlog, load.places)},
            "itemforge_step_seconds": {"": backlog.step_seconds},
        }

    async def _backlog(self) -> figures.Backlog | None:
        """What waits. A count that takes longer than a scrape may goes on, and the one before it is shown."""
        if self._counting is None:
            self._counting = asyncio.create_task(self._gateway.counted(figures.backlog))
        await asyncio.wait((self._counting,), timeout=_PATIENCE)
        if self._counting.done():
            counted, self._counting = self._counting, None
            self._last = None
            self._last = counted.result()
        return self._last

    async def _queues(self) -> Values | None:
        depth = self._gateway.broker.depth
        try:
            async with asyncio.timeout(_PATIENCE):
                return {
                    "jobs": float(await depth(QUEUE)),
                    "retry": float(sum([await depth(retry_queue(delay)) for delay in RETRY_DELAYS])),
                    "dead": float(await depth(DEAD_QUEUE)),
                }
        except (BrokerUnavailable, TimeoutError):
            return None


def watch(gateway: Gateway) -> Look:
    """Have the gateway's metrics count what its database commits, and show the system's figures."""
    collector = FiguresCollector()
    gateway.metrics.registry.register(collector)
    gateway.db.count = lambda change: _count(gateway.metrics, change)
    return Look(gateway, collector)


def _count(metrics: GatewayMetrics, change: Change) -> None:
    if change.what == "created":
        metrics.request_created(change.style)
    elif change.what == "claimed":
        metrics.request_claimed(change.attempt, change.seconds)
    else:
        metrics.request_ended(change.status.lower(), change.style, change.images, change.seconds)


@router.get("/metrics", tags=["probes"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    look: Look = request.app.state.look
    gateway: Gateway = request.app.state.gateway
    await look.refresh()
    body, content_type = exposition(gateway.metrics.registry, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
