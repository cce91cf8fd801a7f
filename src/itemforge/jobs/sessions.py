"""Sessions of browsers: a random cookie each, of which the database knows only the SHA-256.

A session stands for the key that it was made from and can do what that key can; it ends with the key, at its time, or
when its holder signs out.
"""

import secrets

from sqlalchemy import delete, insert, select

from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.keys import digest
from itemforge.jobs.tables import sessions

_BYTES = 32
_DAY = 86400.0


async def begin(db: Database, key_digest: str, days: float) -> str:
    """A new session of the key with this digest; the cookie, which nobody can read again."""
    cookie = secrets.token_urlsafe(_BYTES)
    async with db.write(single=True) as write:
        await write.conn.execute(
            insert(sessions).values(
                hash=digest(cookie), key_hash=key_digest, created_at=now(), expires_at=now(days * _DAY)
            )
        )
    return cookie


async def key_of(db: Database, session_digest: str) -> str | None:
    """The digest of the key that a session stands for; None when there is no such session any more."""
    live = select(sessions.c.key_hash).where(sessions.c.hash == session_digest, sessions.c.expires_at > now())
    async with db.read() as conn:
        found: str | None = (await conn.execute(live)).scalar_one_or_none()
        return found


async def end(db: Database, session_digest: str) -> None:
    """Sign this browser out."""
    async with db.write(single=True) as write:
        await write.conn.execute(delete(sessions).where(sessions.c.hash == session_digest))


async def end_all(db: Database, key_digest: str) -> int:
    """Sign out every browser that came in with this key; how many there were."""
    async with db.write(single=True) as write:
        ended = await write.conn.execute(delete(sessions).where(sessions.c.key_hash == key_digest))
        return int(ended.rowcount)


async def forget_expired(db: Database) -> None:
    """Remove sessions whose time is over."""
    async with db.write(single=True) as write:
        await write.conn.execute(delete(sessions).where(sessions.c.expires_at <= now()))
