"""Item pictures for wikis: icons of the packages that `itemforge data icons` reads, under made-up names.

They come in the forms and sizes that wikis have. The packages are taken from ITEMFORGE_TEST_PACKAGES or the
user's own cache, else npm fetches them; where there is no npm either, shapes are drawn.
"""

import io
import os
import pwd
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from itemforge.dataset.icon_sets import SETS, IconSet, rasterise, sources
from itemforge.dataset.packages import Archive, fetch

#: Before a test makes another home.
_CACHE = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local/share/itemforge/cache/packages"
_SIZES = (64, 96, 128, 200, 256, 320, 384, 512)
_SKINS = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
_FIRST = [
    "Amber",
    "Ancient",
    "Ashen",
    "Brass",
    "Bright",
    "Broken",
    "Cursed",
    "Dusky",
    "Ember",
    "Fabled",
    "Frosty",
    "Gilded",
    "Hollow",
    "Humble",
    "Ivory",
    "Jade",
    "Lucky",
    "Lunar",
    "Misty",
    "Mossy",
    "Nimble",
    "Oaken",
    "Pearl",
    "Quiet",
    "Royal",
    "Rusty",
    "Sandy",
    "Secret",
    "Silver",
    "Sleepy",
    "Smoky",
    "Solar",
    "Spotted",
    "Sturdy",
    "Sunken",
    "Thorny",
    "Tidal",
    "Velvet",
    "Wandering",
    "Woven",
]
_SECOND = [
    "Almanac",
    "Anvil",
    "Basket",
    "Beacon",
    "Bell",
    "Bowl",
    "Brooch",
    "Candle",
    "Charm",
    "Chest",
    "Cloak",
    "Compass",
    "Crown",
    "Dagger",
    "Drum",
    "Elixir",
    "Fiddle",
    "Flask",
    "Gem",
    "Goblet",
    "Hammer",
    "Harp",
    "Helm",
    "Idol",
    "Kettle",
    "Key",
    "Lantern",
    "Mask",
    "Mirror",
    "Orb",
    "Pendant",
    "Quill",
    "Ring",
    "Satchel",
    "Scroll",
    "Shield",
    "Spade",
    "Totem",
    "Trinket",
    "Wand",
]


@dataclass(frozen=True)
class ItemPicture:
    """A file of a wiki, and what the wiki calls the thing on it."""

    name: str
    file: str
    data: bytes
    mime: str


def item_pictures(count: int, packages: Path | None = None) -> list[ItemPicture]:
    """So many pictures, all different, the same each time. `packages` is where npm may put what is nowhere else."""
    drawn = icons(packages) if packages is not None else shapes()
    made = []
    for n, cutout in zip(range(count), drawn, strict=False):
        name = f"{_FIRST[n % 40]} {_SECOND[(n // 40 + n) % 40]}" + (f" {n // 1600 + 1}" if n >= 1600 else "")
        made.append(_as_file(n, name, cutout.convert("RGBA")))
    return made


def icons(packages: Path) -> Iterator[Image.Image]:
    """Icons of two sets, MIT and Apache-2.0, as wide as the sizes in turn; shapes where they cannot be had."""
    if not any(_has_all(folder) for folder in _folders(packages)) and shutil.which("npm") is None:
        yield from shapes()
        return
    folder = next((each for each in _folders(packages) if _has_all(each)), packages)
    n = 0
    for icon_set in _sets():
        with Archive(fetch(icon_set.package, folder)) as archive:
            found = sources(icon_set, archive)
        for point in sorted(found):
            if not any(skin in point for skin in _SKINS):
                with Image.open(io.BytesIO(rasterise(found[point], _SIZES[n % len(_SIZES)]))) as icon:
                    yield icon.convert("RGBA")
                n += 1


def _sets() -> list[IconSet]:
    return [each for each in SETS if each.id in ("fluent-flat", "noto")]


def _folders(packages: Path) -> list[Path]:
    named = os.environ.get("ITEMFORGE_TEST_PACKAGES")
    return [*([Path(named)] if named else []), _CACHE, packages]


def _has_all(folder: Path) -> bool:
    return all((folder / each.package.file_name).is_file() for each in _sets())


def shapes() -> Iterator[Image.Image]:
    """Things of a few shapes and colours, each another."""
    n = 0
    while True:
        chance, size = random.Random(n), _SIZES[n % len(_SIZES)]
        image = Image.new("RGBA", (2 * size, 2 * size), (0, 0, 0, 0))
        pen = ImageDraw.Draw(image)
        for k in range(6):
            x, y = (chance.randrange(size // 4, size) for _ in range(2))
            box = (x, y, x + chance.randrange(size // 5, size), y + chance.randrange(size // 5, size))
            colour = f"hsl({chance.randrange(360)},{chance.randrange(50, 90)}%,{chance.randrange(25, 75)}%)"
            (pen.ellipse, pen.rectangle)[k % 2](box, fill=colour)
        yield image.resize((size, size), Image.Resampling.BOX)
        n += 1


def _as_file(n: int, name: str, cutout: Image.Image) -> ItemPicture:
    """In ten pictures: four transparent PNG, one with a palette, two JPEG, a GIF, a WebP, and one opaque PNG."""
    place = n % 10
    if place < 5:
        picture = cutout.quantize(128) if place == 4 else cutout
        return _file(name, "png", "PNG", picture)
    if place == 5:
        return _file(name, "jpg", "JPEG", _on(cutout, "white"), quality=92)
    if place == 6:
        return _file(name, "jpg", "JPEG", _on(cutout, "#7fb2c8"), quality=90)
    if place == 7:
        return _file(name, "gif", "GIF", cutout)
    if place == 8:
        return _file(name, "webp", "WEBP", cutout, lossless=True)
    return _file(name, "png", "PNG", _on(cutout, ("#fbfbf4", "#3a4a2c")[n // 10 % 2]))


def _on(cutout: Image.Image, colour: str) -> Image.Image:
    ground = Image.new("RGBA", cutout.size, colour)
    ground.alpha_composite(cutout)
    return ground.convert("RGB")


def _file(name: str, ending: str, form: str, picture: Image.Image, **options: object) -> ItemPicture:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return ItemPicture(
        name, f"{name}.{ending}", out.getvalue(), f"image/{'jpeg' if ending == 'jpg' else ending}"
    )
