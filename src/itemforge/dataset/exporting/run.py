"""Exports what is approved of a dataset, and says what is left out and why."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from itemforge.dataset.exporting.layouts import Exported, Options, write_layout
from itemforge.dataset.exporting.placing import place_archive, place_folder
from itemforge.dataset.importing.finding import Layout
from itemforge.dataset.manifest import Manifest
from itemforge.dataset.naming import file_names, item_name
from itemforge.dataset.ready import APPROVED, choose
from itemforge.dataset.steps.processing import Tell
from itemforge.dataset.store import Source, Store
from itemforge.dataset.store_captions import CaptionState
from itemforge.errors import InvalidInput


@dataclass(frozen=True)
class Summary:
    """What was exported; `left` counts by reason what was not. `unlicensed` have no known licence."""

    train: int
    validation: int
    unlicensed: int
    left: Counter[str] = field(default_factory=Counter)


def export(
    store: Store,
    manifest: Manifest,
    out: Path,
    layout: Layout,
    *,
    states: Collection[CaptionState] = APPROVED,
    masks: bool = False,
    repeats: int = 10,
    tell: Tell = lambda stage, done, of: None,
) -> Summary:
    """Write the training set to `out`, a folder, or a file for `zip`.

    Raises:
        InvalidInput: there is nothing to export, or a picture is missing.
        ConfigurationError: `out` has something that no export made.
        OSError: it cannot be written.
    """
    chosen, left = choose(store, manifest.look(), states)
    if not chosen:
        why = ", ".join(f"{reason}: {count}" for reason, count in left.most_common()) or "it has no pictures"
        raise InvalidInput(
            f"nothing of {store.folder} can be exported ({why}); approve captions, or say --state"
        )
    sources = {each.sha256: store.sources(each.sha256) for each in chosen}
    items = {sha256: item_name(found) for sha256, found in sources.items()}
    names = file_names(items)
    exported = [
        Exported(each, names[each.sha256], items[each.sha256], best_source(sources[each.sha256]))
        for each in chosen
    ]
    options = Options(masks, repeats, manifest.trigger)

    def write(folder: Path) -> None:
        inside = Layout.imagefolder if layout is Layout.zip else layout
        write_layout(
            store.folder, exported, folder, inside, options, lambda done, of: tell("pictures", done, of)
        )

    (place_archive if layout is Layout.zip else place_folder)(out, write)
    held = sum(each.held_out for each in chosen)
    unlicensed = sum(not (each.source and each.source.licence) for each in exported)
    return Summary(len(chosen) - held, held, unlicensed, left)


def best_source(sources: list[Source]) -> Source | None:
    """The place that says most of who made a picture."""
    return max(sources, key=lambda each: (bool(each.licence), bool(each.uploader)), default=None)
