"""What this gateway tells the others, gathered while the last telling is under way.

A notice says "look at the database": one that is lost costs the others a slow poll and nothing else. So
nobody waits for it, and a database that is away is no error here.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from itemforge.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

#: PostgreSQL refuses longer NOTIFY payloads (8000 bytes and more).
NOTIFY_LIMIT = 7999
#: Notices that one statement tells at most.
_MOST = 500


class Notices:
    """`tell` sends a list of payloads; each is sent once however often it was added meanwhile."""

    def __init__(self, tell: Callable[[list[str]], Awaitable[None]]) -> None:
        self._tell = tell
        self._waiting: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, payload: str) -> None:
        if len(payload) > NOTIFY_LIMIT:
            return
        self._waiting[payload] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell what waits, and end."""
        while self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                payloads = list(self._waiting)[:_MOST]
                for payload in payloads:
                    del self._waiting[payload]
                await self._tell(payloads)
        except DatabaseUnavailable as error:
            self._waiting.clear()
            log.warning("notices_lost", reason=str(error))
        finally:
            self._task = None
