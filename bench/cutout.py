"""How well a picture is taken off its white background: error of its alpha, against icons whose alpha is known.

    python bench/cutout.py [--packages DIR] [--sheet FILE] [--holes] [--out FILE]

40 icons of four published sets (`cutout_icons.json`: 16 with holes, 16 with enclosed white paint, 8 with
neither; by a checksum of their code points, not by how they come out) are drawn on white, and what the cut-out
makes of them is compared with the alpha of their SVG. `--holes` counts over 150 icons of each set how often the guess is
right; `--sheet` draws what to look at. Packages that DIR lacks are fetched with npm.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw
from report import Table, write
from scipy import ndimage

from itemforge.contract import Holes, Output
from itemforge.dataset.concepts import read_concepts
from itemforge.dataset.icon_sets import EMOJIBASE, IconSet, rasterise, sources
from itemforge.dataset.packages import Archive, Package, fetch
from itemforge.imaging import cutout, holes
from itemforge.imaging.derive import cut_out
from itemforge.imaging.ground import find_ground
from itemforge.imaging.scaling import Pixels, on_white, resize

PACKAGES = {
    "noto": Package("@iconify-json/noto", "1.2.9"),
    "fluent-emoji-flat": Package("@iconify-json/fluent-emoji-flat", "1.2.6"),
    "openmoji": Package("@iconify-json/openmoji", "1.2.29"),
    "twemoji": Package("@iconify-json/twemoji", "1.2.5"),
}
ICONS = Path(__file__).with_name("cutout_icons.json")
#: Pixels within this distance of the true edge are its band, which so is 4 pixels wide.
REACH = 2


@dataclass(frozen=True)
class Icon:
    set: str
    code: str
    name: str
    kind: str


def read_icons() -> list[Icon]:
    return [Icon(**each) for each in json.loads(ICONS.read_text())]


@cache
def drawings(name: str, packages: Path) -> dict[str, bytes]:
    """A set's SVGs by code points."""
    package = PACKAGES[name]
    with Archive(fetch(package, packages)) as archive:
        return sources(IconSet(name, package, "base", "", "", "", ""), archive)


def draw(svg: bytes, size: int) -> Pixels:
    """RGBA pixels of an icon with a margin, as smooth as its SVG."""
    inner = round(size * 7 / 8)
    with Image.open(io.BytesIO(rasterise(svg, 2 * inner))) as picture:
        # Colours weighed by alpha, as the SVG itself would be drawn at this size.
        pixels = np.asarray(
            picture.convert("RGBa").resize((inner, inner), Image.Resampling.BOX).convert("RGBA")
        )
    canvas = np.full((size, size, 4), (255, 255, 255, 0), np.uint8)
    at = (size - inner) // 2
    canvas[at : at + inner, at : at + inner] = pixels
    return canvas


def clean(picture: Pixels) -> Pixels:
    return picture


def as_jpeg(picture: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file).convert("RGB"))


def as_drawn(picture: Pixels) -> Pixels:
    """Soft and a little noisy, as a small decoder leaves a picture, on a white that is not quite white."""
    soft = ndimage.gaussian_filter(picture.astype(np.float32), (0.6, 0.6, 0))
    noise = np.random.default_rng(7).normal(0, 1.2, picture.shape)
    return (soft - 2 + noise).clip(0, 255).round().astype(np.uint8)


TREATMENTS: dict[str, Callable[[Pixels], Pixels]] = {"clean": clean, "jpeg": as_jpeg, "soft": as_drawn}


@dataclass(frozen=True)
class Errors:
    """Mean absolute error of alpha, from 0 to 1."""

    band: float
    elsewhere: float


def alpha_errors(true: Pixels, made: Pixels) -> Errors:
    """Of alpha in the band along the true edge, and in all the rest."""
    error = np.abs(true.astype(float) - made.astype(float)) / 255
    solid = true >= 128
    padded = np.pad(solid, 1)
    away = np.where(padded, ndimage.distance_transform_edt(padded), ndimage.distance_transform_edt(~padded))
    band = away[1:-1, 1:-1] <= REACH
    return Errors(float(error[band].mean()), float(error[~band].mean()))


def measure(
    packages: Path, treatment: str, size: int = 512, switch: Holes = Holes.GUESS, kinds: Sequence[str] = ()
) -> list[tuple[Icon, Errors]]:
    """The errors of each icon."""
    found = []
    for icon in read_icons():
        if kinds and icon.kind not in kinds:
            continue
        true = draw(drawings(icon.set, packages)[icon.code], size)
        picture = TREATMENTS[treatment](on_white(true))
        opaque = np.concatenate([picture, np.full_like(picture[..., :1], 255)], -1)
        made = cut_out(opaque, Output(background="transparent", holes=switch))
        found.append((icon, alpha_errors(true[..., 3], made[..., 3])))
    return found


def mean(found: Sequence[tuple[Icon, Errors]]) -> Errors:
    return Errors(
        float(np.mean([errors.band for _, errors in found])),
        float(np.mean([errors.elsewhere for _, errors in found])),
    )


