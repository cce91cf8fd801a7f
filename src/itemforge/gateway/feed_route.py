"""`/v1/events`: what happens to all of the caller's requests, as server-sent events on one connection.

`state` and `progress` are those of `/v1/generations/{id}/events`, with the generation's id in each; `queue` tells
places in line. The stream goes on until the client leaves.
"""

import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from itemforge.contract import Status
from itemforge.errors import DatabaseUnavailable
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, image_url
from itemforge.gateway.keyring import Caller
from itemforge.gateway.problems import documented
from itemforge.gateway.stream import PING, STALLED, event_number
from itemforge.jobs import figures, places, requests
from itemforge.jobs.feed import Feed
from itemforge.jobs.records import Event

log = structlog.get_logger(__name__)
router = APIRouter(tags=["generations"])

_WATCHED = 20.0  # seconds for which one sign of a viewer asks workers for previews
_LINE = 2.0  # seconds between two looks at the line
_EXAMPLE = """id: 41
event: state
data: {"id": "5f0c…", "status": "Processing", "attempt": 1, "image_url": null, "error": null}

id: 42
event: progress
data: {"id": "5f0c…", "step": 12, "steps": 25, "image": 0}

event: preview
data: {"id": "5f0c…", "image": 0, "jpeg_base64": "/9j/4AAQ…"}

event: queue
data: {"workers": 2, "open": [{"id": "5f0c…", "position": 0, "eta_s": 3}, {"id": "83a1…", "position": 4, "eta_s": 21}]}
"""


@router.get(
    "/v1/events",
    response_class=EventSourceResponse,
    responses={
        200: {"content": {"text/event-stream": {"example": _EXAMPLE}}},
        **documented(401, 422, 503),
    },
)
async def stream_all_events(
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="go on after this event")] = None,
    after: Annotated[
        str | None, Query(max_length=40, description="the same, for clients that cannot set headers")
    ] = None,
    previews: Annotated[bool, Query(description="whether workers are asked for previews")] = True,
) -> Response:
    """Events of all your generations, until you leave. An event may come twice after a reconnection: of one
    generation, drop those whose id is not above the last."""
    last = event_number(last_event_id) or event_number(after)
    events = _Events(gateway, caller, gateway.base_url(request), previews)
    return EventSourceResponse(events.all(last), ping=PING, send_timeout=STALLED)


class _Events:
    def __init__(self, gateway: Gateway, caller: Caller, base_url: str, previews: bool) -> None:
        self._gateway = gateway
        self._caller = caller
        self._base_url = base_url
        self._previews = previews
        self._watch_at = 0.0
        self._line_at = 0.0
        self._line: dict[str, Any] | None = None

    async def all(self, last: int) -> AsyncIterator[ServerSentEvent]:
        gateway = self._gateway
        with Feed(gateway.db, self._caller.owner, last) as feed:
            while not gateway.db.signals.closed and await gateway.keyring.still_good(self._caller):
                try:
                    for told in await self._told(await feed.news()):
                        yield told
                    await self._watch()
                    if (line := await self._changed_line()) is not None:
                        yield ServerSentEvent(json.dumps(line), event="queue")
                except DatabaseUnavailable as error:
                    log.warning("stream_held", reason=str(error))
                for (request_id, image), preview in feed.take_previews().items():
                    shown = {"id": str(request_id), "image": image, "jpeg_base64": preview.jpeg_base64}
                    yield ServerSentEvent(json.dumps(shown), event="preview")
                await feed.wait(_LINE)

    async def _told(self, batch: Sequence[Event]) -> list[ServerSentEvent]:
        done = [
            event.request_id
            for event in batch
            if event.type == "state" and event.data["status"] == Status.COMPLETED
        ]
        rows = await requests.get_all(self._gateway.db, done) if done else {}
        told = []
        for event in batch:
            data = {**event.data, "id": str(event.request_id)}
            if data.get("status") == Status.COMPLETED and (row := rows.get(event.request_id)) is not None:
                data["image_url"] = image_url(row, self._base_url)
            told.append(ServerSentEvent(json.dumps(data), event=event.type, id=str(event.id)))
        return told

    async def _watch(self) -> None:
        if self._previews and time.monotonic() >= self._watch_at:
            self._watch_at = time.monotonic() + _WATCHED / 4
            await requests.watch_open(self._gateway.db, self._caller.owner, _WATCHED)

    async def _changed_line(self) -> dict[str, Any] | None:
        if time.monotonic() < self._line_at:
            return None
        self._line_at = time.monotonic() + _LINE
        line = await line_of(self._gateway, self._caller.owner)
        changed = line != self._line
        self._line = line
        return line if changed else None


async def line_of(gateway: Gateway, owner: str) -> dict[str, Any]:
    """How many workers there are, and where each open request of the owner stands: the data of `queue`."""
    load = await figures.load(gateway.db, gateway.settings.worker_timeout)
    backlog = await gateway.counted(figures.backlog)
    waiting = await gateway.counted(places.unpublished_by_owner)
    found = await places.places(gateway.db, owner, backlog, waiting, load.places)
    workers = sum(n for state, n in load.workers.items() if state not in (figures.SILENT, "draining"))
    return {
        "workers": workers,
        "open": [
            {
                "id": str(request_id),
                "position": place.position,
                "eta_s": None if place.seconds is None else math.ceil(place.seconds),
            }
            for request_id, place in found.items()
        ],
    }
