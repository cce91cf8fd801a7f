"""An engine without a model: the prompt's first word says what it does. It runs in the real child process.

`slow` takes its time, `hang` stops for ever, `kill` ends the process,
`break` is an error that the engine lets out, `bad` cannot be drawn, `oom` may
succeed elsewhere; anything else is drawn at once, as a flat picture whose colour is the seed.
"""

import os
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from itemforge.engine.rows import Cancelled, Event, Failed, Finished, Preview, Progress, Row, Staged
from itemforge.errors import ModelError
from itemforge.imaging.recipe import Recipe
from itemforge.settings import EngineSettings

BASE = "ab" * 32
SIDE = 64


class FakeEngine:
    """Steps all rows together, as the real one does."""

    model = SimpleNamespace(name="fake", base=BASE, width=SIDE, height=SIDE)
    device_name = "no device"
    out_of_memory = 0

    def __init__(self, batch_size: int, on_stage: Callable[[str, float], None]) -> None:
        self.batch_size = batch_size
        self._on_stage = on_stage
        self._rows: dict[str, Row] = {}
        self._steps: dict[str, int] = {}
        self._cancelled: list[str] = []
        self._watched: set[str] = set()

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._cancelled)

    def submit(self, row: Row) -> None:
        if row.row_id in self._rows:
            raise ValueError(f"row {row.row_id} is in the engine already")
        self._rows[row.row_id] = row
        self._steps[row.row_id] = 0

    def cancel(self, row_id: str) -> None:
        if row_id in self._rows:
            self._cancelled.append(row_id)

    def watch(self, row_id: str, on: bool) -> None:
        if row_id in self._rows:  # as the real one: of others it remembers nothing
            (self._watched.add if on else self._watched.discard)(row_id)

    def step(self) -> list[Event]:
        events: list[Event] = [
            Cancelled(row_id) for row_id in self._cancelled if self._rows.pop(row_id, None)
        ]
        self._cancelled.clear()
        for row in list(self._rows.values())[: self.batch_size]:
            events += self._step(row)
        self._on_stage("unet", 0.001)
        return events

    def _step(self, row: Row) -> list[Event]:
        match row.prompt.split()[0]:
            case "slow":
                time.sleep(0.02)
            case "hang":
                time.sleep(3600)
            case "kill":
                os._exit(9)
            case "break":
                raise ModelError("the engine broke on this row")
            case "bad":
                del self._rows[row.row_id]
                return [Failed(row.row_id, "this prompt cannot be drawn", retryable=False)]
            case "oom":
                del self._rows[row.row_id]
                return [Failed(row.row_id, "out of memory", retryable=True)]
        step = self._steps[row.row_id] = self._steps[row.row_id] + 1
        events: list[Event] = [Progress(row.row_id, step, row.steps, time.monotonic())]
        if step == 1:
            now = time.monotonic()
            events = [Staged(row.row_id, "merge", now, now), Staged(row.row_id, "encode", now, now)]
            events.append(Progress(row.row_id, step, row.steps, time.monotonic()))
        if row.row_id in self._watched:
            events.append(Preview(row.row_id, b"\xff\xd8 a small JPEG"))
        if step == row.steps:
            del self._rows[row.row_id]
            events.append(Staged(row.row_id, "decode", time.monotonic(), time.monotonic()))
            events.append(Finished(row.row_id, pixels_of(row.seed, row.width, row.height), _recipe(row)))
        return events


def pixels_of(
    seed: int, width: int = SIDE, height: int = SIDE
) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """The picture of a seed."""
    return np.full((height, width, 3), seed % 251, dtype=np.uint8)


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
        model="fake",
    )


def load(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FakeEngine:
    return FakeEngine(settings.batch_size or 4, on_stage)


def load_broken(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FakeEngine:
    raise ModelError("there is no model here; put one there")


def load_crashing(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FakeEngine:
    raise RuntimeError("the device is on fire")


def load_once(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FakeEngine:
    """Cannot be used when its process was lost."""
    _first(settings, "the model was removed meanwhile")
    return load(settings, on_stage)


def load_then_slowly(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FakeEngine:
    """Takes for ever to come back when its process was lost."""
    try:
        _first(settings, "")
    except ModelError:
        time.sleep(3600)
    return load(settings, on_stage)


def _first(settings: EngineSettings, otherwise: str) -> None:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        (settings.home / "loaded").touch(exist_ok=False)
    except FileExistsError:
        raise ModelError(otherwise) from None


def load_slowly(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FakeEngine:
    time.sleep(3600)
    return load(settings, on_stage)
