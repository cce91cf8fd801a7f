"""`itemforge worker` with the engine that draws nothing; bench/overhead.py starts it."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the child process finds the engine by it

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.settings import WorkerSettings, load
from itemforge.storage.opening import open_store
from itemforge.telemetry.logs import setup_logs
from itemforge.worker.service import Worker


async def _run(settings: WorkerSettings) -> None:
    broker = RabbitBroker(settings)
    worker = Worker(settings, broker, open_store(settings), engine_factory="null_engine:load")
    loop = asyncio.get_running_loop()
    for number in (15, 2):
        loop.add_signal_handler(number, worker.stop)
    try:
        await worker.run()
    finally:
        await broker.close()


if __name__ == "__main__":
    settings = load(WorkerSettings)
    setup_logs(settings, "worker")
    asyncio.run(_run(settings))
