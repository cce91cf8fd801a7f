"""The files behind a picture, found by its sha256 alone, and small copies of what processing made."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from itemforge.dataset.processed import path_of
from itemforge.dataset.store import EXTENSIONS, Store
from itemforge.studio.review.items import Item
from itemforge.styles.files import write_atomic

Kind = Literal["picture", "before", "thumbnail"]
#: Where small copies lie, below the dataset's folder. They can be deleted at any time.
FOLDER = "review/thumbnails"
_SIDE = 256
_TYPES = {".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True)
class File:
    """What is sent: a file, or bytes that could not be kept."""

    type: str
    path: Path | None = None
    data: bytes = b""


def version_of(item: Item) -> str:
    """Changes when another recipe has made the picture, so that browsers may keep what they have."""
    made = item.processed.picture if item.processed else ""
    return Path(made).stem[-12:] or item.sha256[:12]


def find(store: Store, item: Item, kind: Kind) -> File | None:
    """The file, or None if there is none. What was not processed is shown as it came."""
    if kind == "thumbnail" and item.processed and item.processed.picture:
        return _thumbnail(store, item)
    made = item.processed
    relative = (made.before if kind == "before" else made.picture) if made else ""
    found = _inside(store, relative)
    if found is not None and found.suffix in _TYPES:
        return File(_TYPES[found.suffix], found)
    if item.picture.mime not in EXTENSIONS:
        return None
    original = _inside(store, item.picture.file)
    return File(item.picture.mime, original) if original else None


def _inside(store: Store, relative: str) -> Path | None:
    """A file of the dataset's folder and of no other, whatever its database says."""
    if not relative or "\0" in relative:
        return None
    path = path_of(store, relative).resolve()
    return path if path.is_relative_to(store.folder.resolve()) and path.is_file() else None


def _thumbnail(store: Store, item: Item) -> File | None:
    small = store.folder / FOLDER / item.sha256[:2] / f"{item.sha256}-{version_of(item)}.webp"
    if small.is_file():
        return File("image/webp", small)
    source = _inside(store, item.processed.picture) if item.processed else None
    if source is None:
        return None
    try:
        data = _shrunk(source)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    try:
        write_atomic(small, data)
    except OSError:  # a full disk or a folder to read only: it is made again next time
        return File("image/webp", data=data)
    return File("image/webp", small)


def _shrunk(source: Path) -> bytes:
    with Image.open(source, formats=("PNG",)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "WEBP", quality=82, method=2)
    return data.getvalue()
