"""Hears what other gateways committed: PostgreSQL's LISTEN on a connection of its own.

The connection is rebuilt whenever it breaks or goes silent, and then everybody looks once, because
notifications were missed meanwhile. SQLite serves one process, which needs no listener.
"""

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from itemforge.jobs.database import CHANNEL, RAW_ERRORS, Database
from itemforge.jobs.signals import Preview

log = structlog.get_logger(__name__)

_CHECK = 15.0  # seconds between signs of life on the listening connection
_PAUSE = 1.0  # seconds before a broken connection is rebuilt


async def listen(db: Database) -> None:
    """Run until cancelled."""
    while True:
        try:
            await _listen_once(db)
        except (OSError, SQLAlchemyError, _Broken, *RAW_ERRORS) as error:
            log.warning("listener_broken", reason=type(error).__name__)
        await asyncio.sleep(_PAUSE)


class _Broken(Exception):
    """The connection ended."""


async def _listen_once(db: Database) -> None:
    broken = asyncio.Event()

    def heard(_conn: object, _pid: int, _channel: str, payload: str) -> None:
        dispatch(db, payload)

    def ended(_conn: object) -> None:
        broken.set()

    async with db.engine.connect() as conn:
        raw: Any = (await conn.get_raw_connection()).driver_connection
        raw.add_termination_listener(ended)
        try:
            async with asyncio.timeout(10):
                await raw.add_listener(CHANNEL, heard)
            log.info("listener_ready")
            db.signals.wake_all()
            await _until_broken(raw, broken)
        finally:
            # A listening connection never goes back to the pool.
            raw.remove_termination_listener(ended)
            with contextlib.suppress(SQLAlchemyError):
                await conn.invalidate()
            raw.terminate()


async def _until_broken(raw: Any, broken: asyncio.Event) -> None:
    while True:
        try:
            async with asyncio.timeout(_CHECK):
                await broken.wait()
            raise _Broken
        except TimeoutError:
            async with asyncio.timeout(_CHECK):
                await raw.execute("SELECT 1")


def dispatch(db: Database, payload: str) -> None:
    """Pass one notification on; our own are known already, and foreign text is ignored."""
    try:
        origin, kind, *rest = payload.split(" ")
        if origin == db.origin:
            return
        match kind, rest:
            case "relay", []:
                db.signals.relay.set()
            case "changed", [request_id]:
                db.signals.wake(UUID(request_id))
            case "created", [owner]:
                db.signals.created(owner)
            case "preview", [request_id, image, jpeg_base64]:
                db.signals.preview(UUID(request_id), Preview(int(image), jpeg_base64))
    except ValueError:
        log.warning("notification_not_understood")
