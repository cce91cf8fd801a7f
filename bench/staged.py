"""`itemforge worker` that also writes down how long each stage of its engine took.

    python bench/staged.py FILE     settings from the environment, as for `itemforge worker`

The engine's process adds up its stages and writes them to FILE as JSON whenever it falls idle, with the
times at which each row came and had its first step, and how long steps took meanwhile.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.engine.rows import Event, Progress, Row
from itemforge.settings import EngineSettings, WorkerSettings
from itemforge.settings import load as load_settings
from itemforge.storage.opening import open_store
from itemforge.telemetry.logs import setup_logs
from itemforge.worker.service import Worker

FILE = "BENCH_STAGES"


class Staged:
    """The real engine; `total` is the time from the first row to idle, stages included."""

    def __init__(self, settings: EngineSettings, on_stage: Callable[[str, float], None]) -> None:
        from itemforge.engine.loop import Engine

        self._seconds: Counter[str] = Counter()
        self._on_stage = on_stage
        self._busy_since = 0.0
        self._rows: dict[str, dict[str, float]] = {}
        self._steps: list[tuple[float, float]] = []
        self._engine = Engine.load(settings, self._heard)
        self.model = self._engine.model
        self._seconds.clear()

    def _heard(self, name: str, seconds: float) -> None:
        self._seconds[name] += seconds
        self._seconds[f"{name} calls"] += 1
        self._on_stage(name, seconds)

    @property
    def batch_size(self) -> int:
        return self._engine.batch_size

    @property
    def out_of_memory(self) -> int:
        return self._engine.out_of_memory

    @property
    def busy(self) -> bool:
        return self._engine.busy

    def submit(self, row: Row) -> None:
        if not self._engine.busy:
            self._busy_since = time.perf_counter()
        self._rows[row.row_id] = {"submitted": time.time()}
        self._engine.submit(row)

    def cancel(self, row_id: str) -> None:
        self._engine.cancel(row_id)

    def watch(self, row_id: str, on: bool) -> None:
        self._engine.watch(row_id, on)

    def step(self) -> list[Event]:
        began = time.time()
        events = self._engine.step()
        now = time.time()
        self._steps.append((began, now))
        for event in events:
            if isinstance(event, Progress) and event.step == 1:
                self._rows[event.row_id]["first_step"] = now
        if not self._engine.busy:
            self._seconds["total"] += time.perf_counter() - self._busy_since
            written = {"stages": self._seconds, "rows": self._rows, "steps": self._steps}
            Path(os.environ[FILE]).write_text(json.dumps(written))
        return events


async def serve() -> None:
    settings = load_settings(WorkerSettings)
    setup_logs(settings, "worker")
    broker = RabbitBroker(settings)
    worker = Worker(settings, broker, open_store(settings), engine_factory="staged:Staged")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    try:
        await worker.run()
    finally:
        await broker.close()


if __name__ == "__main__":
    os.environ[FILE] = sys.argv[1]
    asyncio.run(serve())
