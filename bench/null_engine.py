"""An engine that draws nothing: each row takes its steps and gets one small fixed picture.

It runs in the worker's real child process (`null_engine:load`), so what is measured is all that is ours.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from itemforge.engine.rows import Event, Finished, Progress, Row
from itemforge.imaging.recipe import Recipe
from itemforge.settings import EngineSettings

BASE = "ab" * 32
SIDE = 64
_PICTURE = np.full((SIDE, SIDE, 3), 127, dtype=np.uint8)


class NullEngine:
    """As `engine.loop.Engine` to its process."""

    model = SimpleNamespace(name="null", base=BASE, width=SIDE, height=SIDE)
    device_name = "none"
    out_of_memory = 0

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._rows: dict[str, tuple[Row, int]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._rows)

    def submit(self, row: Row) -> None:
        self._rows[row.row_id] = (row, 0)

    def cancel(self, row_id: str) -> None:
        self._rows.pop(row_id, None)

    def watch(self, row_id: str, on: bool) -> None:
        """Nothing to see."""

    def step(self) -> list[Event]:
        """One step of the first rows that fit the batch."""
        return self._advance([row for row, _ in self._rows.values()][: self.batch_size])

    def _advance(self, batch: list[Row]) -> list[Event]:
        events: list[Event] = []
        for row in batch:
            done = self._rows[row.row_id][1]
            events.append(Progress(row.row_id, done + 1, row.steps))
            self._rows[row.row_id] = (row, done + 1)
            if done + 1 == row.steps:
                del self._rows[row.row_id]
                events.append(Finished(row.row_id, _PICTURE, _recipe(row)))
        return events


def _recipe(row: Row) -> Recipe:
    return Recipe(
        prompt=row.prompt,
        negative_prompt=row.negative_prompt,
        steps=row.steps,
        sampler=row.scheduler,
        guidance=row.guidance,
        seed=row.seed,
        width=row.width,
        height=row.height,
        base=BASE,
        model="null",
    )


def load(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> NullEngine:
    return NullEngine(settings.batch_size or 8)
