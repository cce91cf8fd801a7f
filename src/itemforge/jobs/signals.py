"""Who waits for news in this process: event streams of one request or of all of an owner, the relay, and the
sender of webhooks.

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

    def wake(self, request_id: UUID, preview: Preview | None = None) -> None:
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


class Following:
    """One stream's view of an owner's requests: wakes on news of those it follows, and when there are new ones."""

    def __init__(self, signals: "Signals", owner: str) -> None:
        self._signals = signals
        self._owner = owner
        self._ids: set[UUID] = set()
        self._news = asyncio.Event()
        self._changed: set[UUID] = set()
        self._look = True
        self._previews: dict[tuple[UUID, int], Preview] = {}

    def __enter__(self) -> Self:
        self._signals._followings[self._owner].add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.only(set())
        followings = self._signals._followings[self._owner]
        followings.discard(self)
        if not followings:
            del self._signals._followings[self._owner]

    def only(self, ids: set[UUID]) -> None:
        """Follow these requests and no others."""
        watches = self._signals._watches
        for request_id in ids - self._ids:
            watches[request_id].add(self)
        for request_id in self._ids - ids:
            watches[request_id].discard(self)
            if not watches[request_id]:
                del watches[request_id]
        self._ids = ids

    def wake(self, request_id: UUID, preview: Preview | None = None) -> None:
        if preview is not None:
            self._previews[request_id, preview.image] = preview
        else:
            self._changed.add(request_id)
        self._news.set()

    def look(self) -> None:
        """There are requests that it does not follow yet, or signals may have been lost."""
        self._look = True
        self._news.set()

    async def wait(self, at_most: float) -> None:
        """Until there is news, or `at_most` seconds."""
        try:
            async with asyncio.timeout(at_most):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    def take(self) -> tuple[bool, set[UUID]]:
        """Whether to look for new requests, and which of those followed have news, since the last call."""
        look, changed = self._look, self._changed
        self._look, self._changed = False, set()
        return look, changed

    def take_previews(self) -> dict[tuple[UUID, int], Preview]:
        """The previews since the last call, by request and image."""
        previews, self._previews = self._previews, {}
        return previews


class Signals:
    """The switchboard of one gateway process."""

    def __init__(self) -> None:
        self._watches: defaultdict[UUID, set[Watch | Following]] = defaultdict(set)
        self._followings: defaultdict[str, set[Following]] = defaultdict(set)
        self.relay = asyncio.Event()
        self.deliver = asyncio.Event()
        self.closed = False

    def watch(self, request_id: UUID) -> Watch:
        """A context manager that listens to one request."""
        return Watch(self, request_id)

    def wake(self, request_id: UUID) -> None:
        """There are new events of this request."""
        for watch in self._watches.get(request_id, ()):
            watch.wake(request_id)

    def follow(self, owner: str) -> Following:
        """A context manager that listens to an owner's requests."""
        return Following(self, owner)

    def created(self, owner: str) -> None:
        """The owner has new requests."""
        for following in self._followings.get(owner, ()):
            following.look()

    def preview(self, request_id: UUID, preview: Preview) -> None:
        """Pass a preview to whoever watches here."""
        for watch in self._watches.get(request_id, ()):
            watch.wake(request_id, preview)

    def wake_all(self) -> None:
        """Signals may have been lost: everybody looks."""
        self.relay.set()
        self.deliver.set()
        for request_id, watches in self._watches.items():
            for watch in watches:
                watch.wake(request_id)
        for followings in self._followings.values():
            for following in followings:
                following.look()

    def close(self) -> None:
        """The process ends: streams finish."""
        self.closed = True
        self.wake_all()
