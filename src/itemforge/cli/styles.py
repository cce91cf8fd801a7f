"""`itemforge styles`: what a style's name means in the registry."""

import asyncio
from typing import Annotated

import typer

from itemforge.settings import StorageSettings, load

app = typer.Typer(no_args_is_help=True)


@app.command()
def rollback(
    style: Annotated[str, typer.Argument(help="the style's id")],
    to: Annotated[
        int | None, typer.Option(min=1, help="version; default: the one before the current")
    ] = None,
) -> None:
    """Make an earlier version of a published style the current one. Gateways follow within seconds."""
    from itemforge.storage.opening import open_store
    from itemforge.styles.registry import rollback as back

    before, now = asyncio.run(back(open_store(load(StorageSettings)), style, to))
    typer.echo(f"{style} means {style}@{now} now; it was {style}@{before}")


@app.command()
def versions(style: Annotated[str, typer.Argument(help="the style's id")]) -> None:
    """Show the published versions of a style."""
    from itemforge.storage.opening import open_store
    from itemforge.styles.registry import versions as published

    found = asyncio.run(published(open_store(load(StorageSettings)), style))
    typer.echo(", ".join(f"{style}@{version}" for version in found) or f"the registry has no style {style!r}")
