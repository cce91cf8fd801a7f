"""`/v1/generations`: ask for pictures, look, list, cancel, send again, delete."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from itemforge.contract import Status, StyleName
from itemforge.gateway import submission, views
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, SeesDep
from itemforge.gateway.models import Generation, GenerationPage, GenerationRequest
from itemforge.gateway.pictures import delete_objects
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.jobs import requests
from itemforge.jobs.records import Created
from itemforge.jobs.records import Request as JobRequest
from itemforge.jobs.requests import Filter

router = APIRouter(prefix="/v1/generations", tags=["generations"])

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="the same key and body give the same generation"),
]
_SUBMIT = {
    200: {"model": Generation, "description": "the same request was sent before: here it is"},
    **documented(400, 401, 409, 413, 415, 422, 503),
}


async def found(gateway: Gateway, request_id: UUID, sees: str | None) -> JobRequest:
    """The row, if the caller may see it.

    Raises:
        Refusal: 404, there is none, or it is another's.
    """
    if (row := await requests.get(gateway.db, request_id, sees)) is None:
        raise _unknown()
    return row


def _unknown() -> Refusal:
    return Refusal(404, "There is no generation with this id.")


@router.post("", status_code=202, responses=_SUBMIT)
async def create_generation(
    body: GenerationRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Generation:
    """Ask for pictures. The answer comes at once; follow `/events` or look again."""
    created = await submission.submit(gateway, caller, body, idempotency_key=idempotency_key)
    return await _accepted(gateway, request, response, created)


@router.put("/{request_id}", status_code=202, responses=_SUBMIT)
async def put_generation(
    request_id: UUID,
    body: GenerationRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    response: Response,
) -> Generation:
    """Ask for pictures under an id of your own; safe to repeat."""
    created = await submission.submit(gateway, caller, body, request_id=request_id)
    return await _accepted(gateway, request, response, created)


@router.get("", responses=documented(401, 422, 503))
async def list_generations(
    gateway: GatewayDep,
    sees: SeesDep,
    request: Request,
    status: Annotated[str | None, Query(description="a status, in any case")] = None,
    style: Annotated[StyleName | None, Query(description="`id` (any version) or `id@version`")] = None,
    since: Annotated[datetime | None, Query(description="created then or later; UTC if no offset")] = None,
    until: Annotated[datetime | None, Query(description="created before then")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of the last page")] = None,
) -> GenerationPage:
    """Generations, newest first: your own, or with an admin's key everybody's."""
    wanted = Filter(_status(status), style, _utc("since", since), _utc("until", until), sees)
    before = _decode(cursor) if cursor is not None else None
    rows = await requests.find(gateway.db, wanted, limit + 1, before)
    base = gateway.base_url(request)
    return GenerationPage(
        items=[views.generation(row, base) for row in rows[:limit]],
        next_cursor=_encode(rows[limit - 1]) if len(rows) > limit else None,
    )


@router.get("/{request_id}", responses=documented(401, 404, 422, 503))
async def get_generation(
    request_id: UUID, gateway: GatewayDep, sees: SeesDep, request: Request
) -> Generation:
    """A generation as it stands now."""
    return await _view(gateway, request, await found(gateway, request_id, sees))


@router.delete("/{request_id}", status_code=204, responses=documented(401, 404, 422, 503))
async def delete_generation(request_id: UUID, gateway: GatewayDep, sees: SeesDep) -> None:
    """Delete a generation with its pictures; an open one is cancelled first."""
    row = await requests.delete(gateway.db, request_id, sees)
    if row is None:
        raise _unknown()
    await delete_objects(gateway.store, row)


@router.post("/{request_id}/cancel", responses=documented(401, 404, 409, 422, 503))
async def cancel_generation(
    request_id: UUID, gateway: GatewayDep, sees: SeesDep, request: Request
) -> Generation:
    """Cancel at once, waiting or running; again is no error."""
    row = await requests.cancel(gateway.db, request_id, sees)
    if row is None:
        raise _unknown()
    if row.status is not Status.CANCELLED:
        raise Refusal(409, f"The generation is {row.status} already; it cannot be cancelled.")
    return await _view(gateway, request, row)


@router.post("/{request_id}/retry", status_code=202, responses=_SUBMIT | documented(404))
async def retry_generation(
    request_id: UUID,
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Generation:
    """Send an ended generation again, as a new one whose `retry_of` is this id."""
    old = await found(gateway, request_id, caller.sees)
    if not old.status.terminal:
        raise Refusal(409, f"The generation is {old.status}; wait for its end, or cancel it first.")
    created = await submission.resubmit(gateway, caller, old, idempotency_key)
    return await _accepted(gateway, request, response, created)


async def _accepted(gateway: Gateway, request: Request, response: Response, created: Created) -> Generation:
    response.headers["Location"] = f"/v1/generations/{created.request.id}"
    if created.new:
        return views.generation(created.request, gateway.base_url(request), created.position)
    response.status_code = 200
    return await _view(gateway, request, created.request)


async def _view(gateway: Gateway, request: Request, row: JobRequest) -> Generation:
    waiting = row.status is Status.PENDING
    position = await requests.position(gateway.db, row) if waiting else None
    return views.generation(row, gateway.base_url(request), position)


def _status(text: str | None) -> Status | None:
    if text is None:
        return None
    try:
        return Status(text)
    except ValueError:
        raise wrong_field("status", f"must be one of {', '.join(Status)}") from None


def _utc(field: str, moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise wrong_field(field, "must be a time between the years 1 and 9999") from None


def _encode(row: JobRequest) -> str:
    place = json.dumps([row.created_at.isoformat(), row.id.hex])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        moment, request_id = json.loads(text)
        return datetime.fromisoformat(moment).astimezone(UTC), UUID(request_id)
    except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise wrong_field("cursor", "must be the next_cursor of an earlier answer") from None
