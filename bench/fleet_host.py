"""Several workers in one process, each with its own connections, heartbeats and engine process.

    python bench/fleet_host.py NAME COUNT        # started by bench/fleet.py, settings in the environment

SIGTERM drains all of them. Only the engine is not the real one (`fleet_engine`).
"""

import asyncio
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the child processes find the engine by it

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.settings import WorkerSettings, load
from itemforge.storage.opening import open_store
from itemforge.telemetry.logs import setup_logs
from itemforge.worker.service import Worker


async def _serve(settings: WorkerSettings, stopped: asyncio.Event) -> None:
    broker = RabbitBroker(settings)
    worker = Worker(settings, broker, open_store(settings), engine_factory="fleet_engine:load")

    async def drain() -> None:
        await stopped.wait()
        worker.stop()

    draining = asyncio.create_task(drain())
    try:
        await worker.run()
    finally:
        draining.cancel()
        await broker.close()


async def _run(name: str, count: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    home = load(WorkerSettings).home
    workers = [load(WorkerSettings, worker_id=f"{name}-{n}", home=home / f"{name}-{n}") for n in range(count)]
    await asyncio.gather(*(_serve(settings, stopped) for settings in workers))


if __name__ == "__main__":
    setup_logs(load(WorkerSettings), "worker")
    asyncio.run(_run(sys.argv[1], int(sys.argv[2])))
