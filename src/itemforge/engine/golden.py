"""The golden picture: before a worker says that it is ready, it draws a known row and compares.

The reference is `golden.png` beside the model, or what this machine drew itself at its first start, in
float32, contiguous, alone. It carries its recipe, and so the sha256 of the weights that it was drawn with:
a damage that hardly shows in one picture is found as well. So a dtype, memory format, driver or damaged weight file that spoils pictures
is found before it spoils a customer's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image

from itemforge.contract import Scheduler
from itemforge.engine.model import Model
from itemforge.engine.rows import Finished, Row
from itemforge.errors import InvalidInput, ModelError
from itemforge.imaging.png import encode_png, read_recipe
from itemforge.styles.files import write_atomic

log = structlog.get_logger(__name__)

#: Largest mean difference from the reference, in levels of 255, that a dtype may cause. Another picture
#: on the same background differs by 12 and more, so in bfloat16 this finds broken pictures, not all wrong ones.
TOLERANCE = {"float32": 2.0, "float16": 6.0, "bfloat16": 12.0}
#: Least standard deviation of a picture, in levels: black or grey pictures have none.
LEAST_CONTRAST = 1.0

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Reference:
    """The picture to compare with; `recorded` if this start drew it."""

    pixels: Pixels
    path: Path
    recorded: bool


def golden_row(model: Model) -> Row:
    """Four steps at native size. It must never change: recorded references depend on it."""
    return Row("golden", "a red apple", "", 4, 4.0, 7, Scheduler.DDIM, model.width, model.height)


def reference(
    model: Model, home: Path, noise_device: Literal["cpu", "cuda"], draw: Callable[[], Finished]
) -> Reference:
    """The reference picture of the model; `draw` is called to record one where there is none.

    Noise drawn on a GPU gives another picture, which only that kind of GPU can give again.

    Raises:
        ModelError: the shipped reference cannot be read or was drawn with other weights, or the drawn one
            is not a picture.
    """
    if noise_device == "cpu" and model.golden.is_file():
        _check_base(model)
        if (pixels := _read(model.golden, model)) is None:
            raise ModelError(
                f"{model.golden} is not a picture of {model.width}x{model.height}; delete or replace it"
            )
        return Reference(pixels, model.golden, recorded=False)
    suffix = "" if noise_device == "cpu" else "-cuda"
    path = home / "cache" / "golden" / f"{model.base}{suffix}.png"
    if path.is_file() and (pixels := _read(path, model)) is not None:
        return Reference(pixels, path, recorded=False)
    drawn = draw()
    _check_contrast(drawn.pixels, model)
    try:
        write_atomic(path, encode_png(drawn.pixels, drawn.recipe))
    except OSError as error:
        log.warning("golden_not_recorded", file=str(path), error=str(error))
    return Reference(drawn.pixels, path, recorded=True)


def compare(drawn: Pixels, expected: Reference, model: Model, dtype: str) -> float:
    """Mean difference in levels of 255.

    Raises:
        ModelError: the picture is flat or too far from the reference.
    """
    _check_contrast(drawn, model)
    difference = float(np.abs(drawn.astype(np.int16) - expected.pixels.astype(np.int16)).mean())
    if difference > TOLERANCE[dtype]:
        raise ModelError(
            f"the model {model.name} draws its golden picture wrongly in {dtype} (mean difference "
            f"{difference:.1f} of 255, allowed {TOLERANCE[dtype]:g}): set ITEMFORGE_DTYPE=float32, check "
            f"the GPU and its driver, or delete {expected.path} if the reference itself is wrong"
        )
    return difference


def _check_base(model: Model) -> None:
    try:
        base = read_recipe(model.golden.read_bytes()).base
    except (InvalidInput, OSError):
        return  # it names no weights, or is no picture; the latter is said where it is read
    if base != model.base:
        raise ModelError(
            f"the files of the model {model.name} are not those that {model.golden} was drawn with (sha256 "
            f"{model.base} instead of {base}): they are damaged, get them again; or, if they were changed "
            "on purpose, delete that picture"
        )


def _check_contrast(pixels: Pixels, model: Model) -> None:
    if float(pixels.std()) < LEAST_CONTRAST:
        raise ModelError(
            f"the model {model.name} draws an empty picture: set ITEMFORGE_DTYPE=float32, or check "
            "that its files are complete"
        )


def _read(path: Path, model: Model) -> Pixels | None:
    try:
        with Image.open(path) as image:
            if image.size != (model.width, model.height):
                return None
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None
