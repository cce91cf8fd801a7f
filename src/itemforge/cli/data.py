"""`itemforge data`: training sets from pictures that others made."""

from pathlib import Path
from typing import Annotated

import typer

from itemforge.cli.steps import stages_shown
from itemforge.settings import LogSettings, load

app = typer.Typer(no_args_is_help=True)


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
def doctor(config: Annotated[Path, typer.Option(help="TOML file of `itemforge train lora`")]) -> None:
    """Look at a training set before any GPU time is spent on it; exit code 64 when it is not ready."""
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
