"""A gateway with its pages in a thread of its own, for a browser."""

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig import MemoryBroker, app_for, settings_for

from itemforge.gateway.context import Gateway
from itemforge.gateway.listening import bind
from itemforge.gateway.server import serving
from itemforge.storage.folder import FolderStore
from polling import wait_until


class Live:
    """`address` is where the gateway answers; `run` does something in its event loop and waits for it."""

    def __init__(self, address: str, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        self.address, self.gateway, self._loop = address, gateway, loop

    def run(self, work: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self._loop).result(120)


@contextmanager
def live(database_url: str, home: Path) -> Iterator[Live]:
    """With pictures in a folder, which the gateway serves."""
    app = app_for(settings_for(database_url, home), MemoryBroker(), FolderStore(home / "objects"))  # type: ignore[arg-type]
    started: list[Live] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(app, bind("127.0.0.1", 0)) as address:
            started.append(Live(address, app.state.gateway, asyncio.get_running_loop()))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    server = wait_until(lambda: started or not thread.is_alive(), within=60, why="the gateway starts")
    assert started, "the gateway did not start"
    try:
        yield started[0]
    finally:
        started[0]._loop.call_soon_threadsafe(stop.set)
        thread.join(60)
    assert server
