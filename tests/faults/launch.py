"""`python -m launch gateway|worker …`: the command as it is, with a fake engine and a place to die at.

| variable | meaning |
|---|---|
| `ITEMFORGE_TEST_ENGINE` | the worker's engine factory, `module:attribute` |
| `ITEMFORGE_TEST_CRASH` | the crash point's name (a key of `POINTS`) |
| `ITEMFORGE_TEST_CRASH_AT` | dies when it is reached for the n-th time; default 1 |
| `ITEMFORGE_TEST_CLOCK` | a file with the seconds by which the process's clock is off, read at every look |
| `ITEMFORGE_TEST_ARM` | a file: while it is there the point counts; who dies takes it away |

A crash is SIGKILL to ourselves: nothing is closed, flushed or said. Methods are wrapped from outside, so
the programs under test know nothing of it.
"""

import asyncio
import functools
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Method = Callable[..., Awaitable[Any]]
When = Callable[..., bool]


class Crash:
    """Counts how often the point was reached while armed, and dies at the n-th time."""

    def __init__(self, at: int, arm: Path) -> None:
        self._left = at
        self._arm = arm

    @property
    def armed(self) -> bool:
        return self._arm.exists()

    def reached(self) -> bool:
        """Count one; True when this was the one to die of."""
        self._left -= 1
        return self._left == 0

    @property
    def over(self) -> bool:
        return self._left <= 0

    def die(self) -> None:
        self._arm.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def always(*_: Any) -> bool:
    return True


def before(crash: Crash, owner: type, name: str, when: When = always) -> None:
    """Die at the n-th call of a method, before it does anything."""
    original: Method = getattr(owner, name)

    @functools.wraps(original)
    async def call(*arguments: Any, **named: Any) -> Any:
        if crash.armed and when(*arguments) and crash.reached():
            crash.die()
        return await original(*arguments, **named)

    setattr(owner, name, call)


def after(crash: Crash, owner: type, name: str, when: When = always) -> None:
    """Die when the n-th call of a method has succeeded."""
    original: Method = getattr(owner, name)

    @functools.wraps(original)
    async def call(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        if crash.armed and when(*arguments) and crash.reached():
            crash.die()
        return result

    setattr(owner, name, call)


def _after_upload(crash: Crash) -> None:
    from itemforge.storage.gcs import GcsStore

    after(crash, GcsStore, "put")


def _after_report(crash: Crash) -> None:
    from itemforge.worker.gateway_client import ClaimsGateway

    after(crash, ClaimsGateway, "report")


def _after_ack(crash: Crash) -> None:
    """Exactly n acknowledgements reach the broker: later ones wait until we die."""
    from itemforge.broker.amqp_consumer import RabbitDelivery
    from itemforge.contract import QUEUE

    original = RabbitDelivery.ack
    turn = asyncio.Lock()

    async def ack(delivery: RabbitDelivery) -> None:
        async with turn:
            await original(delivery)
            if crash.armed and crash.reached():
                # An answer on the same channel: the broker has heard the acknowledgements before it.
                await delivery._message.channel.queue_declare(QUEUE, passive=True)  # type: ignore[attr-defined]
                crash.die()

    RabbitDelivery.ack = ack  # type: ignore[method-assign]


def _after_copy(crash: Crash) -> None:
    from itemforge.broker.rabbitmq import RabbitBroker

    after(crash, RabbitBroker, "publish", lambda _broker, queue, *_: ".retry." in queue)


def _before_publish(crash: Crash) -> None:
    from itemforge.gateway.relay import Relay

    before(crash, Relay, "_publish")


def _after_confirm(crash: Crash) -> None:
    from itemforge.gateway.relay import Relay

    after(crash, Relay, "_publish")


#: Where a process may die, and what it has done by then.
POINTS: dict[str, Callable[[Crash], None]] = {
    "after upload": _after_upload,  # the object is stored, nobody knows
    "after report": _after_report,  # the row is Completed, the message not acknowledged
    "after ack": _after_ack,  # n messages are acknowledged
    "after retry copy": _after_copy,  # the copy waits in the retry queue, the original is not acknowledged
    "before publish": _before_publish,  # the row is committed, nothing is on the queue
    "after confirm": _after_confirm,  # the message is on the queue, the row does not say so
}


def _fake_engine(factory: str) -> None:
    from itemforge.worker import service

    service.Worker = functools.partial(service.Worker, engine_factory=factory)  # type: ignore[misc,assignment]


def _shift_clock(offset: Path) -> None:
    """The process's clock, but not the loop's, is as many seconds off as the file says at that moment."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + float(offset.read_text())
    time.time_ns = lambda: real_ns() + int(float(offset.read_text()) * 1e9)


def main() -> None:
    if clock := os.environ.get("ITEMFORGE_TEST_CLOCK"):
        _shift_clock(Path(clock))
    if factory := os.environ.get("ITEMFORGE_TEST_ENGINE"):
        _fake_engine(factory)
    if point := os.environ.get("ITEMFORGE_TEST_CRASH"):
        at = int(os.environ.get("ITEMFORGE_TEST_CRASH_AT", "1"))
        POINTS[point](Crash(at, Path(os.environ["ITEMFORGE_TEST_ARM"])))
    from itemforge.cli import run

    run()


if __name__ == "__main__":
    main()
