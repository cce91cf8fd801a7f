"""`itemforge data process`: from pictures as they came to pictures that a model can learn from."""

from pathlib import Path
from typing import Annotated

import typer

from itemforge.cli.steps import stages_shown

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="folder of the dataset")]


def process(
    folder: Folder,
    report: Annotated[
        bool, typer.Option("--report", help="write DIR/processed/report.html: before and after")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=0, help="processes at once; default: one for each core")
    ] = None,
) -> None:
    """Put all pictures on white, find copies and variants, and choose what is held out for validation.

    Size, margin and the like stand in DIR/dataset.toml. Repeat the command to go on after an interruption; what is
    made already is left as it is.
    """
    from itemforge.cli.crawl import INTERRUPTED
    from itemforge.dataset.manifest import open_manifest
    from itemforge.dataset.processed import FOLDER
    from itemforge.dataset.steps.processing import REPORT, process_dataset
    from itemforge.dataset.store import open_existing

    try:
        with open_existing(folder) as store, stages_shown() as tell:
            done = process_dataset(store, open_manifest(folder), processes, tell, report=report)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"{done.worked} of {done.pictures} pictures were new to this recipe")
    for (state, reason), count in sorted(done.reasons.items(), key=lambda each: (-each[1], each[0])):
        typer.echo(f"{_STATES[state]}{f', {reason}' if reason else ''}: {count}")
    typer.echo(
        f"{done.kept} are for training and validation ({done.held_out} of them held out), {done.variants} of them "
        f"variants of others; {done.copies} more are copies"
    )
    if report:
        typer.echo(f"the report is {folder / FOLDER / REPORT}")


_STATES = {"ok": "made", "flagged": "made, but flagged", "aside": "set aside"}
