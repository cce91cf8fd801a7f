"""`itemforge db`: the database's schema."""

import asyncio

import typer

from itemforge.settings import GatewaySettings, load

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
