"""Captioned pictures on disk, in whichever layout they came.

| layout | pictures | captions |
|---|---|---|
| ImageFolder | named by `file_name` | `metadata.jsonl`, keys `file_name`, `text`, or `captions` (a list of phrasings) |
| the original notebook's | named by `image_path` | `metadata.csv`, columns `image_path`, `prompt` (or `file_name`, `text`) |
| sidecars | every picture of the folder | `x.txt` beside `x.png`; each line is a phrasing |

A mask is a PNG, white where it matters: `x-masklabel.png` beside the picture, or `masks/x.png`. Folders `train` and
`validation` below, each in a layout, are a split that somebody made on purpose.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from itemforge.errors import InvalidInput
from itemforge.training.pictures import METADATA, read_lines

CSV = "metadata.csv"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MASK = "-masklabel"
_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Sample:
    """One picture. No captions means that there is none, which the doctor refuses."""

    path: Path
    captions: tuple[str, ...]
    mask: Path | None
    #: True for validation, False for training, None where nobody has said.
    held_out: bool | None = None


def read_samples(folder: Path) -> list[Sample]:
    """All samples of a folder, in the order of its metadata, or of their names.

    Raises:
        InvalidInput: the folder holds none, or its metadata is broken.
    """
    if not folder.is_dir():
        raise InvalidInput(f"there is no folder {folder}")
    if all((folder / name).is_dir() for name in _SPLITS):
        found = [each for name in _SPLITS for each in _layout(folder / name, name == "validation")]
    else:
        found = list(_layout(folder, None))
    if not found:
        raise InvalidInput(
            f"{folder} has no captioned pictures: neither {METADATA} nor {CSV}, nor pictures with a .txt beside each"
        )
    return found


def _layout(folder: Path, held_out: bool | None) -> Iterator[Sample]:
    if (folder / METADATA).is_file():
        for line in read_lines(folder):
            yield _sample(folder / line.file_name, line.phrasings, held_out)
    elif (folder / CSV).is_file():
        yield from _csv(folder, held_out)
    else:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _SUFFIXES and not path.stem.endswith(_MASK):
                yield _sample(path, _sidecar(path.with_suffix(".txt")), held_out)


def _csv(folder: Path, held_out: bool | None) -> Iterator[Sample]:
    path = folder / CSV
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    columns = set(rows[0]) if rows else set()
    for name, text in (("image_path", "prompt"), ("file_name", "text")):
        if {name, text} <= columns:
            for row in rows:
                # Paths of another machine are told by their last part.
                given = Path(row[name])
                inside = folder / given if not given.is_absolute() else folder / given.name
                yield _sample(
                    inside if inside.is_file() else folder / given.name, [row[text] or ""], held_out
                )
            return
    raise InvalidInput(
        f"{path} needs the columns image_path and prompt, or file_name and text; it has {sorted(columns)}"
    )


def _sidecar(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error


def _sample(path: Path, captions: list[str], held_out: bool | None) -> Sample:
    masks = (path.with_name(f"{path.stem}{_MASK}.png"), path.parent / "masks" / f"{path.stem}.png")
    mask = next((each for each in masks if each.is_file()), None)
    return Sample(path, tuple(text for text in map(str.strip, captions) if text), mask, held_out)
