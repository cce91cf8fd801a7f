"""A connection to RabbitMQ for the length of one command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.errors import BrokerUnavailable
from itemforge.settings import BrokerSettings


@asynccontextmanager
async def connected(settings: BrokerSettings) -> AsyncIterator[RabbitBroker]:
    """A broker that is connected; closed at the end.

    Raises:
        BrokerUnavailable: not connected within `publish_timeout`.
        ConfigurationError: no RabbitMQ is set.
    """
    host = urlsplit(settings.require_amqp_url()).hostname
    broker = RabbitBroker(settings)
    await broker.start()
    try:
        for _ in range(max(1, int(settings.publish_timeout / 0.05))):
            if broker.connected:
                break
            await asyncio.sleep(0.05)
        else:
            said = f" ({broker.trouble})" if broker.trouble else ""
            raise BrokerUnavailable(
                f"no connection to RabbitMQ at {host}{said}; check that it runs, the address, user and "
                "password (ITEMFORGE_AMQP_URL, or RABBITMQ_HOST and the others)"
            )
        yield broker
    finally:
        await broker.close()
