"""The queues on RabbitMQ: who may declare them does, who may not looks whether they are there.

A worker's user needs no right to configure anything (deploy/rabbitmq): the gateway has made the queues.
"""

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused
from pamqp.common import FieldTable

from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from itemforge.errors import BrokerUnavailable

#: Seconds after which each retry queue gives its messages back.
RETRY_AFTER = {retry_queue(name): delay for name, delay in RETRY_DELAYS.items()}
ALL_QUEUES = (QUEUE, DEAD_QUEUE, *RETRY_AFTER)


async def declare_queues(channel: AbstractChannel, names: tuple[str, ...] = ALL_QUEUES) -> None:
    """Make sure that the queues exist.

    Raises:
        aio_pika.exceptions.ChannelPreconditionFailed: one exists with other arguments.
        aiormq.exceptions.ChannelAccessRefused: this user may not declare queues.
    """
    for name in names:
        arguments: FieldTable | None = None
        if name in RETRY_AFTER:
            arguments = {
                "x-message-ttl": int(RETRY_AFTER[name] * 1000),
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": QUEUE,
            }
        await channel.declare_queue(name, durable=True, arguments=arguments)


async def ensure_queues(connection: AbstractConnection, names: tuple[str, ...] = ALL_QUEUES) -> None:
    """Declare, or without the right to do so only look; on channels of its own, which a refusal closes.

    Raises:
        aio_pika.exceptions.ChannelPreconditionFailed: one exists with other arguments.
        BrokerUnavailable: one is missing, and this user may not make it.
    """
    channel = await connection.channel(publisher_confirms=False)
    try:
        await declare_queues(channel, names)
    except ChannelAccessRefused:
        await _look_for(connection, names)
    else:
        await channel.close()


async def _look_for(connection: AbstractConnection, names: tuple[str, ...]) -> None:
    channel = await connection.channel(publisher_confirms=False)
    for name in names:
        try:
            await channel.declare_queue(name, passive=True)
        except ChannelNotFoundEntity:
            raise BrokerUnavailable(
                f"there is no queue {name!r}, and this user may not make it: start the gateway, which does"
            ) from None
    await channel.close()
