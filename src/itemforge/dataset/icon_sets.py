"""The icon sets: which packages, under which licence, and their pictures by code point.

Sets name the same thing differently ("hot beverage", "coffee"), so nothing is joined by name: a picture
belongs to the emoji whose code points it is published under.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

import resvg_py

from itemforge.dataset.packages import Archive, Package
from itemforge.errors import InvalidInput

#: Base pictures are what the base model learns; each of the others is a style of its own.
Use = Literal["base", "style"]


@dataclass(frozen=True)
class IconSet:
    """`look` are the words that end its captions, and `trigger` those that begin a style's. `licence` is an SPDX identifier.

    `cel` says that its pictures are not the package's own, but cel-shaded.
    """

    id: str
    package: Package
    use: Use
    look: str
    licence: str
    author: str
    source: str
    trigger: str = ""
    cel: bool = False

    @property
    def share_alike(self) -> bool:
        """Whether what is made from it must carry its licence."""
        return "-SA" in self.licence


_SOLID, _FLAT = "glossy 3d icon", "flat vector icon"
#: A style's captions have the look of one of the base's sets, and its trigger is a word that says little of what is to be drawn:
#: so its LoRA has less to change. A made-up word costs the base one right thing in fifteen.
#: `openmoji`, whose pictures are composed otherwise, that in which the base draws most things right (93 of 100, and 79 with `_FLAT`);
#: `cel` that of the set that it is made of.
SETS = (
    IconSet(
        "fluent-3d",
        Package("@lobehub/fluent-emoji-3d", "1.1.0"),
        "base",
        _SOLID,
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    IconSet(
        "fluent-flat",
        Package("@iconify-json/fluent-emoji-flat", "1.2.6"),
        "base",
        _FLAT,
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    IconSet(
        "noto",
        Package("@iconify-json/noto", "1.2.9"),
        "base",
        "shaded cartoon icon",
        "Apache-2.0",
        "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
    ),
    IconSet(
        "openmoji",
        Package("@iconify-json/openmoji", "1.2.29"),
        "style",
        _SOLID,
        "CC-BY-SA-4.0",
        "OpenMoji",
        "https://github.com/hfg-gmuend/openmoji",
        "emoji",
    ),
    IconSet(
        "cel",
        Package("@lobehub/fluent-emoji-3d", "1.1.0"),
        "style",
        _SOLID,
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        "2d art",
        cel=True,
    ),
)
#: Names, groups and keywords of the emoji (MIT).
EMOJIBASE = Package("emojibase-data", "17.0.0")


def code_points(text: str) -> str:
    """Code points as lower-case hexadecimal with hyphens, without the variation selector that sets add or not."""
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


def sources(icon_set: IconSet, archive: Archive) -> dict[str, bytes]:
    """The set's pictures as they came, SVG or WebP, by code points.

    Raises:
        InvalidInput: the package is not built as an icon set is.
    """
    if icon_set.package.name.startswith("@iconify-json/"):
        return _iconify(archive)
    return {code_points(name): data for name, data in archive.walk("assets/", ".webp")}


def _iconify(archive: Archive) -> dict[str, bytes]:
    icons, names = archive.json("icons.json"), archive.json("chars.json")
    try:
        # A few icons have several code points, and a few code points came with both spellings: the first stays.
        found: dict[str, bytes] = {}
        for point, name in names.items():
            if name in icons["icons"]:
                found.setdefault(code_points(point), _svg(icons["icons"][name], icons))
        return found
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{archive.path} is no Iconify set: {error!r}") from error


def _svg(icon: dict[str, object], icons: dict[str, object]) -> bytes:
    box = [icon.get(key, icons.get(key, default)) for key, default in _BOX]
    numbers = " ".join(str(float(json.dumps(each))) for each in box)
    # Stencil sets draw in the colour of the text around them.
    body = re.sub("currentColor", "#1b1b1f", str(icon["body"]))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{numbers}">{body}</svg>'.encode()


_BOX = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


def rasterise(svg: bytes, size: int) -> bytes:
    """An SVG as a PNG whose width is `size` pixels, transparent where nothing is drawn.

    Raises:
        InvalidInput: it cannot be drawn.
    """
    try:
        # No fonts: an icon is shapes, and what a machine's fonts would draw is no part of it.
        return bytes(resvg_py.svg_to_bytes(svg_string=svg.decode(), width=size, skip_system_fonts=True))
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"an icon cannot be drawn: {error}") from error
