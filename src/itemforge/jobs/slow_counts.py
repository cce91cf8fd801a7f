"""Counts of the whole table, whose cost grows with it: whoever asks often gets the same figure for a while.

A count that took long is shown again for twenty times as long. So counting never takes more than a twentieth of
one connection, whatever the table's size and however many look.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from itemforge.jobs.database import Database

T = TypeVar("T")

#: Counts quicker than this (seconds) are made anew each time.
_QUICK = 0.05
_SHOWN_FOR = 20.0


class SlowCounts:
    """Remembers the last figure of each count; one of each is under way at most."""

    def __init__(self, db: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._clock = clock
        self._known: dict[Any, tuple[float, Any]] = {}
        self._one: defaultdict[Any, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, count: Callable[..., Awaitable[T]], *of: str | None) -> T:
        """What `count(db, *of)` says, or lately said.

        Raises:
            DatabaseUnavailable: as the count.
        """
        what = (count, *of)
        async with self._one[what]:
            began = self._clock()
            until, figure = self._known.get(what, (began, None))
            if began >= until:
                figure = await count(self._db, *of)
                took = self._clock() - began
                until = self._clock() + (_SHOWN_FOR * took if took > _QUICK else 0.0)
                self._known[what] = (until, figure)
            result: T = figure
            return result
