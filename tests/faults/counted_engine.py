"""The fake engine that writes down every row it is given and every picture it finishes.

A prompt that begins with `held` draws its first step and then waits while the test's hold file exists, so
that a test can be sure that something happens in the middle of a picture. One that begins with `flaky` runs
out of memory the first time. The other words are `fake_engine`'s.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fake_engine import FakeEngine

from itemforge.engine.rows import Event, Failed, Finished, Row
from itemforge.settings import EngineSettings

#: Environment: the file that draws are appended to, and the file that holds `held` rows.
LOG, HOLD = "ITEMFORGE_TEST_DRAWS", "ITEMFORGE_TEST_HOLD"


@dataclass(frozen=True)
class Draw:
    """One row in one engine. `what` is `begun` or `done`."""

    what: str
    request_id: str
    n: int
    seed: int
    pid: int


class CountedEngine(FakeEngine):
    def __init__(self, batch_size: int, on_stage: Callable[[str, float], None]) -> None:
        super().__init__(batch_size, on_stage)
        self._path = Path(os.environ[LOG])
        self._log = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._hold = Path(os.environ[HOLD])

    def submit(self, row: Row) -> None:
        super().submit(row)
        self._write("begun", row)

    def _step(self, row: Row) -> list[Event]:
        if row.prompt.startswith("held") and self._steps[row.row_id] >= 1 and self._hold.exists():
            time.sleep(0.005)
            return []
        if row.prompt.startswith("flaky") and self._first_time(row):
            del self._rows[row.row_id]
            return [Failed(row.row_id, "out of memory", retryable=True)]
        events = super()._step(row)
        if any(isinstance(event, Finished) for event in events):
            self._write("done", row)
        return events

    def _first_time(self, row: Row) -> bool:
        request_id, _, n = row.row_id.split("/")
        begun = [d for d in read(self._path) if (d.what, d.request_id, d.n) == ("begun", request_id, int(n))]
        return len(begun) == 1

    def _write(self, what: str, row: Row) -> None:
        request_id, _, n = row.row_id.split("/")
        line = json.dumps([what, request_id, int(n), row.seed, os.getpid()])
        os.write(self._log, line.encode() + b"\n")  # one write of one line: several engines share the file


def load(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> CountedEngine:
    return CountedEngine(settings.batch_size or 4, on_stage)


def read(log: Path) -> list[Draw]:
    """Everything that engines wrote so far; a line that is just being written is left for the next look."""
    if not log.exists():
        return []
    lines = log.read_text().split("\n")[:-1]
    return [Draw(*json.loads(line)) for line in lines]
