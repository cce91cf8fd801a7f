"""API keys: 256 random bits each, of which the database knows only the SHA-256.

A plain hash is enough here: a random key cannot be guessed from it as a password could.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, true, update

from itemforge.errors import InvalidInput
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.tables import api_keys

#: Makes a key recognisable, for people and for programs that look for leaked secrets.
PREFIX = "itf_"
_BITS = 256
#: Seconds between two notes of a key's use.
_USE_NOTED_EVERY = 60.0
_MAX_NAME = 100
_MAX_LIMIT = 2**31 - 1


class Role(StrEnum):
    """What a key is for. An admin may do everything."""

    USER = "user"
    WORKER = "worker"
    MONITOR = "monitor"
    ADMIN = "admin"


class Content(StrEnum):
    """What becomes of prompts that the block list forbids."""

    ALLOW = "allow"  # they are drawn as any other
    FLAG = "flag"  # they are drawn and marked
    REFUSE = "refuse"


@dataclass(frozen=True)
class Key:
    """A key without its secret. `rate` (submissions a minute), `quota` (images a day) and `content`: None leaves
    it to the gateway's settings, 0 means no limit. `use_is_old`: it is time for `note_use`."""

    id: str
    name: str
    role: Role
    rate: int | None
    quota: int | None
    content: Content | None
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    use_is_old: bool


def _columns() -> list[ColumnElement[Any]]:
    stored = [api_keys.c[name] for name in Key.__dataclass_fields__ if name != "use_is_old"]
    return [*stored, _use_is_old().label("use_is_old")]


def _use_is_old() -> ColumnElement[bool]:
    # Not by IS NULL: in RETURNING, SQLite (3.40) takes every column of a table for NOT NULL if its first is.
    return func.coalesce(api_keys.c.last_used_at < now(-_USE_NOTED_EVERY), true())


def new_secret() -> str:
    """A key as its holder sends it."""
    return PREFIX + secrets.token_urlsafe(_BITS // 8)


def digest(secret: str | bytes) -> str:
    """What the database keeps of a key."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


async def create(
    db: Database,
    name: str,
    role: Role,
    *,
    rate: int | None = None,
    quota: int | None = None,
    content: Content | None = None,
) -> tuple[Key, str]:
    """Make a key; the second value is the secret, which nobody can read again.

    Raises:
        InvalidInput: the name is empty, too long or not printable, or a limit is out of range.
    """
    name = name.strip()
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise InvalidInput(f"name must have 1 to {_MAX_NAME} printable characters")
    for limit, value in (("rate", rate), ("quota", quota)):
        if value is not None and not 0 <= value <= _MAX_LIMIT:
            raise InvalidInput(f"{limit} must be between 0 (no limit) and {_MAX_LIMIT}")
    secret = new_secret()
    async with db.write() as write:
        made = await write.conn.execute(
            insert(api_keys)
            .values(
                id=secrets.token_hex(6),
                name=name,
                role=role.value,
                hash=digest(secret),
                rate=rate,
                quota=quota,
                content=content.value if content else None,
                created_at=now(),
            )
            .returning(*_columns())
        )
        return _to_key(made.one()), secret


async def find(db: Database, key_digest: str) -> Key | None:
    """The key with this digest, revoked or not."""
    query = select(api_keys.c.hash, *_columns()).where(api_keys.c.hash == key_digest)
    async with db.read() as conn:
        row = (await conn.execute(query)).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, key_digest):
        return None
    return _to_key(row)


async def note_use(db: Database, key: Key) -> None:
    """Remember that a key is in use, about once a minute however many gateways and calls there are."""
    async with db.write() as write:
        await write.conn.execute(
            update(api_keys).where(api_keys.c.id == key.id, _use_is_old()).values(last_used_at=now())
        )


async def all_keys(db: Database) -> list[Key]:
    """Every key, the oldest first."""
    query = select(*_columns()).order_by(api_keys.c.created_at, api_keys.c.id)
    async with db.read() as conn:
        return [_to_key(row) for row in await conn.execute(query)]


async def revoke(db: Database, key_id: str) -> Key:
    """End a key for good; doing it again changes nothing.

    Raises:
        InvalidInput: there is no such key.
    """
    async with db.write() as write:
        ended = await write.conn.execute(
            update(api_keys)
            .where(api_keys.c.id == key_id)
            .values(revoked_at=func.coalesce(api_keys.c.revoked_at, now()))
            .returning(*_columns())
        )
        row = ended.one_or_none()
    if row is None:
        raise InvalidInput(f"there is no key with the id {key_id!r}; itemforge keys list shows them")
    return _to_key(row)


async def any_made(db: Database) -> bool:
    """Whether a key was ever made, even one that is revoked by now."""
    async with db.read() as conn:
        return (await conn.execute(select(api_keys.c.id).limit(1))).one_or_none() is not None


async def anybody_can_ask(db: Database) -> bool:
    """Whether a live key is there that can ask for pictures."""
    live = select(api_keys.c.id).where(
        api_keys.c.revoked_at.is_(None), api_keys.c.role.in_((Role.USER.value, Role.ADMIN.value))
    )
    async with db.read() as conn:
        return (await conn.execute(live.limit(1))).one_or_none() is not None


def _to_key(row: Row[Any]) -> Key:
    values = {name: row._mapping[name] for name in Key.__dataclass_fields__}
    content = Content(row.content) if row.content else None
    return Key(**{**values, "role": Role(row.role), "content": content, "use_is_old": bool(row.use_is_old)})
