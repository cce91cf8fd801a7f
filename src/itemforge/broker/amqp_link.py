"""One supervised connection to RabbitMQ: connect, build, wait for its end, throw it away, connect again.

aio-pika's own reconnecting classes are not used: most known losses of consumers happened in their restore
paths. Here any end (of the connection, a channel or a consumer) is the end of everything that hung on it,
so there is one way to come up and no half-restored state.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aio_pika
import structlog
from aio_pika.abc import AbstractConnection
from yarl import URL

from itemforge.broker import amqp_tolerance
from itemforge.settings import BrokerSettings
from itemforge.tls import client_context, refusal

amqp_tolerance.install()

log = structlog.get_logger(__name__)

#: Seconds for connecting and for building what hangs on a connection, each.
CONNECT_TIMEOUT = 15.0
CLOSE_TIMEOUT = 5.0
FIRST_PAUSE = 1.0

Lost = Callable[[str], None]
Build = Callable[[AbstractConnection, Lost], Awaitable[None]]


async def connect(settings: BrokerSettings, name: str) -> AbstractConnection:
    """Open one connection; the only place that does (`name` shows in RabbitMQ's own lists).

    Raises:
        TimeoutError, OSError, aio_pika.exceptions.AMQPError: the broker cannot be reached or refuses us.
        ConfigurationError: `ITEMFORGE_CA_FILE` cannot be read.
    """
    url = URL(settings.require_amqp_url()).update_query(heartbeat=settings.amqp_heartbeat, name=name)
    async with asyncio.timeout(CONNECT_TIMEOUT):
        with own_cancellation_only():
            # Our own trust, also where the address asks for less (`no_verify_ssl`).
            trust = client_context(settings.ca_file) if url.scheme == "amqps" else None
            return await aio_pika.connect(url, ssl_context=trust)


@contextmanager
def own_cancellation_only() -> Iterator[None]:
    """Turn a CancelledError that is not this task's into a ConnectionError.

    A closing aiormq connection cancels the calls that are under way on it, in whichever task they run.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the connection closed during the call") from None


class Link:
    """Keeps one connection up. `build` makes channels on it and must call `lost` when one of them ends.

    `ended` is called after each built connection is gone, before the next is tried.
    """

    def __init__(self, settings: BrokerSettings, name: str, build: Build, ended: Callable[[], None]) -> None:
        self._settings = settings
        self._name = name
        self._build = build
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self._lost: Lost | None = None
        #: Why there was no connection when it was last tried.
        self.trouble: str | None = None
        self._last = False
        self._closed = False

    @property
    def up(self) -> bool:
        """True from the end of a successful build until the connection is lost."""
        return self._lost is not None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_up(), name=f"amqp-{self._name}")

    def lose(self, reason: str) -> None:
        """Give the present connection up, if there is one; it is replaced."""
        if self._lost is not None:
            self._lost(reason)

    def let_go(self) -> None:
        """Keep the present connection while it lasts, but make no other."""
        self._last = True
        if not self.up and self._task is not None and not self._closed:
            self._closed = True
            self._task.cancel()

    async def close(self) -> None:
        """Close the connection and stop. Idempotent."""
        if self._task is None:
            return
        if not self._closed:  # a second cancel would cut the farewell short
            self._closed = True
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_up(self) -> None:
        failures = 0
        while not self._last:
            try:
                reason = await self._one_connection()
                failures = 0
            except Exception as error:  # whatever it is, the answer is to try again
                reason = refusal(error) or f"{type(error).__name__}: {error}"
                failures += 1
            if self._last:
                return
            self.trouble = reason
            pause = self._pause(failures)
            event = "broker_unreachable" if failures else "broker_lost"
            log.warning(event, link=self._name, reason=reason, retry_in_s=round(pause, 1))
            await asyncio.sleep(pause)

    def _pause(self, failures: int) -> float:
        doubled: float = FIRST_PAUSE * 2 ** min(max(failures - 1, 0), 16)
        # Jitter, so that a fleet does not come back in step.
        return min(doubled, self._settings.reconnect_max) * random.uniform(0.75, 1.0)  # noqa: S311

    async def _one_connection(self) -> str:
        """The life of one connection; why it ended."""
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def lost(reason: str) -> None:
            if not end.done():
                end.set_result(reason)

        connection = await connect(self._settings, self._name)
        try:
            connection.close_callbacks.add(lambda _, error: lost(f"connection closed: {error}"))
            async with asyncio.timeout(CONNECT_TIMEOUT):
                with own_cancellation_only():
                    await self._build(connection, lost)
            self._lost = lost
            log.info("broker_connected", link=self._name)
            return await end
        finally:
            self._lost = None
            self._ended()
            await self._discard(connection)

    async def _discard(self, connection: AbstractConnection) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                with own_cancellation_only():
                    await connection.close()
        except Exception as error:  # it is gone either way
            log.debug("broker_close_failed", link=self._name, error=repr(error))
