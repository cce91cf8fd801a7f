"""`/v1/generations/{id}/events`: the history of a request and what happens to it, as server-sent events.

`state` and `progress` come from the database with their ids, so a client that lost the connection goes on
where it was. `preview` passes by. The stream ends with the request.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from itemforge.contract import Status
from itemforge.errors import DatabaseUnavailable
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, image_url
from itemforge.gateway.generations import found
from itemforge.gateway.keyring import Caller
from itemforge.gateway.problems import documented
from itemforge.jobs import events, requests
from itemforge.jobs.records import Event
from itemforge.jobs.records import Request as JobRequest

log = structlog.get_logger(__name__)
router = APIRouter(tags=["generations"])

_LOOK = 5.0  # seconds after which the database is asked although no signal came
_WATCHED = 20.0  # seconds for which one sign of a viewer asks workers for previews
PING = 15  # seconds between comments that keep proxies from closing a quiet stream
STALLED = 30.0  # seconds after which a client that takes nothing is given up
_MAX_ID = 2**63 - 1
_EXAMPLE = """id: 41
event: state
data: {"id": "5f0c…", "status": "Processing", "attempt": 1, "image_url": null, "error": null}

id: 42
event: progress
data: {"step": 12, "steps": 25, "image": 0}

event: preview
data: {"image": 0, "jpeg_base64": "/9j/4AAQ…"}
"""


@router.get(
    "/v1/generations/{request_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {"content": {"text/event-stream": {"example": _EXAMPLE}}},
        204: {"description": "the request has ended and all was told: do not connect again"},
        **documented(401, 404, 422, 503),
    },
)
async def stream_events(
    request_id: UUID,
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="go on after this event")] = None,
) -> Response:
    """Events of a generation until it ends."""
    row = await found(gateway, request_id, caller.sees)
    last = event_number(last_event_id)
    if last and row.status.terminal and not await events.after(gateway.db, request_id, last, limit=1):
        return Response(status_code=204)  # by the standard, the browser then stops to reconnect
    return EventSourceResponse(
        _events(gateway, caller, row, last, gateway.base_url(request)), ping=PING, send_timeout=STALLED
    )


def event_number(last_event_id: str | None) -> int:
    """The id to go on after; what is no id of ours means from the beginning."""
    if last_event_id is None or not (last_event_id.isascii() and last_event_id.isdigit()):
        return 0
    return min(int(last_event_id[:20]), _MAX_ID)


async def _events(
    gateway: Gateway, caller: Caller, row: JobRequest, last: int, base_url: str
) -> AsyncIterator[ServerSentEvent]:
    refresh_at = 0.0
    with gateway.db.signals.watch(row.id) as watch:
        while not gateway.db.signals.closed and await gateway.keyring.still_good(caller):
            try:
                batch = await events.after(gateway.db, row.id, last)
            except DatabaseUnavailable as error:
                log.warning("stream_held", request_id=str(row.id), reason=str(error))
                await watch.wait(_LOOK)
                continue
            for event in batch:
                last = event.id
                yield await _told(gateway, row, event, base_url)
                if event.type == "state" and Status(event.data["status"]).terminal:
                    return
            if batch:
                continue
            if row.status.terminal:
                yield _ended(row, base_url)  # its events are older than the retention
                return
            if time.monotonic() >= refresh_at:
                await _watched(gateway, row)
                refresh_at = time.monotonic() + _WATCHED / 2
            news = await watch.wait(_LOOK)
            for preview in watch.take_previews():
                shown = {"image": preview.image, "jpeg_base64": preview.jpeg_base64}
                yield ServerSentEvent(json.dumps(shown), event="preview")
            if not news:
                if (now := await _again(gateway, row)) is None:
                    return  # deleted
                row = now


async def _watched(gateway: Gateway, row: JobRequest) -> None:
    try:
        await requests.watch(gateway.db, row.id, _WATCHED)
    except DatabaseUnavailable as error:
        log.warning("stream_held", request_id=str(row.id), reason=str(error))


async def _again(gateway: Gateway, row: JobRequest) -> JobRequest | None:
    """The row as it is now; None when it was deleted; as it was while the database is away."""
    try:
        return await requests.get(gateway.db, row.id)
    except DatabaseUnavailable:
        return row


async def _told(gateway: Gateway, row: JobRequest, event: Event, base_url: str) -> ServerSentEvent:
    data: dict[str, Any] = event.data
    if event.type == "state" and data["status"] == Status.COMPLETED:
        row = await _again(gateway, row) or row
        data = {**data, "image_url": image_url(row, base_url)}
    return ServerSentEvent(json.dumps(data), event=event.type, id=str(event.id))


def _ended(row: JobRequest, base_url: str) -> ServerSentEvent:
    data = {
        "id": str(row.id),
        "status": row.status,
        "attempt": row.attempt,
        "image_url": image_url(row, base_url),
        "error": row.error,
    }
    return ServerSentEvent(json.dumps(data), event="state")
