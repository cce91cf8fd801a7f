"""`itemforge keys`: make, list and revoke API keys, in the database itself: no gateway needs to run."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from itemforge.settings import GatewaySettings, load

if TYPE_CHECKING:
    from itemforge.jobs.database import Database

app = typer.Typer(no_args_is_help=True)
T = TypeVar("T")


class RoleName(StrEnum):
    """The roles again: `jobs.keys` is not imported before a command needs it."""

    USER = "user"
    WORKER = "worker"
    MONITOR = "monitor"
    ADMIN = "admin"


class ContentName(StrEnum):
    """The same of `jobs.keys.Content`."""

    ALLOW = "allow"
    FLAG = "flag"
    REFUSE = "refuse"


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is, or what for; for people.")],
    role: Annotated[
        RoleName,
        typer.Option(help="user: draw; worker: only work; monitor: read /metrics; admin: everything."),
    ],
    rate: Annotated[
        int | None,
        typer.Option(help="Submissions a minute; 0: any number. Default: ITEMFORGE_RATE_LIMIT.", min=0),
    ] = None,
    quota: Annotated[
        int | None, typer.Option(help="Images a day; 0: any number. Default: ITEMFORGE_QUOTA.", min=0)
    ] = None,
    content: Annotated[
        ContentName | None,
        typer.Option(
            help="Prompts that ITEMFORGE_BLOCK_LIST forbids: drawn, drawn and marked, or refused. "
            "Default: ITEMFORGE_CONTENT."
        ),
    ] = None,
) -> None:
    """Make a key in the database of DATABASE_URL and print it. It is shown this once and never again.

    Example: itemforge keys create --name "studio laptop" --role user --quota 500
    """
    from itemforge.jobs import keys

    role_of_key = keys.Role(role)
    policy = keys.Content(content) if content else None
    key, secret = _on_database(
        lambda db: keys.create(db, name, role_of_key, rate=rate, quota=quota, content=policy)
    )
    typer.echo(secret)
    typer.echo(
        f"key {key.id} ({key.role}, {key.name}): keep it safe, it cannot be shown again. "
        f"Send it as Authorization: Bearer, or set ITEMFORGE_API_KEY. "
        f"To end it: itemforge keys revoke {key.id}",
        err=True,
    )


@app.command("list")
def list_keys() -> None:
    """Show the keys of the database of DATABASE_URL: who, what for, when used. Never the keys themselves."""
    from itemforge.jobs import keys

    table = Table(
        "id", "name", "role", "rate", "quota", "content", "created", "last used", "revoked", box=None
    )
    for key in _on_database(keys.all_keys):
        table.add_row(
            key.id,
            key.name,
            key.role.value,
            _limit(key.rate),
            _limit(key.quota),
            key.content.value if key.content else "default",
            _moment(key.created_at),
            _moment(key.last_used_at),
            _moment(key.revoked_at),
        )
    # A pipe has no width: nothing may be cut there.
    console = Console(markup=False)
    Console(width=None if console.is_terminal else 1000, markup=False).print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as itemforge keys list shows it.")],
) -> None:
    """End a key for good. Gateways refuse it within seconds (ITEMFORGE_KEY_CACHE)."""
    from itemforge.jobs import keys

    key = _on_database(lambda db: keys.revoke(db, key_id))
    typer.echo(f"key {key.id} ({key.role}, {key.name}) is revoked since {_moment(key.revoked_at)}")


def _on_database(work: "Callable[[Database], Awaitable[T]]") -> T:
    """Do `work` on the database of DATABASE_URL, which is brought to the newest schema first."""

    async def done() -> T:
        from itemforge.jobs.database import Database
        from itemforge.jobs.migrate import upgrade

        db = Database(load(GatewaySettings).database_url)
        try:
            await upgrade(db)
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(done())


def _limit(value: int | None) -> str:
    return {None: "default", 0: "any"}.get(value, str(value))


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z" if moment else ""
