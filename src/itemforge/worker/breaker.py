"""Stops the worker from eating the queue while something that every job needs is broken."""

import asyncio
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Breaker:
    """Opens after `after` infrastructure failures in a row; the worker then probes until it may close."""

    def __init__(self, after: int, on_failure: Callable[[str], None] = lambda what: None) -> None:
        self._after = after
        self._on_failure = on_failure
        self._failures = 0
        self._opened = asyncio.Event()

    @property
    def open(self) -> bool:
        return self._opened.is_set()

    def failure(self, what: str, error: Exception | str) -> None:
        self._failures += 1
        self._on_failure(what)
        log.warning("infrastructure_failure", what=what, error=error, in_a_row=self._failures)
        if self._failures >= self._after and not self.open:
            log.error("consuming_stopped", what=what, error=error)
            self._opened.set()

    def success(self) -> None:
        self._failures = 0

    def close(self) -> None:
        self._failures = 0
        self._opened.clear()

    async def wait_open(self) -> None:
        await self._opened.wait()
