"""Writes a training set into an empty folder, in one of the layouts.

| layout | files |
|---|---|
| imagefolder | `train/x.png`, `train/metadata.jsonl` |
| sidecar | `train/x.png`, `train/x.txt` |
| kohya | `train/10_trigger/x.png`, `train/10_trigger/x.txt`; `validation/1_trigger/…` |
| onetrainer | `train/x.png`, `train/x.txt`, `train/x-masklabel.png` |
| seed-csv | `metadata.csv` (`image_path`, `prompt`), `train/x.png` |

Masks lie in `masks` beside their pictures, as trainers take all that lies in a picture's own folder for pictures; OneTrainer's
alone stand there. `validation` beside `train` where anything is held out. All have `ATTRIBUTION.csv` and `dataset.toml`, by which they can be
imported again.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from itemforge.dataset.importing.finding import ATTRIBUTION, Layout, guarded
from itemforge.dataset.layouts import CSV, SPLITS
from itemforge.dataset.manifest import MANIFEST
from itemforge.dataset.metadata import METADATA
from itemforge.dataset.ready import Ready
from itemforge.dataset.store import Source
from itemforge.errors import InvalidInput


@dataclass(frozen=True)
class Exported:
    """A picture on its way out. `name` is its file's without an ending; `source` the best place where it was seen."""

    ready: Ready
    name: str
    item: str
    source: Source | None

    @property
    def split(self) -> str:
        return SPLITS[self.ready.held_out]


@dataclass(frozen=True)
class Options:
    """`repeats` is kohya's, of the training pictures; `trigger` names its folders."""

    masks: bool = False
    repeats: int = 10
    trigger: str = ""


def write_layout(
    dataset: Path,
    items: Sequence[Exported],
    out: Path,
    layout: Layout,
    options: Options,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write all files. `tell` hears how many pictures are written.

    Raises:
        InvalidInput: a picture of the dataset is missing.
        OSError: the folder cannot be written.
    """
    places: list[tuple[Exported, Path]] = []
    for done, each in enumerate(items, 1):
        place = _folder(each, layout, options) / f"{each.name}.png"
        _copy(dataset / each.ready.picture, out / place)
        if options.masks or layout is Layout.onetrainer:
            _copy(dataset / each.ready.mask, out / _mask(place, layout))
        if layout in (Layout.sidecar, Layout.kohya, Layout.onetrainer):
            (out / place).with_suffix(".txt").write_text(each.ready.text, encoding="utf-8")
        places.append((each, place))
        tell(done, len(items))
    if layout is Layout.imagefolder:
        _write_metadata(out, places, options.masks)
    elif layout is Layout.seed_csv:
        rows = [(place.as_posix(), each.ready.text) for each, place in places]
        _write_csv(out / CSV, ("image_path", "prompt"), rows)
    _write_attribution(out, places)
    shutil.copyfile(dataset / MANIFEST, out / MANIFEST)


def _folder(each: Exported, layout: Layout, options: Options) -> Path:
    if layout is not Layout.kohya:
        return Path(each.split)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", options.trigger).strip("-") or "style"
    return Path(each.split) / f"{1 if each.ready.held_out else options.repeats}_{name}"


def _mask(place: Path, layout: Layout) -> Path:
    if layout is Layout.onetrainer:
        return place.with_name(f"{place.stem}-masklabel.png")
    return place.parent / "masks" / place.name


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        raise InvalidInput(
            f"{source} is missing; `itemforge data process {source.parents[2]}` makes it again"
        ) from None


def _write_metadata(out: Path, places: Sequence[tuple[Exported, Path]], masks: bool) -> None:
    for split in SPLITS:
        lines = []
        for each, place in places:
            if each.split == split:
                line = {"file_name": place.name, "text": each.ready.text, "item": each.item}
                if masks:
                    line["mask_file_name"] = f"masks/{place.name}"
                lines.append(json.dumps(line) + "\n")
        if lines:
            (out / split / METADATA).write_text("".join(lines), encoding="utf-8")


def _write_attribution(out: Path, places: Sequence[tuple[Exported, Path]]) -> None:
    """Whose pictures these are; rows in the order of the files."""
    rows = []
    for each, place in places:
        source = each.source
        told = (source.url, source.page, source.uploader, source.licence) if source else ("", "", "", "")
        rows.append((place.as_posix(), each.item, *told, each.ready.sha256))
    columns = ("file", "item", "source", "page", "uploader", "licence", "sha256")
    _write_csv(out / ATTRIBUTION, columns, [tuple(map(guarded, row)) for row in sorted(rows)])


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
