"""The pictures of a folder, with what their layout says of each. Nothing outside the folder is ever named."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from itemforge.dataset.layouts import CSV, SUFFIXES, Sample, has_metadata, samples_in
from itemforge.dataset.metadata import METADATA
from itemforge.errors import InvalidInput

PICTURES = (*SUFFIXES, ".gif", ".bmp")
#: Where an export says where its pictures come from.
ATTRIBUTION = "ATTRIBUTION.csv"
_REPEATS = re.compile(r"\d+_.")
#: Folders that hold no pictures of the set.
_MASKS = "masks"
#: Names of folders by which sets are split, and whether they are held out.
_SIDES = {"train": False, "validation": True, "valid": True, "val": True, "dev": True, "test": True}


class Layout(StrEnum):
    """How a set is laid out."""

    imagefolder = "imagefolder"
    sidecar = "sidecar"
    kohya = "kohya"
    onetrainer = "onetrainer"
    seed_csv = "seed-csv"
    zip = "zip"


@dataclass(frozen=True)
class FoundPicture:
    """A picture file. `name` is its path within what is imported; `about` what an export says of it."""

    path: Path
    name: str
    captions: tuple[str, ...] = ()
    held_out: bool | None = None
    masked: bool = False
    about: dict[str, str] = field(default_factory=dict)


def find_pictures(folder: Path, layout: Layout | None) -> tuple[Layout, list[FoundPicture]]:
    """All pictures of a folder, and the layout that it has.

    Raises:
        InvalidInput: its metadata is broken, it names a file outside, or it is not in the layout that was told.
    """
    chosen = layout or _recognised(folder)
    try:
        samples = list(_samples(folder, chosen))
    except OSError as error:
        raise InvalidInput(f"cannot read {folder} ({error.strerror})") from None
    if not samples:
        raise InvalidInput(f"{folder} has no pictures that can be read as {chosen}")
    about = _attribution(folder)
    root = folder.resolve()
    found = [_found(each, root, about) for each in samples]
    return chosen, found


def _recognised(folder: Path) -> Layout:
    if places := _with_metadata(folder):
        first = places[0]
        is_seeds = not (first / METADATA).is_file() and "image_path" in _columns(first / CSV)
        return Layout.seed_csv if is_seeds else Layout.imagefolder
    if any(_is_repeated(_inside(place, folder)) for place in _folders(folder)):
        return Layout.kohya
    return Layout.onetrainer if any(folder.rglob("*-masklabel.png")) else Layout.sidecar


def _folders(folder: Path) -> list[Path]:
    """It and all below that may hold pictures of the set."""
    found = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    return sorted(place for place in found if not _is_left(_inside(place, folder)))


def _inside(place: Path, folder: Path) -> tuple[str, ...]:
    return place.relative_to(folder).parts


def _is_left(inside: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part in ("__MACOSX", _MASKS) for part in inside)


def _with_metadata(folder: Path) -> list[Path]:
    """The uppermost folders that have metadata."""
    found = [place for place in _folders(folder) if has_metadata(place)]
    return [place for place in found if not any(other in place.parents for other in found)]


def _columns(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from None


def _samples(folder: Path, layout: Layout) -> Iterator[Sample]:
    by_metadata = layout in (Layout.imagefolder, Layout.seed_csv)
    for place in _with_metadata(folder) if by_metadata else _folders(folder):
        inside = _inside(place, folder)
        if layout is not Layout.kohya or _is_repeated(inside):
            side = next((_SIDES[part] for part in inside if part in _SIDES), None)
            yield from samples_in(place, side, PICTURES, sidecars=not by_metadata)


def _is_repeated(inside: tuple[str, ...]) -> bool:
    return any(_REPEATS.match(part) for part in inside)


def _found(sample: Sample, root: Path, about: dict[str, dict[str, str]]) -> FoundPicture:
    path = sample.path.resolve()
    if not path.is_relative_to(root):
        raise InvalidInput(f"{sample.path} is outside of {root}; only what lies within is imported")
    name = path.relative_to(root).as_posix()
    return FoundPicture(
        path, name, sample.captions, sample.held_out, sample.mask is not None, about.get(name, {})
    )


def _attribution(folder: Path) -> dict[str, dict[str, str]]:
    """What our own exports say of their pictures, by the pictures' paths."""
    try:
        with (folder / ATTRIBUTION).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    plain = [{str(key): unguarded(str(text or "")) for key, text in row.items()} for row in rows]
    return {row["file"]: row for row in plain if "file" in row}


def guarded(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "'")) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text[:1] == "'" and guarded(text[1:]) == text else text
