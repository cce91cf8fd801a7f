"""Collections: requests that somebody put together under a name. Each is its maker's alone."""

from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import Select, Update, delete, func, literal, select, update
from sqlalchemy.exc import IntegrityError

from itemforge.errors import InvalidInput
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.finding import visible
from itemforge.jobs.tables import collection_items, collections, requests


@dataclass(frozen=True)
class Collection:
    """`count`: requests in it that are not deleted."""

    id: UUID
    name: str
    count: int
    created_at: datetime
    updated_at: datetime


async def listed(db: Database, owner: str) -> list[Collection]:
    """All of an owner's, by name."""
    async with db.read() as conn:
        rows = await conn.execute(_mine(owner).order_by(func.lower(collections.c.name), collections.c.id))
        return [Collection(*row) for row in rows]


async def get(db: Database, owner: str, collection_id: UUID) -> Collection | None:
    """None when the owner has no such collection."""
    async with db.read() as conn:
        row = (await conn.execute(_mine(owner).where(collections.c.id == collection_id))).one_or_none()
        return Collection(*row) if row is not None else None


def _mine(owner: str) -> Select[tuple[UUID, str, int, datetime, datetime]]:
    columns = collections.c
    count = (
        select(func.count())
        .select_from(collection_items.join(requests, requests.c.id == collection_items.c.request_id))
        .where(collection_items.c.collection_id == columns.id, requests.c.deleted_at.is_(None))
        .scalar_subquery()
    )
    chosen = select(columns.id, columns.name, count, columns.created_at, columns.updated_at)
    return chosen.where(columns.owner == owner)


async def create(db: Database, owner: str, name: str) -> UUID:
    """An empty one.

    Raises:
        InvalidInput: the owner has one of this name already.
    """
    new_id = uuid4()
    async with db.write(single=True) as write:
        row = {"id": new_id, "owner": owner, "name": name, "created_at": now(), "updated_at": now()}
        made = await write.conn.execute(
            write.insert(collections).values(**row).on_conflict_do_nothing().returning(collections.c.id)
        )
        if made.scalar_one_or_none() is None:
            raise _taken(name)
    return new_id


async def rename(db: Database, owner: str, collection_id: UUID, name: str) -> bool:
    """False when the owner has no such collection.

    Raises:
        InvalidInput: the owner has one of this name already.
    """
    mine = (collections.c.id == collection_id, collections.c.owner == owner)
    try:
        async with db.write(single=True) as write:
            changed = await write.conn.execute(
                update(collections).where(*mine).values(name=name, updated_at=now())
            )
            return bool(changed.rowcount)
    except IntegrityError:
        raise _taken(name) from None


def _taken(name: str) -> InvalidInput:
    return InvalidInput(f"name: you have a collection called {name!r} already; choose another name")


async def remove(db: Database, owner: str, collection_id: UUID) -> bool:
    """Delete the collection, not what is in it; False when the owner has no such collection."""
    mine = (collections.c.id == collection_id, collections.c.owner == owner)
    async with db.write(single=True) as write:
        return bool((await write.conn.execute(delete(collections).where(*mine))).rowcount)


async def put_in(db: Database, collection_id: UUID, ids: Some[UUID], sees: str | None) -> None:
    """Add those of `ids` that are `sees`'s (None: anybody's) and not deleted; again is no error."""
    table = collection_items
    chosen = select(literal(collection_id, table.c.collection_id.type), requests.c.id, now()).where(
        *visible(ids, sees)
    )
    async with db.write() as write:
        columns = ["collection_id", "request_id", "added_at"]
        await write.conn.execute(write.insert(table).from_select(columns, chosen).on_conflict_do_nothing())
        await write.conn.execute(_touched(collection_id))


async def take_out(db: Database, collection_id: UUID, ids: Some[UUID]) -> None:
    """Remove requests from it; one that is not in it is no error."""
    inside = (collection_items.c.collection_id == collection_id, collection_items.c.request_id.in_(ids))
    async with db.write() as write:
        await write.conn.execute(delete(collection_items).where(*inside))
        await write.conn.execute(_touched(collection_id))


def _touched(collection_id: UUID) -> Update:
    return update(collections).where(collections.c.id == collection_id).values(updated_at=now())


async def holding(db: Database, owner: str, request_id: UUID) -> set[UUID]:
    """The owner's collections that a request is in."""
    query = (
        select(collections.c.id)
        .join(collection_items, collection_items.c.collection_id == collections.c.id)
        .where(collections.c.owner == owner, collection_items.c.request_id == request_id)
    )
    async with db.read() as conn:
        return set((await conn.execute(query)).scalars())
