"""The door to the engine: many rows together, or one suspect by itself.

A row that was in an engine when it died is suspected of having killed it and comes back as `alone`. It
enters only an empty engine, and nothing enters while it is inside: so the next death has one suspect, and
the innocent are charged once and not again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """A readers-writer lock that prefers the ones who want to be alone."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._suspects = 0  # alone, waiting or inside

    @asynccontextmanager
    async def enter(self, alone: bool) -> AsyncIterator[None]:
        """Hold from before a row is submitted until the engine is done with it."""
        self._suspects += alone
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._inside == 0 if alone else self._suspects == 0)
                self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1
        finally:
            self._suspects -= alone
            async with self._changed:
                self._changed.notify_all()
