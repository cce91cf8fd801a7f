"""What goes into the engine and what comes out: rows (one image each) and events.

A row says everything that decides its picture, so the same row gives the same picture whoever its
neighbours in the batch are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from itemforge.contract import Scheduler
from itemforge.imaging.recipe import Recipe


@dataclass(frozen=True)
class LoraRef:
    """A LoRA file on this machine, what its content must be, and how strongly it is applied."""

    path: Path
    sha256: str
    weight: float


@dataclass(frozen=True)
class Row:
    """One image to draw. `width` and `height` are pixels; `guidance` <= 1 draws without guidance.

    `alone`: nothing else is in the making while this row is, because it is suspected of killing engines.
    `about` stands on the log's lines about the row.
    """

    row_id: str
    prompt: str
    negative_prompt: str
    steps: int
    guidance: float
    seed: int
    scheduler: Scheduler
    width: int
    height: int
    loras: tuple[LoraRef, ...] = ()
    alone: bool = False
    about: Mapping[str, str | int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` was done `at` so many seconds of the engine's clock, which is `time.monotonic`."""

    row_id: str
    step: int
    steps: int
    at: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Staged:
    """The row went through a stage (`merge`, `encode`, `decode`), maybe with others; seconds of the
    engine's clock.
    """

    row_id: str
    stage: str
    began: float
    ended: float


@dataclass(frozen=True)
class Preview:
    """A small JPEG (at most 5 kB) of what the picture looks like so far."""

    row_id: str
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Finished:
    """The picture, uint8 of shape (height, width, 3), and how to draw it again."""

    row_id: str
    pixels: NDArray[np.uint8] = field(repr=False)
    recipe: Recipe


@dataclass(frozen=True)
class Cancelled:
    """The row was cancelled; nothing more is heard of it."""

    row_id: str


@dataclass(frozen=True)
class Failed:
    """The row cannot be drawn. `retryable`: another try, or another machine, may succeed."""

    row_id: str
    error: str
    retryable: bool


Event = Progress | Staged | Preview | Finished | Cancelled | Failed
