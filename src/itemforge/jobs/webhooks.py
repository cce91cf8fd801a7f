"""Who is told of the ends of an owner's requests, and the secrets that sign what they are told.

A row with a URL is an endpoint that its owner made. Each owner has at most one row without: its secret signs
what goes to the addresses that requests bring along. Secrets are kept as they are, because they have to sign.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, case, delete, func, insert, select, update

from itemforge.contract import Status
from itemforge.errors import InvalidInput
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.tables import webhooks

#: What every secret begins with; the rest is base64 (standardwebhooks.com).
PREFIX = "whsec_"
_SECRET_BYTES = 32
#: Endpoints of one owner.
MOST = 20
#: Seconds for which a secret that was replaced signs besides the new one.
OLD_FOR = 86400.0


class EventType(StrEnum):
    """What a webhook may be told."""

    COMPLETED = "generation.completed"
    FAILED = "generation.failed"
    CANCELLED = "generation.cancelled"


#: What a test of an endpoint is called; every endpoint hears it.
TEST = "webhook.test"
TYPE_OF = {
    Status.COMPLETED: EventType.COMPLETED,
    Status.FAILED: EventType.FAILED,
    Status.CANCELLED: EventType.CANCELLED,
}


@dataclass(frozen=True)
class Webhook:
    """An endpoint, or with `url` None an owner's own row. `old_secret` is None once it signs no more."""

    id: str
    owner: str
    url: str | None
    events: tuple[str, ...]
    secret: str = field(repr=False)
    old_secret: str | None = field(repr=False)
    old_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None


def columns() -> list[ColumnElement[Any]]:
    """What to select or return for `to_webhook`."""
    old = case((webhooks.c.old_until > now(), webhooks.c.old_secret)).label("old_secret")
    until = case((webhooks.c.old_until > now(), webhooks.c.old_until)).label("old_until")
    changed = {"old_secret": old, "old_until": until}
    return [changed.get(name, webhooks.c[name]) for name in Webhook.__dataclass_fields__]


def to_webhook(row: Row[Any]) -> Webhook:
    values = {name: row._mapping[name] for name in Webhook.__dataclass_fields__}
    return Webhook(**{**values, "events": tuple(values["events"])})


def _new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _new_row(owner: str, url: str | None, events: Sequence[str]) -> dict[str, Any]:
    return {
        "id": f"wh_{secrets.token_hex(8)}",
        "owner": owner,
        "url": url,
        "events": list(events),
        "secret": _new_secret(),
        "created_at": now(),
    }


async def create(db: Database, owner: str, url: str, events: Sequence[EventType]) -> Webhook:
    """Make an endpoint.

    Raises:
        InvalidInput: the owner has `MOST` of them already.
    """
    async with db.write() as write:
        made = select(func.count()).where(webhooks.c.owner == owner, webhooks.c.url.is_not(None))
        if (await write.conn.execute(made)).scalar_one() >= MOST:
            raise InvalidInput(f"a key may have {MOST} webhooks, and has them; delete one first")
        new = insert(webhooks).values(_new_row(owner, url, events)).returning(*columns())
        return to_webhook((await write.conn.execute(new)).one())


async def own(db: Database, owner: str) -> Webhook:
    """The owner's row for the addresses that requests bring along; made at the first use."""
    query = select(*columns()).where(webhooks.c.owner == owner, webhooks.c.url.is_(None))
    async with db.read() as conn:
        row = (await conn.execute(query)).one_or_none()
    if row is None:
        async with db.write() as write:
            new = _new_row(owner, None, list(EventType))
            await write.conn.execute(write.insert(webhooks).values(new).on_conflict_do_nothing())
            row = (await write.conn.execute(query)).one()
    return to_webhook(row)


async def all_of(db: Database, owner: str | None) -> list[Webhook]:
    """The owner's endpoints (None: everybody's), the oldest first."""
    query = select(*columns()).where(*_of(owner)).order_by(webhooks.c.created_at, webhooks.c.id)
    async with db.read() as conn:
        return [to_webhook(row) for row in await conn.execute(query)]


async def get(db: Database, webhook_id: str, owner: str | None) -> Webhook | None:
    """The endpoint; None when there is none, or it is not this owner's (None: anybody's)."""
    async with db.read() as conn:
        row = (await conn.execute(select(*columns()).where(*_this(webhook_id, owner)))).one_or_none()
    return to_webhook(row) if row is not None else None


async def remove(db: Database, webhook_id: str, owner: str | None) -> bool:
    """Delete an endpoint with its deliveries; False: as `get`."""
    async with db.write(single=True) as write:
        gone = await write.conn.execute(delete(webhooks).where(*_this(webhook_id, owner)))
        return bool(gone.rowcount)


async def enable(db: Database, webhook_id: str, owner: str | None) -> Webhook | None:
    """Tell a disabled endpoint again what happens from now on; None: as `get`."""
    async with db.write(single=True) as write:
        enabled = (
            update(webhooks)
            .where(*_this(webhook_id, owner))
            .values(disabled_at=None, disabled_reason=None)
            .returning(*columns())
        )
        row = (await write.conn.execute(enabled)).one_or_none()
    return to_webhook(row) if row is not None else None


async def rotate(db: Database, webhook: Webhook) -> Webhook | None:
    """Give it a new secret; the one before signs besides for `OLD_FOR` seconds. None: it is gone."""
    async with db.write(single=True) as write:
        rotated = (
            update(webhooks)
            .where(webhooks.c.id == webhook.id)
            .values(old_secret=webhooks.c.secret, old_until=now(OLD_FOR), secret=_new_secret())
            .returning(*columns())
        )
        row = (await write.conn.execute(rotated)).one_or_none()
    return to_webhook(row) if row is not None else None


def _of(owner: str | None) -> list[ColumnElement[bool]]:
    endpoints: list[ColumnElement[bool]] = [webhooks.c.url.is_not(None)]
    return endpoints if owner is None else [*endpoints, webhooks.c.owner == owner]


def _this(webhook_id: str, owner: str | None) -> list[ColumnElement[bool]]:
    return [webhooks.c.id == webhook_id, *_of(owner)]
