"""To wait for a request's end inside a call."""

import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from itemforge.errors import DatabaseUnavailable
from itemforge.gateway.context import Gateway
from itemforge.gateway.keyring import Caller
from itemforge.gateway.problems import Refusal
from itemforge.jobs import requests
from itemforge.jobs.records import Request

log = structlog.get_logger(__name__)

#: Seconds after which the database is asked, and the caller looked after, although no signal came.
_LOOK = 5.0


async def until_ended(
    gateway: Gateway, caller: Caller, request_id: UUID, seconds: float, left: Callable[[], Awaitable[bool]]
) -> Request | None:
    """The request when it has ended, or None when the caller `left`; nothing is cancelled by either.

    Raises:
        Refusal: 504, it goes on after `seconds`; 503, the gateway stops; 401, the key was revoked meanwhile;
            404, the request was deleted.
    """
    end = time.monotonic() + seconds
    with gateway.db.signals.watch(request_id) as watch:
        while True:
            row = await _look(gateway, request_id)
            if row is not None and row.status.terminal:
                return row
            if await left():
                return None
            if not await gateway.keyring.still_good(caller):
                raise Refusal(401, "The key was revoked.", headers={"WWW-Authenticate": "Bearer"})
            if gateway.db.signals.closed:
                raise Refusal(503, _goes_on(request_id, "the gateway stops"), headers={"Retry-After": "2"})
            if (rest := end - time.monotonic()) <= 0:
                raise Refusal(504, _goes_on(request_id, f"it has not ended within {seconds:g} s"))
            await watch.wait(min(_LOOK, rest))


async def _look(gateway: Gateway, request_id: UUID) -> Request | None:
    """The row; None while the database is away."""
    try:
        row = await requests.get(gateway.db, request_id)
    except DatabaseUnavailable as error:
        log.warning("wait_held", request_id=str(request_id), reason=str(error))
        return None
    if row is None:
        raise Refusal(404, f"The generation {request_id} was deleted.")
    return row


def _goes_on(request_id: UUID, why: str) -> str:
    return (
        f"The generation {request_id} goes on, but {why}: look at GET /v1/generations/{request_id}, cancel it there, "
        "or send this call again with the same Idempotency-Key to wait on."
    )
