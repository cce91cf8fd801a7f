"""Choose the broker by the settings."""

from itemforge.broker.embedded import EmbeddedBroker
from itemforge.broker.face import Broker
from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.settings import BrokerSettings


def open_broker(settings: BrokerSettings) -> Broker:
    """RabbitMQ where an address is set, else the queue inside this process. It is not started yet."""
    if settings.amqp_url is None:
        return EmbeddedBroker(settings.retry_scale)
    return RabbitBroker(settings)
