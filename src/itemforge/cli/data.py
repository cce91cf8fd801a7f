"""`itemforge data`: training sets from pictures that others made."""

from pathlib import Path
from typing import Annotated

import typer

from itemforge.cli.caption import caption
from itemforge.cli.crawl import crawl
from itemforge.cli.process import process
from itemforge.cli.review import review
from itemforge.cli.steps import stages_shown
from itemforge.cli.transfer import bring, export
from itemforge.errors import ConfigurationError
from itemforge.settings import LogSettings, load

app = typer.Typer(no_args_is_help=True)
app.command()(crawl)
app.command()(process)
app.command()(caption)
app.command()(review)
app.command("import")(bring)
app.command()(export)


@app.command()
def icons(
    out: Annotated[Path, typer.Option(help="folder of the training set; an interrupted run goes on there")],
    size: Annotated[int, typer.Option(min=32, max=512, help="side of the pictures in pixels")] = 64,
    packages: Annotated[
        Path | None,
        typer.Option(help="folder of npm packages (.tgz); those that it lacks are fetched with npm"),
    ] = None,
) -> None:
    """Build the starter's training set from openly licensed icon sets.

    About 800 things from five sets, copies in other colours, captions, and what evaluation may ask. Needs the
    npm client, or the packages in a folder.
    """
    from itemforge.dataset.icons import build_icons

    with stages_shown() as tell:
        built = build_icons(out, packages or load(LogSettings).home / "cache" / "packages", size, tell)
    for folder, count in built.pictures.items():
        typer.echo(f"{out / folder}: {count} pictures")
    for why in built.failed:
        typer.echo(f"left out: {why}", err=True)
    typer.echo(f"licences and authors: {out / 'ATTRIBUTION.md'}")


@app.command()
def doctor(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="folder of a dataset", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of `itemforge train lora`: looks with its base model's eyes"),
    ] = None,
) -> None:
    """Look at a dataset, or at the training set of a configuration, before any GPU time is spent on it.

    Says what is wrong and how each is mended; exit code 64 when it is not ready.
    """
    if folder is None and config is None:
        raise ConfigurationError("name a dataset's folder, or a training configuration with --config")
    if folder is not None:
        _look_at_dataset(folder)
    if config is not None:
        _look_at_training(config)


def _look_at_dataset(folder: Path) -> None:
    from itemforge.dataset import doctor as looking
    from itemforge.dataset.manifest import open_manifest
    from itemforge.dataset.store import open_existing

    with open_existing(folder) as store:
        found = looking.examine(store, open_manifest(folder))
    looking.check(found, folder)
    typer.echo(found.report())


def _look_at_training(config: Path) -> None:
    import torch

    from itemforge.engine.model import load_model
    from itemforge.styles.models import find_model
    from itemforge.training import doctor as looking
    from itemforge.training.lora import diagnose
    from itemforge.training.lora_config import read_lora_config

    told, home = read_lora_config(config), load(LogSettings).home
    model = load_model(find_model(told.base, home), torch.device("cpu"), torch.float32, home)
    with stages_shown() as tell:
        found = diagnose(told, model, lambda done, of: tell("pictures", done, of))
    looking.check(found, told.drop_bad)
    typer.echo(found.report())
    typer.echo(looking.estimate(found, told))
