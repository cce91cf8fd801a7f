"""`itemforge data import` and `export`: between a dataset and the layouts of trainers."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from itemforge.cli.process import Folder
from itemforge.cli.steps import stages_shown
from itemforge.dataset.importing.finding import Layout
from itemforge.errors import ConfigurationError

if TYPE_CHECKING:
    from itemforge.dataset.store_captions import CaptionState


class StateName(StrEnum):
    """Who has seen a caption."""

    auto = "auto"
    edited = "edited"
    approved = "approved"
    rejected = "rejected"


def bring(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the dataset; made if it is new")],
    places: Annotated[
        list[Path], typer.Argument(metavar="FROM...", help="folders, zip archives or single pictures")
    ],
    layout: Annotated[
        Layout | None, typer.Option("--format", help="the layout; found out if it is not told")
    ] = None,
    state: Annotated[StateName, typer.Option(help="of the captions that come")] = StateName.approved,
    licence: Annotated[str, typer.Option(help="of the pictures, where nothing says it")] = "",
) -> None:
    """Bring pictures and captions into a dataset: folders of pictures, ImageFolders, exports of ItemForge and others.

    The captions' trigger and tail are taken off, and what is between is kept. A new dataset gets the trigger and tail of
    what it imports.

    itemforge data import items old-set/ more.zip
    """
    from itemforge.dataset.importing.run import import_all
    from itemforge.dataset.store import open_store

    try:
        with open_store(folder) as store, stages_shown() as tell:
            done = import_all(store, places, layout=layout, state=state.value, licence=licence, tell=tell)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written ({error.strerror or error})") from None
    typer.echo(f"{done.pictures} pictures found ({', '.join(sorted(set(done.layouts)))}), {done.new} new")
    typer.echo(f"{done.captions} captions taken, {state.value}")
    if done.look:
        typer.echo(f"{folder / 'dataset.toml'}: trigger {done.look.trigger!r}, tail {done.look.tail!r}")
    notes = (
        (done.kept, "have another caption by a person already, which stays"),
        (done.silent, "captions say nothing beside trigger and tail"),
        (done.more_lines, "have more captions; the first one is taken"),
        (done.masks, "have a mask, which is made anew by `itemforge data process`"),
    )
    for count, text in notes:
        if count:
            typer.echo(f"{count} {text}")
    for reason, count in done.left.most_common():
        typer.echo(f"not taken, {reason}: {count}")


def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="folder that is written; of zip, the file")],
    layout: Annotated[Layout, typer.Option("--format", help="for which trainer")] = Layout.imagefolder,
    state: Annotated[
        str, typer.Option(help="captions of these states, with commas; all: all but the rejected ones")
    ] = "approved",
    masks: Annotated[bool, typer.Option("--masks", help="with masks; OneTrainer's has them always")] = False,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="of kohya's training folder")] = 10,
) -> None:
    """Write the training set for a trainer: processed pictures, captions as dataset.toml says now, the split.

    itemforge data export items --out items-kohya --format kohya
    """
    from itemforge.dataset.exporting.run import export as run
    from itemforge.dataset.manifest import open_manifest
    from itemforge.dataset.store import open_existing

    target = out.with_name(f"{out.name}.zip") if layout is Layout.zip and out.suffix != ".zip" else out
    try:
        with open_existing(folder) as store, stages_shown() as tell:
            done = run(
                store,
                open_manifest(folder),
                target,
                layout,
                states=_states(state),
                masks=masks,
                repeats=repeats,
                tell=tell,
            )
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written ({error.strerror or error})") from None
    typer.echo(f"{target}: {done.train} pictures for training, {done.validation} for validation")
    for reason, count in done.left.most_common():
        typer.echo(f"left out, {reason}: {count}")
    if done.unlicensed:
        typer.echo(f"{done.unlicensed} have no known licence (ATTRIBUTION.csv); game art stays its owner's")


def _states(text: str) -> "tuple[CaptionState, ...]":
    from itemforge.dataset.store_captions import CaptionState as States

    known: tuple[CaptionState, ...] = get_args(States)
    if text == "all":
        return tuple(each for each in known if each != "rejected")
    told = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in told if word not in known]
    if unknown or not told:
        raise ConfigurationError(f"--state {text} is none of {', '.join(known)}, all")
    return tuple(each for each in known if each in told)
