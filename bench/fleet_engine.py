"""A GPU that only takes its time: the engine of `bench/fleet.py`, in the worker's real child process.

A denoising step of n pictures takes what was published for the card, a change of style and a decoding what is
assumed here, all divided by the time factor. The picture is `null_engine`'s. Every picture that is finished is
written to one file of the whole fleet, so that what was drawn twice can be counted, and each engine keeps its
sums in a mapped file, which survives a kill.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from null_engine import NullEngine

from itemforge.engine.rows import Event, Finished, LoraRef
from itemforge.settings import EngineSettings
from itemforge.styles.models import starter_dir
from itemforge.styles.pack import parse

#: Environment: the card's name, the time factor, and the folder of the engines' files.
GPU, FACTOR, FOLDER = "FLEET_GPU", "FLEET_FACTOR", "FLEET_FOLDER"
#: The starter's base, as its styles name it.
BASE = parse((starter_dir() / "styles" / "openmoji.toml").read_bytes()).base
#: Assumed: seconds of a change of style (LoRA of SD 1.5 in main memory, merged on the card).
SWAP = 1.0
#: Assumed: a picture's decoding (one by one, float32) in steps of a lone picture.
DECODE_STEPS = 3.0

_SUMS = struct.Struct("7d")


@dataclass(frozen=True)
class Gpu:
    """`rates`: batch size and guided UNet steps a second with SD 1.5, 512×512, float16, not compiled."""

    name: str
    rates: tuple[tuple[int, float], ...]
    source: str

    def step(self, batch: int) -> float:
        """Seconds of one step: on the line between published points, and on with the last slope."""
        sizes = [size for size, _ in self.rates]
        seconds = [1 / rate for _, rate in self.rates]
        if batch <= sizes[-1]:
            return float(np.interp(batch, sizes, seconds))
        before = (sizes[-2], seconds[-2]) if len(sizes) > 1 else (0, 0.0)
        slope = (seconds[-1] - before[1]) / (sizes[-1] - before[0])
        return seconds[-1] + slope * (batch - sizes[-1])

    def images_a_second(self, batch: int, steps: int) -> float:
        """What a full batch gives, without changes of style."""
        return batch / (steps * self.step(batch) + batch * DECODE_STEPS * self.step(1))


_HF = "huggingface/diffusers, docs/source/en/optimization/torch2.0.md, without compile"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("t4", ((1, 6.95), (4, 1.79)), _HF),
        Gpu("rtx3060", ((1, 5.7),), "8.7 s for 50 steps, restack.io (weak); no gain by batches assumed"),
        Gpu("rtx3090", ((1, 22.8), (4, 6.35), (16, 1.69)), _HF),
        Gpu("rtx4090", ((1, 41.9), (4, 12.8), (16, 3.2)), _HF),
        Gpu("a100", ((1, 23.1), (4, 13.1), (16, 3.6)), _HF),
    )
}


@dataclass
class Sums:
    """What one engine did. Seconds of the wall clock; `places` counts steps × pictures."""

    ready: float = 0.0
    seen: float = 0.0
    busy: float = 0.0
    steps: float = 0.0
    places: float = 0.0
    pictures: float = 0.0
    swaps: float = 0.0


def read_sums(folder: Path) -> dict[str, Sums]:
    """All engines that ever were ready, by file name (`{host}-{pid}`)."""
    found = {}
    for path in folder.glob("*.sums"):
        data = path.read_bytes()
        if len(data) == _SUMS.size:
            found[path.stem] = Sums(*_SUMS.unpack(data))
    return found


def read_draws(folder: Path) -> list[str]:
    """Row ids of the pictures that were finished, one for each time; a line under way is left out."""
    path = folder / "draws"
    return path.read_text().split("\n")[:-1] if path.exists() else []


class TimedEngine(NullEngine):
    """Rows of the oldest row's style share a batch."""

    model = SimpleNamespace(name="timed", base=BASE, width=64, height=64)

    def __init__(self, batch_size: int, gpu: Gpu, factor: float, folder: Path) -> None:
        super().__init__(batch_size)
        self._gpu = gpu
        self._factor = factor
        self._lane: tuple[LoraRef, ...] = ()
        self._draws = os.open(folder / "draws", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with (folder / f"{os.getppid()}-{os.getpid()}.sums").open("w+b") as file:
            file.write(bytes(_SUMS.size))
            file.flush()
            self._map = mmap.mmap(file.fileno(), _SUMS.size)
        self._sums = Sums(ready=time.time())
        self._keep()

    def step(self) -> list[Event]:
        lane = next(iter(self._rows.values()))[0].loras
        batch = [row for row, _ in self._rows.values() if row.loras == lane][: self.batch_size]
        if lane != self._lane:
            self._lane = lane
            self._sums.swaps += 1
            self._take(SWAP)
        self._take(self._gpu.step(len(batch)))
        events = self._advance(batch)
        drawn = [event.row_id for event in events if isinstance(event, Finished)]
        self._take(len(drawn) * DECODE_STEPS * self._gpu.step(1))
        os.write(
            self._draws, "".join(f"{row_id}\n" for row_id in drawn).encode()
        )  # at once: the file is shared
        self._sums.steps += 1
        self._sums.places += len(batch)
        self._sums.pictures += len(drawn)
        self._keep()
        return events

    def _take(self, seconds: float) -> None:
        """Busy is what the card would be: a machine that wakes us late, or was frozen, adds nothing."""
        time.sleep(seconds / self._factor)
        self._sums.busy += seconds / self._factor

    def _keep(self) -> None:
        s = self._sums
        s.seen = time.time()
        self._map[:] = _SUMS.pack(s.ready, s.seen, s.busy, s.steps, s.places, s.pictures, s.swaps)


def load(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> TimedEngine:
    gpu = GPUS[os.environ[GPU]]
    factor = float(os.environ[FACTOR])
    return TimedEngine(settings.batch_size or 8, gpu, factor, Path(os.environ[FOLDER]))
