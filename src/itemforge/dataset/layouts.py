"""Captioned pictures on disk, in whichever layout they came.

| layout | pictures | captions |
|---|---|---|
| ImageFolder | named by `file_name` | `metadata.jsonl`, keys `file_name`, `text`, or `captions` (a list of phrasings) |
| the original notebook's | named by `image_path` | `metadata.csv`, columns `image_path`, `prompt` (or `file_name`, `text`) |
| sidecars | every picture of the folder | `x.txt` (or `x.caption`) beside `x.png`; each line is a phrasing |

A mask is a PNG, white where it matters: `x-masklabel.png` beside the picture, or `masks/x.png`. Folders `train` and
`validation` below, each in a layout or named by one file of metadata, are a split that somebody made on purpose.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from itemforge.dataset.metadata import METADATA, read_lines
from itemforge.errors import InvalidInput

CSV = "metadata.csv"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MASK = "-masklabel"
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Sample:
    """One picture. No captions means that there is none, which the doctor refuses."""

    path: Path
    captions: tuple[str, ...]
    mask: Path | None
    #: True for validation, False for training, None where nobody has said.
    held_out: bool | None = None
    #: What stands on one side together; None where it has to be found by looking.
    group: str | None = None


def read_layout(folder: Path) -> list[Sample]:
    """All samples of a folder, in the order of its metadata, or of their names.

    Raises:
        InvalidInput: the folder holds none, or its metadata is broken.
    """
    if not folder.is_dir():
        raise InvalidInput(f"there is no folder {folder}")
    if has_metadata(folder) or not (folder / SPLITS[0]).is_dir():
        found = list(samples_in(folder, None))
    else:
        split = [name for name in SPLITS if (folder / name).is_dir()]
        found = [each for name in split for each in samples_in(folder / name, name == SPLITS[1])]
    if not found:
        raise InvalidInput(
            f"{folder} has no captioned pictures: neither {METADATA} nor {CSV}, nor pictures with a .txt beside each"
        )
    return found


def has_metadata(folder: Path) -> bool:
    return (folder / METADATA).is_file() or (folder / CSV).is_file()


def samples_in(
    folder: Path, held_out: bool | None, suffixes: tuple[str, ...] = SUFFIXES, sidecars: bool = False
) -> Iterator[Sample]:
    """The samples of one folder by its metadata, or, without or with `sidecars`, its pictures.

    Raises:
        InvalidInput: its metadata is broken.
    """
    if sidecars or not has_metadata(folder):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes and not path.stem.endswith(_MASK):
                yield _sample(path, _sidecar(path), held_out)
    elif (folder / METADATA).is_file():
        for line in read_lines(folder):
            yield _sample(folder / line.file_name, line.phrasings, _side(line.file_name, held_out))
    else:
        yield from _csv(folder, held_out)


def sample_of(picture: Path) -> Sample:
    """One picture with what lies beside it.

    Raises:
        InvalidInput: its caption cannot be read.
    """
    return _sample(picture, _sidecar(picture), None)


def _side(name: str, held_out: bool | None) -> bool | None:
    """What a path that begins with the name of a split says, where its folder says nothing."""
    first = name.replace("\\", "/").split("/")[0]
    return held_out if held_out is not None or first not in SPLITS else first == SPLITS[1]


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
                    inside if inside.is_file() else folder / given.name,
                    [row[text] or ""],
                    _side(row[name], held_out),
                )
            return
    raise InvalidInput(
        f"{path} needs the columns image_path and prompt, or file_name and text; it has {sorted(columns)}"
    )


def _sidecar(picture: Path) -> list[str]:
    for ending in (".txt", ".caption"):
        path = picture.with_suffix(ending)
        try:
            return path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read {path}: {error}") from error
    return []


def _sample(path: Path, captions: list[str], held_out: bool | None) -> Sample:
    masks = (path.with_name(f"{path.stem}{_MASK}.png"), path.parent / "masks" / f"{path.stem}.png")
    mask = next((each for each in masks if each.is_file()), None)
    return Sample(path, tuple(text for text in map(str.strip, captions) if text), mask, held_out)
