"""Which requests somebody likes: a mark of theirs, whosever the request is."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import delete, literal, select

from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.finding import visible
from itemforge.jobs.tables import favourites, requests


async def add(db: Database, owner: str, ids: Collection[UUID], sees: str | None) -> None:
    """Mark those of `ids` that are `sees`'s (None: anybody's) and not deleted; again is no error."""
    chosen = select(literal(owner), requests.c.id, now()).where(*visible(ids, sees))
    async with db.write(single=True) as write:
        columns = ["owner", "request_id", "created_at"]
        await write.conn.execute(
            write.insert(favourites).from_select(columns, chosen).on_conflict_do_nothing()
        )


async def remove(db: Database, owner: str, ids: Collection[UUID]) -> None:
    """Take the marks away; none is no error."""
    mine = (favourites.c.owner == owner, favourites.c.request_id.in_(ids))
    async with db.write(single=True) as write:
        await write.conn.execute(delete(favourites).where(*mine))


async def among(db: Database, owner: str, ids: Collection[UUID]) -> set[UUID]:
    """Those of `ids` that are marked."""
    if not ids:
        return set()
    mine = (favourites.c.owner == owner, favourites.c.request_id.in_(ids))
    async with db.read() as conn:
        return set((await conn.execute(select(favourites.c.request_id).where(*mine))).scalars())
