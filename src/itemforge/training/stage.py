"""A stage of training, and the loop that runs any of them.

A stage draws all its chance from its seed and its step, so a run that was stopped after N steps goes on exactly as
one that was not. Its state is written every few minutes, whole or not at all, and when the run is told to stop.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import structlog
import torch

from itemforge.errors import InvalidInput
from itemforge.training.config import Steps

log = structlog.get_logger(__name__)

#: Seconds between two lines about the losses.
TELL_EVERY = 15.0
#: The learning rate falls to this share of its height.
_LEAST_RATE = 0.1


class Stage(Protocol):
    """`step` does one step of the optimizer and gives the losses to show."""

    name: str
    done: int
    steps: int

    def step(self) -> dict[str, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


#: Hears the stage, its steps done, of how many, and the losses (means since the last time) with `it/s`.
Tell = Callable[[str, int, int, dict[str, float]], None]


@dataclass
class Run:
    """Where a run keeps its states, how often (seconds), and when it has to stop.

    `until` is of time.monotonic; None: never. Of several processes one is the `lead`, which alone saves, and all
    `agree` on whether to stop: who left alone would be waited for by the others.
    """

    folder: Path
    tell: Tell
    until: float | None = None
    save_every: float = 180.0
    stopped: bool = False
    lead: bool = True
    agree: Callable[[bool], bool] = lambda own: own
    _sums: dict[str, float] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.agree(self.stopped or (self.until is not None and time.monotonic() >= self.until))

    def train(self, stage: Stage) -> bool:
        """Go on with a stage where its last state was saved; True when it is through.

        Raises:
            InvalidInput: its saved state is another run's or damaged.
        """
        path = self.folder / f"{stage.name}.state"
        if path.is_file():
            stage.restore(load_state(path))
        saved, told, since = time.monotonic(), time.monotonic(), stage.done
        with _stop_on_signals(self):
            while stage.done < stage.steps and not self.over:
                for name, value in stage.step().items():
                    self._sums[name] = self._sums.get(name, 0.0) + value
                now = time.monotonic()
                if now - told >= TELL_EVERY or stage.done == stage.steps:
                    count = stage.done - since
                    losses = {name: total / count for name, total in self._sums.items()}
                    self.tell(stage.name, stage.done, stage.steps, losses | {"it/s": count / (now - told)})
                    self._sums.clear()
                    told, since = now, stage.done
                if now - saved >= self.save_every and self.lead:
                    save_state(path, stage.state())
                    saved = now
        if self.lead:
            save_state(path, stage.state())
        return stage.done >= stage.steps


@contextmanager
def _stop_on_signals(run: Run) -> Iterator[None]:
    """SIGTERM and Ctrl+C end the stage after its step, with its state saved."""

    def stop(number: int, frame: FrameType | None) -> None:
        run.stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state that a reader sees whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # a rename may reach the disk before the bytes do
    part.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """A saved state; nothing in it is code.

    Raises:
        InvalidInput: it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # torch documents no common base
        raise InvalidInput(f"{path} cannot be read ({error}); delete it to begin the stage again") from error


def generator(seed: int, step: int) -> torch.Generator:
    """Chance of one step alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def rate_at(config: Steps, step: int) -> float:
    """Share of the learning rate at a step: up over the warm-up, then a cosine down."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    through = (step - config.warmup) / max(1, config.steps - config.warmup)
    return _LEAST_RATE + (1 - _LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