def figures(packages: Path) -> Table:
    table = Table("Error of a cut-out's alpha, 40 icons", ("picture", "holes", "icons", "band", "elsewhere"))
    for size, treatment in (
        (512, "clean"),
        (512, "jpeg"),
        (512, "soft"),
        (256, "clean"),
        (64, "clean"),
        (64, "soft"),
    ):
        found = measure(packages, treatment, size)
        for kind in ("", "holes", "paint", "solid"):
            some = [each for each in found if kind in ("", each[0].kind)]
            errors = mean(some)
            table.add(
                f"{size} {treatment}", "guess", kind or "all", f"{errors.band:.4f}", f"{errors.elsewhere:.4f}"
            )
    for kind, switch in (("holes", Holes.CUT), ("paint", Holes.KEEP)):
        errors = mean(measure(packages, "clean", 512, switch, (kind,)))
        table.add("512 clean", switch, kind, f"{errors.band:.4f}", f"{errors.elsewhere:.4f}")
    return table


def guesses(packages: Path, most: int = 150) -> Table:
    """How often an enclosed white patch is told rightly, over many icons of things (no signs, no letters)."""
    table = Table(
        "Enclosed white patches told rightly", ("set", "patches", "are holes", "told rightly", "by area")
    )
    with Archive(fetch(EMOJIBASE, packages)) as archive:
        things = {concept.code for concept in read_concepts(archive)}
    for name in PACKAGES:
        svgs = drawings(name, packages)
        some = sorted(things & svgs.keys(), key=lambda code: crc32(code.encode()))[:most]
        rows = [row for code in some for row in _patches(draw(svgs[code], 256))]
        are, told, area = (np.array(column) for column in zip(*rows, strict=True))
        right = are == told
        table.add(
            name,
            str(len(are)),
            f"{are.mean():.0%}",
            f"{right.mean():.0%}",
            f"{np.average(right, weights=area):.0%}",
        )
    return table


def _patches(true: Pixels) -> list[tuple[bool, bool, float]]:
    """Of each patch: whether it is a hole, whether it is told to be one, and its area (at most a tenth)."""
    colours = on_white(true)
    ground = find_ground(colours)
    if ground is None:
        return []
    away = np.abs(colours.astype(np.float32) - ground.colours(*colours.shape[:2])).max(-1)
    limits = cutout._limits(away, ground.tolerance)
    outside, enclosed = cutout._by_border(cutout._near(away, limits))
    area = float((~outside).sum())
    if not area:
        return []
    numbers = cutout._of_ground(enclosed, away, limits, max(9, holes.LEAST * area))[: holes.MOST]
    told = holes.likely(colours, ~outside, enclosed, numbers) if numbers.size else ()
    rows = []
    for number, is_hole in zip(numbers, told, strict=True):
        patch = enclosed == number
        opaque = float(true[..., 3][patch].mean()) / 255
        if not 0.1 < opaque < 0.9:
            rows.append((opaque < 0.5, bool(is_hole), min(0.1, float(patch.sum()) / area)))
    return rows


def sheet(pictures: Sequence[tuple[str, Pixels]], side: int = 150) -> Image.Image:
    """Each picture as it was, on a checkerboard, on dark and on a colour."""
    squares = (np.indices((side, side)) // 10).sum(0) % 2
    board = np.where(squares[..., None], 205, 245).astype(np.uint8).repeat(3, -1)
    grounds = [Image.fromarray(board)] + [Image.new("RGB", (side, side), c) for c in ("#20242c", "#2f8f6b")]
    gap, columns = 10, 3
    rows = -(-len(pictures) // columns)
    wide = 4 * side + 4 * gap
    page = Image.new("RGB", (columns * wide + gap, rows * (side + gap) + gap + 24), "#fafaf8")
    pen = ImageDraw.Draw(page)
    for column in range(columns):
        for k, title in enumerate(("before", "checkerboard", "on dark", "on a colour")):
            pen.text((gap + column * wide + k * (side + gap), 8), title, fill="#28282c")
    for n, (_, picture) in enumerate(pictures):
        opaque = np.concatenate([picture, np.full_like(picture[..., :1], 255)], -1)
        cut = Image.fromarray(resize(cut_out(opaque, Output(background="transparent")), side, side))
        x, y = gap + n % columns * wide, 24 + gap + n // columns * (side + gap)
        page.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (x, y))
        for k, ground in enumerate(grounds, 1):
            shown = ground.copy()
            shown.paste(cut, (0, 0), cut)
            page.paste(shown, (x + k * (side + gap), y))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--packages", type=Path, default=Path.home() / ".local/share/itemforge/cache/packages"
    )
    parser.add_argument("--sheet", type=Path, help="draw the sheet into this PNG, and measure nothing")
    parser.add_argument("--holes", action="store_true", help="count how often the guess is right")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    parser.add_argument("pictures", nargs="*", type=Path, help="opaque pictures that the sheet shows, too")
    told = parser.parse_args()
    if told.sheet:
        shown = [
            (icon.name, on_white(draw(drawings(icon.set, told.packages)[icon.code], 512)))
            for icon in read_icons()
            # Those whose licences ask for no more than a line.
            if icon.set in ("noto", "fluent-emoji-flat")
        ]
        shown += [(path.name, np.asarray(Image.open(path).convert("RGB"))) for path in told.pictures]
        sheet(shown).save(told.sheet, optimize=True)
        return
    write(guesses(told.packages) if told.holes else figures(told.packages), told.out)


if __name__ == "__main__":
    main()
