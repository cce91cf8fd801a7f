"""What fewer or cheaper UNet calls cost in the picture, and what they save.

    python bench/quality.py [--prompts 16] [--guidance 4.0] [--out FILE]

Every variant draws the same prompts and seeds as the exact engine (float32, 25 DDIM steps) with the starter.
The difference is given in levels of 255 as mean and largest, and as PSNR, over all pictures; the cost in
places of the UNet's batch for a picture (a guided step takes two). Two rows give the scale: the exact
engine at twice the steps, and at another seed.
"""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from report import Table, write

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import load_model, place
from itemforge.engine.quality import LEVELS, Quality
from itemforge.engine.rows import Failed, Finished, Row
from itemforge.engine.state import RowState
from itemforge.styles.models import starter_dir

STEPS = 25
PROMPTS = (
    "a red apple", "a key", "birthday cake", "a sunflower", "a panda", "an open book", "a hammer", "a fish",
    "dog face", "a mushroom", "a trophy", "a guitar", "a slice of pizza", "a rocket", "a candle", "a tulip",
)  # fmt: skip
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Variant:
    """How the pictures are drawn; `guided` is the part of the steps, from and to, that has guidance."""

    name: str
    quality: Quality = "exact"
    dtype: torch.dtype = torch.float32
    sampler: Scheduler = Scheduler.DDIM
    steps: int = STEPS
    guided: tuple[float, float] = (0.0, 1.0)
    seed: int = 100


def variants() -> list[Variant]:
    parts = [(0.0, 0.9), (0.0, 0.8), (0.0, 0.6), (0.0, 0.5), (0.08, 1.0), (0.2, 1.0), (0.08, 0.7)]
    guided = [Variant(f"guidance from {a:.0%} to {b:.0%} of the steps", guided=(a, b)) for a, b in parts]
    ddim = [Variant(f"DDIM, {n} steps", steps=n) for n in (20, 15, 12, 10, 8)]
    dpmpp = Scheduler.DPMPP_2M_KARRAS
    dpm = [Variant(f"DPM++ 2M Karras, {n} steps", sampler=dpmpp, steps=n) for n in (25, 15, 12, 10, 8)]
    return [
        Variant("exact"),
        Variant("bfloat16", dtype=torch.bfloat16),
        *guided,
        *ddim,
        *dpm,
        *(Variant(f"ITEMFORGE_QUALITY={name}", name) for name in LEVELS if name != "exact"),
        Variant("scale: exact, twice the steps", steps=2 * STEPS),
        Variant("scale: exact, another seed", seed=1000),
    ]


@contextmanager
def guidance_within(part: tuple[float, float]) -> Iterator[None]:
    """Rows have guidance in this part of their steps only. The engine does not offer it: see the table."""
    always = RowState.guided

    def guided(state: RowState) -> bool:
        inside = part[0] * state.steps <= state.step < part[1] * state.steps
        return state.negative is not None and (inside or not state.started)  # it is encoded at the start

    RowState.guided = property(guided)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        RowState.guided = always  # type: ignore[method-assign]


def drawn(variant: Variant, prompts: Iterable[str], guidance: float) -> tuple[list[Pixels], float]:
    """The pictures, and how many places of the UNet's batch one of them took."""
    model = load_model(starter_dir(), torch.device("cpu"), torch.float32)
    place(model, torch.device("cpu"), variant.dtype, torch.channels_last)
    places = 0

    def count(unet: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal places
        places += len(inputs[0])

    model.parts.unet.register_forward_pre_hook(count)
    engine = Engine(model, quality=variant.quality)
    plain = Row("", "", "", variant.steps, guidance, 0, variant.sampler, model.width, model.height)
    names = list(prompts)
    for n, prompt in enumerate(names):
        engine.submit(
            replace(plain, row_id=str(n), prompt=f"{prompt}, white background", seed=variant.seed + n)
        )
    pictures: dict[str, Pixels] = {}
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Failed):
                raise RuntimeError(f"{variant.name}: {event.error}")
            if isinstance(event, Finished):
                pictures[event.row_id] = event.pixels
    return [pictures[str(n)] for n in range(len(names))], places / len(names)


def difference(drawn: list[Pixels], exact: list[Pixels]) -> tuple[float, float, int]:
    """Mean absolute difference in levels, PSNR in dB, largest difference in levels."""
    apart = np.stack(drawn).astype(np.float64) - np.stack(exact)
    squared = float((apart**2).mean())
    psnr = 10 * np.log10(255**2 / squared) if squared else float("inf")
    return float(np.abs(apart).mean()), float(psnr), int(np.abs(apart).max())


def measure(prompts: int, guidance: float) -> Table:
    table = Table(
        f"Pictures of {prompts} prompts at guidance {guidance:g} against the exact ones (levels of 255)",
        ("drawn with", "UNet places a picture", "mean", "PSNR dB", "largest"),
    )
    exact: list[Pixels] = []
    for variant in variants():
        with guidance_within(variant.guided):
            pictures, places = drawn(variant, PROMPTS[:prompts], guidance)
        exact = exact or pictures
        mean, psnr, most = difference(pictures, exact)
        table.add(variant.name, f"{places:.0f}", f"{mean:.2f}", f"{psnr:.1f}", f"{most}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    write(measure(options.prompts, options.guidance), options.out)


if __name__ == "__main__":
    main()
