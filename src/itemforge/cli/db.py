"""`itemforge db`: the database's schema, and what the object store can give back to it."""

import asyncio
from typing import TYPE_CHECKING

import typer

from itemforge.settings import GatewaySettings, load

if TYPE_CHECKING:  # imported where they are used: the command line starts without them
    from itemforge.gateway.reconcile import Reconciled
    from itemforge.storage.face import ObjectStore

app = typer.Typer(no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the database of DATABASE_URL to the newest schema; safe to repeat."""
    typer.echo(f"the database is at revision {asyncio.run(_upgrade(_url()))}")


@app.command()
def current() -> None:
    """Show which schema the database of DATABASE_URL has."""
    from itemforge.jobs.migrate import state

    typer.echo(f"the database is {asyncio.run(state(_url()))}")


@app.command()
def reconcile() -> None:
    """Complete requests whose pictures are stored already; run it after restoring an older database.

    Safe to repeat, and while gateways and workers run.
    """
    from itemforge.storage.opening import open_store

    settings = load(GatewaySettings)
    found = asyncio.run(_reconcile(settings.database_url, open_store(settings)))
    for request_id in found.completed:
        typer.echo(f"{request_id} is Completed now: its pictures are stored")
    for request_id in found.partly:
        typer.echo(f"{request_id} stays open: not all of its pictures are stored; it is drawn again")
    for request_id in found.leased:
        typer.echo(f"{request_id} is in a worker's hands, which ends it")
    for request_id in found.unknown:
        typer.echo(f"{request_id} has pictures in the store, but this database does not know it")
    typer.echo(f"{len(found.completed)} completed, {len(found.unknown)} known to the store only")


async def _reconcile(url: str, store: "ObjectStore") -> "Reconciled":
    from itemforge.gateway.reconcile import reconcile as reconciled
    from itemforge.jobs.database import Database

    db = Database(url)
    try:
        return await reconciled(db, store)
    finally:
        await db.close()


def _url() -> str:
    return load(GatewaySettings).database_url


async def _upgrade(url: str) -> str | None:
    from itemforge.jobs.database import Database
    from itemforge.jobs.migrate import upgrade as migrated

    db = Database(url)
    try:
        return await migrated(db)
    finally:
        await db.close()
