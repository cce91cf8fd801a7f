"""What goes on in the background by the clock: the sweeper and the cleaner."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from itemforge.broker.face import Broker
from itemforge.contract import QUEUE, RETRY_DELAYS, retry_queue
from itemforge.errors import ItemForgeError
from itemforge.gateway.pictures import delete_objects
from itemforge.jobs import batches, deliveries, heartbeats, publishing, retention, sessions
from itemforge.jobs.database import Database
from itemforge.settings import GatewaySettings
from itemforge.storage.face import ObjectStore

log = structlog.get_logger(__name__)

#: Workers that were silent for so many seconds are not listed any more.
_WORKER_FORGOTTEN = 86400.0


async def repeat(interval: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` about every `interval` seconds until cancelled; a failure waits for the next time.

    The pauses differ a little, so that several gateways do not sweep in step.
    """
    while True:
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))  # noqa: S311  # no secret
        try:
            await work()
        except ItemForgeError as error:
            log.warning("upkeep_held", reason=str(error))


async def sweep(
    settings: GatewaySettings,
    db: Database,
    broker: Broker,
    count: Callable[[int, int], None] = lambda expired, republished: None,
) -> None:
    """Free rows of silent workers, and publish again what the queue has lost.

    Raises:
        DatabaseUnavailable, BrokerUnavailable: the rest waits for the next sweep.
    """
    expired = await publishing.expire_leases(db)
    counted_at = await publishing.moment(db)
    depths = [await broker.depth(queue) for queue in (QUEUE, *map(retry_queue, RETRY_DELAYS))]
    lost = await publishing.republish_lost(
        db, sum(depths), counted_at, settings.sweep_after, settings.worker_timeout
    )
    count(expired, lost)
    if expired or lost:
        log.info("swept", leases_expired=expired, republished=lost)


async def clean(settings: GatewaySettings, db: Database, store: ObjectStore) -> None:
    """Remove what the retention settings no longer keep: objects first, then rows, then events.

    Raises:
        DatabaseUnavailable, StorageUnavailable: the rest waits for the next time.
    """
    purged = 0
    while batch := await retention.expired_requests(db, settings.retain_requests):
        for request in batch:
            await delete_objects(store, request)
            await retention.purge(db, request)
        purged += len(batch)
    events = 0
    while removed := await retention.purge_events(db, settings.retain_events):
        events += removed
    await batches.forget(db, settings.retain_requests)
    while settings.retain_deliveries and await deliveries.purge(db, settings.retain_deliveries):
        pass
    await heartbeats.forget(db, _WORKER_FORGOTTEN)
    await sessions.forget_expired(db)
    if purged or events:
        log.info("cleaned", requests=purged, events=events)
