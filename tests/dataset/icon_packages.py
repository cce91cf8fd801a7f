"""Small packages built as the published ones are: three things, one of them in each set or not."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from itemforge.dataset.icon_sets import EMOJIBASE, SETS

#: Code points of the things: an apple, a key, and clock face, which is left out.
APPLE, KEY, CLOCK = "1F34E", "1F5DD-FE0F", "1F550"
_EMOJI = [
    {"hexcode": APPLE, "label": "red apple", "group": 4, "tags": ["fruit", "orchard", "cider"]},
    {"hexcode": KEY, "label": "old key", "group": 7, "tags": ["fruit", "lock", "opener"]},
    {"hexcode": CLOCK, "label": "one o’clock", "group": 5, "tags": ["time"]},
    {"hexcode": "1F600", "label": "grinning face", "group": 0, "tags": ["face"]},
]
_BODY = '<rect width="24" height="24" fill="{}"/><circle cx="24" cy="24" r="6" fill="currentColor"/>'


def pack(path: Path, members: dict[str, bytes]) -> None:
    """An archive as `npm pack` makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def iconify(colour: str) -> dict[str, bytes]:
    icons = {name: {"body": _BODY.format(colour)} for name in ("red-apple", "old-key", "one-oclock")}
    points = {
        APPLE.lower(): "red-apple",
        KEY.lower(): "old-key",
        CLOCK.lower(): "one-oclock",
        "1f47b": "none",
    }
    return {
        "icons.json": json.dumps({"icons": icons, "width": 32, "height": 32}).encode(),
        "chars.json": json.dumps(points).encode(),
    }


def webp(colour: str) -> bytes:
    """A disc with a hidden black under its transparent corners."""
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste(Image.new("RGBA", (40, 40), colour), (12, 12))
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True, exact=True)
    return out.getvalue()


def write_packages(folder: Path) -> Path:
    """All packages that `build_icons` reads."""
    names: dict[str, list[str]] = {APPLE: ["red_apple", "pomme"], KEY: ["old-key"], CLOCK: ["clock1"]}
    short = {f"en/shortcodes/{kind}.json": json.dumps(names).encode() for kind in _KINDS}
    pack(folder / EMOJIBASE.file_name, {"en/data.json": json.dumps(_EMOJI).encode(), **short})
    for n, icon_set in enumerate(SETS):
        members = iconify(("#e02020", "#d02040", "#000000")[n % 3])
        if not icon_set.package.name.startswith("@iconify-json/"):
            members = {"assets/1f34e.webp": webp("#e02020"), "assets/1f5dd.webp": webp("#808080")}
        pack(folder / icon_set.package.file_name, members)
    return folder


_KINDS = ("github", "cldr", "joypixels", "emojibase", "iamcal")
