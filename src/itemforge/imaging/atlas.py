"""Many pictures on one sheet, with the JSON by which game engines find them: TexturePacker's hash form.

Phaser (`load.atlas`) and PixiJS (`Assets.load`) read it as it is. Where one sheet is not enough, PixiJS finds
the others by `related_multi_packs` of the first; Phaser loads each by itself.
Form: https://www.codeandweb.com/texturepacker/documentation (JSON hash), and `SpritesheetData` of pixi.js.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from itemforge.errors import InvalidInput
from itemforge.imaging.framing import content_box
from itemforge.imaging.packing import Packed, pack
from itemforge.imaging.scaling import Pixels


@dataclass(frozen=True)
class Layout:
    """How pictures lie on a sheet; all in pixels.

    `padding` is empty space between two of them, `extrude` repeats their outermost pixels outwards, so that
    an engine which blends neighbours finds no foreign colour there. `trim` leaves out transparent borders,
    which the engine puts back.
    """

    max_side: int = 2048
    padding: int = 2
    extrude: int = 0
    power_of_two: bool = True
    trim: bool = True


@dataclass(frozen=True)
class Sheet:
    """RGBA pixels and their JSON, the names of both files, and of the frames that are on it."""

    image: str
    data: str
    frames: tuple[str, ...]
    pixels: Pixels
    json: bytes


@dataclass(frozen=True)
class _Part:
    """What of a picture comes onto the sheet, and where it stood in `source`, width and height."""

    pixels: Pixels
    left: int
    top: int
    source: tuple[int, int]


#: Parts by their frames' names, and left and top of each on the sheet.
_Placed = dict[str, tuple[_Part, int, int]]


def make_atlas(
    pictures: Mapping[str, Pixels], layout: Layout, name: str = "atlas", suffix: str = "png"
) -> list[Sheet]:
    """Sheets with RGB or RGBA pictures by their frames' names.

    Raises:
        InvalidInput: there are none, or one is larger than a sheet.
    """
    if not pictures:
        raise InvalidInput("an atlas needs at least one picture")
    parts = {frame: _part(_with_alpha(pixels), layout.trim) for frame, pixels in pictures.items()}
    frames, around = list(parts), 2 * layout.extrude
    sizes = [(part.pixels.shape[1] + around, part.pixels.shape[0] + around) for part in parts.values()]
    packed = pack(sizes, layout.max_side, layout.padding, layout.power_of_two)
    stems = [name] if len(packed) == 1 else [f"{name}-{n}" for n in range(len(packed))]
    sheets = []
    for n, sheet in enumerate(packed):
        placed = {
            frames[k]: (parts[frames[k]], x + layout.extrude, y + layout.extrude)
            for k, (x, y) in sorted(sheet.places.items())
        }
        image = f"{stems[n]}.{suffix}"
        others = [f"{stem}.json" for stem in stems[1:]] if n == 0 else []
        text = json.dumps(_described(placed, sheet, image, others), ensure_ascii=False, indent=1)
        pixels = _drawn(placed, sheet, layout.extrude)
        sheets.append(Sheet(image, f"{stems[n]}.json", tuple(placed), pixels, text.encode()))
    return sheets


def _with_alpha(pixels: Pixels) -> Pixels:
    if pixels.shape[2] == 4:
        return pixels
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)


def _part(pixels: Pixels, trim: bool) -> _Part:
    height, width = pixels.shape[:2]
    box = content_box(pixels[..., 3], faint=0) if trim else (0, 0, width, height)
    # What is wholly transparent still has to be a frame.
    left, top, right, bottom = box or (0, 0, 1, 1)
    return _Part(pixels[top:bottom, left:right], left, top, (width, height))


def _drawn(placed: _Placed, sheet: Packed, extrude: int) -> Pixels:
    width, height = sheet.size
    made = np.zeros((height, width, 4), np.uint8)
    for part, x, y in placed.values():
        drawn = np.pad(part.pixels, ((extrude, extrude), (extrude, extrude), (0, 0)), mode="edge")
        x, y = x - extrude, y - extrude
        made[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    return made


def _described(placed: _Placed, sheet: Packed, image: str, others: list[str]) -> dict[str, Any]:
    frames = {}
    for frame, (part, x, y) in placed.items():
        height, width = part.pixels.shape[:2]
        frames[frame] = {
            "frame": {"x": x, "y": y, "w": width, "h": height},
            "rotated": False,
            "trimmed": (width, height) != part.source,
            "spriteSourceSize": {"x": part.left, "y": part.top, "w": width, "h": height},
            "sourceSize": {"w": part.source[0], "h": part.source[1]},
        }
    meta: dict[str, Any] = {
        "app": "itemforge",
        "version": "1.0",
        "image": image,
        "format": "RGBA8888",
        "size": {"w": sheet.size[0], "h": sheet.size[1]},
        "scale": "1",
    }
    return {"frames": frames, "meta": meta | ({"related_multi_packs": others} if others else {})}
