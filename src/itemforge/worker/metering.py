"""Measures the worker at its borders: what goes to gateway, store and queue passes through here and is counted.

Each class has the face of what it wraps, so the worker's own code does not know that it is measured.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

from itemforge.broker.face import Broker, Consumer, DeadLetter, Delivery, Headers
from itemforge.contract import DEAD_QUEUE, Claim, Heartbeat, HeartbeatAnswer, Report
from itemforge.engine.rows import Progress
from itemforge.telemetry.worker_metrics import WorkerMetrics
from itemforge.worker.engine_child import Happened
from itemforge.worker.gateway_client import Gateway
from itemforge.worker.job import Job
from itemforge.worker.uploads import Stored, Uploads


def count_work(metrics: WorkerMetrics, happened: Happened, batch_size: int) -> None:
    """What one turn of the engine did. The images that are one step further were in one UNet call."""
    rows = sum(isinstance(event, Progress) for event in happened.events)
    metrics.engine_worked(rows, batch_size, happened.stages, happened.out_of_memory)


class MeteredGateway:
    """`Gateway`, with the time of claims and reports and how they were answered."""

    def __init__(self, gateway: Gateway, metrics: WorkerMetrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    async def claim(self, jobs: Sequence[tuple[UUID, str | None]]) -> list[Claim]:
        with self._metrics.stage("claim"):
            claims = await self._gateway.claim(jobs)
        for claim in claims:
            self._metrics.claim_answered(claim.outcome)
        return claims

    async def heartbeat(self, beat: Heartbeat) -> list[HeartbeatAnswer]:
        return await self._gateway.heartbeat(beat)

    async def report(self, report: Report) -> int:
        with self._metrics.stage("report"):
            code = await self._gateway.report(report)
        if code == 409:
            self._metrics.report_stale()
        return code

    async def ping(self) -> None:
        await self._gateway.ping()


class MeteredUploads:
    """`Uploads`, with the time, result and size of each."""

    def __init__(self, uploads: Uploads, metrics: WorkerMetrics) -> None:
        self._uploads = uploads
        self._metrics = metrics

    async def put(self, job: Job, n: int, png: bytes) -> Stored:
        try:
            with self._metrics.stage("upload"):
                stored = await self._uploads.put(job, n, png)
        except Exception:
            self._metrics.upload_failed()
            raise
        self._metrics.uploaded(stored.created, len(png))
        return stored

    async def find(self, job: Job, n: int) -> Stored | None:
        return await self._uploads.find(job, n)

    async def probe(self) -> None:
        await self._uploads.probe()

    async def close(self) -> None:
        await self._uploads.close()


class MeteredBroker:
    """`Broker`, with what was taken from it and what was buried in it."""

    def __init__(self, broker: Broker, metrics: WorkerMetrics) -> None:
        self._broker = broker
        self._metrics = metrics

    async def start(self) -> None:
        await self._broker.start()

    async def publish(self, queue: str, body: bytes, headers: Headers | None = None) -> None:
        await self._broker.publish(queue, body, headers)
        if queue == DEAD_QUEUE:
            self._metrics.buried()

    def consume(self, prefetch: int) -> Consumer:
        return _MeteredConsumer(self._broker.consume(prefetch), self._metrics)

    async def depth(self, queue: str) -> int:
        return await self._broker.depth(queue)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        return await self._broker.dead_letters(limit)

    async def take_dead(
        self,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        then: Callable[[DeadLetter], Awaitable[None]],
    ) -> int:
        return await self._broker.take_dead(limit, wanted, then)

    async def purge_dead(self) -> int:
        return await self._broker.purge_dead()

    @property
    def connected(self) -> bool:
        return self._broker.connected

    async def close(self) -> None:
        await self._broker.close()


class _MeteredConsumer:
    def __init__(self, consumer: Consumer, metrics: WorkerMetrics) -> None:
        self._consumer = consumer
        self._metrics = metrics

    @property
    def ready(self) -> bool:
        return self._consumer.ready

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        async for delivery in self._consumer:
            self._metrics.delivered(delivery.redelivered)
            yield delivery

    async def stop(self) -> None:
        await self._consumer.stop()
