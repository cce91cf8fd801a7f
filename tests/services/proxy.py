"""A TCP proxy in front of a service, to cut or freeze its connections."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal

Way = Literal["to service", "to client"]


class Proxy:
    """Forwards bytes to `port` on loopback. While frozen, nothing passes and nothing is closed.

    Each new connection takes the first of `resets`, if there is one: after so many bytes one way it is
    reset, with whatever frame was on the wire.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.resets: list[tuple[Way, int]] = []
        self.accepted = 0

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Reset all connections without a farewell."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.accepted += 1
        reset = self.resets.pop(0) if self.resets else None
        await self._flows.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        there: tuple[Way, asyncio.StreamReader] = ("to service", reader)
        back: tuple[Way, asyncio.StreamReader] = ("to client", far_reader)
        for (way, source), sink, other in ((there, far_writer, writer), (back, writer, far_writer)):
            limit = reset[1] if reset and reset[0] == way else None
            task = asyncio.create_task(self._pump(source, sink, other, limit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        limit: int | None,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data[:limit])
                await sink.drain()
                if limit is not None and (limit := limit - len(data)) <= 0:
                    _reset(sink)
                    _reset(other)
        sink.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST and not with FIN: a lingering time of nothing."""
    end = writer.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ProxyThread:
    """A `Proxy` in a thread of its own, for tests without an event loop."""

    def __init__(self, target: int) -> None:
        self._proxy = Proxy(target)
        self._loop = asyncio.new_event_loop()

    @property
    def port(self) -> int:
        return self._proxy.port

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return self._proxy.accepted

    def freeze(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.freeze)

    def thaw(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.thaw)

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.cut)

    def reset_next(self, resets: list[tuple[Way, int]]) -> None:
        """Give the next connections their ends, one each."""
        self._loop.call_soon_threadsafe(self._proxy.resets.extend, resets)

    @property
    def resets_left(self) -> int:
        return len(self._proxy.resets)

    @contextmanager
    def running(self) -> Iterator["ProxyThread"]:
        serving, over = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with self._proxy.running():
                serving.set()
                await over.wait()

        thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()))
        thread.start()
        assert serving.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(over.set)
            thread.join()
            self._loop.close()
