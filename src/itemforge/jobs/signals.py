"""Who waits for news in this process: event streams of one request, and the relay.

A signal says "look at the database"; it carries no truth, so a lost one costs at most a slow poll.
Previews are the exception: they exist only here, and whoever watches at that moment sees them.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Self
from uuid import UUID


@dataclass(frozen=True)
class Preview:
    """A small picture of an image in the making."""

    image: int
    jpeg_base64: str


class Watch:
    """One stream's view of one request: wakes on news, keeps only the newest preview of each image."""

    def __init__(self, signals: "Signals", request_id: UUID) -> None:
        self._signals = signals
        self._request_id = request_id
        self._news = asyncio.Event()
        self._previews: dict[int, Preview] = {}

    def __enter__(self) -> Self:
        self._signals._watches[self._request_id].add(self)
        return self

    def __exit__(self, *_: object) -> None:
        watches = self._signals._watches[self._request_id]
        watches.discard(self)
        if not watches:
            del self._signals._watches[self._request_id]

    def wake(self, preview: Preview | None = None) -> None:
        if preview is not None:
            self._previews[preview.image] = preview
        self._news.set()

    async def wait(self, at_most: float) -> bool:
        """Return True on news, or False after `at_most` seconds without any."""
        try:
            async with asyncio.timeout(at_most):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def take_previews(self) -> list[Preview]:
        """The previews since the last call."""
        previews, self._previews = list(self._previews.values()), {}
        return previews


class Signals:
    """The switchboard of one gateway process."""

    def __init__(self) -> None:
        self._watches: defaultdict[UUID, set[Watch]] = defaultdict(set)
        self.relay = asyncio.Event()
        self.closed = False

    def watch(self, request_id: UUID) -> Watch:
        """A context manager that listens to one request."""
        return Watch(self, request_id)

    def wake(self, request_id: UUID) -> None:
        """There are new events of this request."""
        for watch in self._watches.get(request_id, ()):
            watch.wake()

    def preview(self, request_id: UUID, preview: Preview) -> None:
        """Pass a preview to whoever watches here."""
        for watch in self._watches.get(request_id, ()):
            watch.wake(preview)

    def wake_all(self) -> None:
        """Signals may have been lost: everybody looks."""
        self.relay.set()
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    def close(self) -> None:
        """The process ends: streams finish."""
        self.closed = True
        self.wake_all()
