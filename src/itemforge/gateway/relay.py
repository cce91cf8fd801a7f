"""Moves rows from the outbox to the queue: woken by new work and by claims, and by the clock."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import structlog

from itemforge.broker.face import Broker
from itemforge.contract import QUEUE
from itemforge.errors import BrokerUnavailable, RetryableError, Unroutable
from itemforge.jobs import publishing
from itemforge.jobs.database import Database
from itemforge.jobs.publishing import Outgoing
from itemforge.settings import GatewaySettings
from itemforge.telemetry import traces

log = structlog.get_logger(__name__)

#: Seconds of rest after each look, so that under load one look serves many claims; the window is stock enough.
_REST = 0.02


class Relay:
    """One per gateway process; several share a PostgreSQL without publishing a row twice."""

    def __init__(
        self,
        settings: GatewaySettings,
        db: Database,
        broker: Broker,
        count: Callable[[int], None] = lambda published: None,
    ) -> None:
        self._settings = settings
        self._db = db
        self._broker = broker
        self._count = count

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._db.signals.relay.clear()
            try:
                await self.drain()
            except RetryableError as error:
                log.warning("relay_held", reason=str(error))
            await asyncio.sleep(_REST)
            try:
                async with asyncio.timeout(self._settings.relay_interval):
                    await self._db.signals.relay.wait()
            except TimeoutError:
                pass

    async def drain(self) -> int:
        """Publish until the window is full, the outbox empty or the broker away; returns how many rows.

        Raises:
            DatabaseUnavailable: as every call to the database.
        """
        total = 0
        # Not even a row is locked while the broker is away.
        while self._broker.connected:
            settings = self._settings
            window = await publishing.window(self._db, settings.relay_window, settings.worker_timeout)
            if not window.room or not window.unpublished:
                break
            published = await publishing.publish_next(self._db, self._publish, window.room)
            total += published
            self._count(published)
            if not published:
                break
        return total

    async def _publish(self, messages: list[Outgoing]) -> list[UUID]:
        results = await asyncio.gather(*map(self._send, messages), return_exceptions=True)
        safe = [
            message.request_id for message, result in zip(messages, results, strict=True) if result is None
        ]
        failures = [result for result in results if result is not None]
        for failure in failures:
            if not isinstance(failure, BrokerUnavailable | Unroutable):
                raise failure
        if failures:
            log.warning("publish_failed", rows=len(failures), reason=str(failures[0]))
        log.debug("published", rows=len(safe))
        return safe

    async def _send(self, message: Outgoing) -> None:
        with traces.publishing(str(message.request_id), message.traceparent) as headers:
            await self._broker.publish(QUEUE, message.encode(), headers)
