"""The only way out for the browser: a small proxy on loopback that connects to permitted addresses alone.

A page's scripts may ask for anything, so what the browser may reach is decided here, where each name is looked up and
the address that was checked is the one that is connected to. It ends a connection after one request, so none
is handed to another host unseen.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from itemforge.dataset.crawl.addresses import permitted
from itemforge.dataset.crawl.failures import AddressRefused

#: Bytes of a request's head, and of one connection in each direction.
_HEAD, _BODY = 64 * 1024, 100 * 10**6
_CONNECT, _IDLE = 15.0, 60.0
_HOP = (b"proxy-", b"connection:", b"keep-alive:")


class CheckingProxy:
    """Serves CONNECT and plain HTTP. `refused` has the hosts that were asked for and not permitted."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self.refused: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the browser."""
        try:
            async with asyncio.timeout(_IDLE):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._pass_on(head, reader, writer)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the browser went away, or spoke something else: its page lacks a part
        finally:
            await _close(writer)

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *fields = head[:-4].split(b"\r\n")
        method, target, _ = line.decode("ascii").split(" ")
        tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if tunnel else target)
        if not parts.hostname or (not tunnel and parts.scheme != "http"):
            writer.write(_answer(400, "Bad Request"))
            return
        port = parts.port or (443 if tunnel else 80)
        try:
            remote = await self._connect(parts.hostname, port)
        except AddressRefused:
            self.refused.append(f"{parts.hostname}:{port}")
            writer.write(_answer(403, "Forbidden"))
            return
        except (OSError, UnicodeError):
            writer.write(_answer(502, "Bad Gateway"))
            return
        try:
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                kept = [each for each in fields if not each.lower().startswith(_HOP)]
                start = f"{method} {path} HTTP/1.1".encode("ascii")
                remote[1].write(b"\r\n".join([start, *kept, b"Connection: close", b"", b""]))
            await _join(reader, writer, *remote)
        finally:
            await _close(remote[1])

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses = await asyncio.to_thread(permitted, host, port, self._allow_private)
        last: OSError = OSError("no address")
        for address in addresses:
            try:
                async with asyncio.timeout(_CONNECT):
                    return await asyncio.open_connection(address, port)
            except OSError as error:  # a timeout is one
                last = error
        raise last


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    remote_reader: asyncio.StreamReader,
    remote_writer: asyncio.StreamWriter,
) -> None:
    """Carry both directions until the server has nothing more to say."""
    up = asyncio.create_task(_carry(reader, remote_writer))
    try:
        await _carry(remote_reader, writer)
    finally:
        up.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await up


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    carried = 0
    while carried < _BODY:
        async with asyncio.timeout(_IDLE):
            data = await reader.read(65536)
            if not data:
                return
            writer.write(data)
            await writer.drain()
        carried += len(data)


async def _close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


def _answer(status: int, reason: str) -> bytes:
    return f"HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@contextmanager
def proxy_running(allow_private: bool) -> Iterator[tuple[int, CheckingProxy]]:
    """A proxy in a thread of its own, and the port on loopback where it listens."""
    proxy, loop = CheckingProxy(allow_private), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_HEAD))
    thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], proxy
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
