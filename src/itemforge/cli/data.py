"""`itemforge data`: training sets from pictures that others made."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from itemforge.cli.steps import steps_shown
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

    with ExitStack() as stack:
        shown: dict[str, Callable[[int], None]] = {}

        def tell(name: str, done: int, of: int) -> None:
            if name not in shown:
                stack.close()  # the bar of the set before
                shown[name] = stack.enter_context(steps_shown(name, of))
            shown[name](done)

        built = build_icons(out, packages or load(LogSettings).home / "cache" / "packages", size, tell)
    for folder, count in built.pictures.items():
        typer.echo(f"{out / folder}: {count} pictures")
    for why in built.failed:
        typer.echo(f"left out: {why}", err=True)
    typer.echo(f"licences and authors: {out / 'ATTRIBUTION.md'}")
