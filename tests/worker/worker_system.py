"""A worker with a real engine process (without a model), an embedded queue and a gateway over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stores import MemoryStore

from gateways import HttpGateway
from itemforge.broker.embedded import EmbeddedBroker
from itemforge.contract import QUEUE
from itemforge.settings import WorkerSettings
from itemforge.worker.service import Worker
from polling import eventually

#: All intervals scaled down, so that every wait of the worker passes in a test.
FAST: dict[str, Any] = {
    "heartbeat_interval": 0.05,
    "heartbeat_idle": 0.1,
    "retry_pause": 0.02,
    "breaker_probe": 0.1,
    "breaker_after": 3,
    "spool_time": 20.0,
    "gateway_timeout": 5.0,
    "drain_timeout": 20.0,
    "worker_id": "test-worker",
}


class System:
    """Everything that a worker has to do with."""

    def __init__(self, home: Path, gateway: HttpGateway) -> None:
        self.home = home
        self.gateway = gateway
        self.broker = EmbeddedBroker(retry_scale=0.002)
        self.store = MemoryStore()
        self.running: asyncio.Task[None] | None = None

    def worker(self, factory: str = "fake_engine:load", **settings: Any) -> Worker:
        values = {**FAST, "home": self.home, "api_gateway_url": self.gateway.url, **settings}
        return Worker(WorkerSettings(**values), self.broker, self.store, engine_factory=factory)

    @asynccontextmanager
    async def run(self, factory: str = "fake_engine:load", **settings: Any) -> AsyncIterator[Worker]:
        worker = self.worker(factory, **settings)
        task = self.running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            worker.stop()
            await asyncio.wait_for(task, 30)
            await self.broker.close()

    async def send(self, request_id: str, prompt: str = "an apple", **params: Any) -> None:
        body = {"request_id": request_id, "params": {"prompt": prompt, "num_inference_steps": 5, **params}}
        await self.send_raw(json.dumps(body).encode())

    async def send_raw(self, body: bytes, headers: dict[str, str | int] | None = None) -> None:
        await self.broker.start()
        await self.broker.publish(QUEUE, body, headers)

    async def ended(self, request_id: str, status: str, within: float = 20.0) -> None:
        row = self.gateway.rows[request_id]
        await eventually(lambda: row.status.lower() == status.lower(), within, why=f"{status}: {row}")

    async def quiet(self) -> None:
        """Nothing waits, nothing is in hand: all has been acknowledged."""

        async def empty() -> bool:
            waiting = [await self.broker.depth(name) for name in (QUEUE, *RETRIES)]
            return not any(waiting) and not any(c._unsettled for c in self.broker._consumers)

        await eventually(empty, why="queues and unacknowledged messages are empty")


RETRIES = tuple(f"{QUEUE}.retry.{name}" for name in ("5s", "30s", "2m", "10m"))
