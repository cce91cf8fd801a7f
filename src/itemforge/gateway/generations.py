"""`/v1/generations`: ask for pictures, look, list, cancel, send again, delete, restore."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response

from itemforge.contract import Status, StyleName, Text
from itemforge.gateway import submission, views
from itemforge.gateway.collection_routes import known_collection
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, SeesDep
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import Generation, GenerationPage, GenerationRequest
from itemforge.gateway.pictures import delete_objects
from itemforge.gateway.problems import Refusal, documented, wrong_field
from itemforge.jobs import favourites, finding, requests, trash
from itemforge.jobs.batches import Batch
from itemforge.jobs.finding import Filter, Place
from itemforge.jobs.records import Created
from itemforge.jobs.records import Request as JobRequest

router = APIRouter(prefix="/v1/generations", tags=["generations"])

_WORDS = 12
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="the same key and body give the same generation"),
]
_SUBMIT = {
    200: {"model": Generation, "description": "the same request was sent before: here it is"},
    **documented(400, 401, 409, 413, 415, 422, 503),
}


async def found(gateway: Gateway, request_id: UUID, sees: str | None, deleted: bool = False) -> JobRequest:
    """The row, if the caller may see it; with `deleted` also one that can still be restored.

    Raises:
        Refusal: 404, there is none, or it is another's.
    """
    if (row := await requests.get(gateway.db, request_id, sees, deleted)) is None:
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
    return await _accepted(gateway, caller, request, response, created)


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
    return await _accepted(gateway, caller, request, response, created)


@router.get("", responses=documented(401, 404, 422, 503))
async def list_generations(
    gateway: GatewayDep,
    caller: CallerDep,
    request: Request,
    q: Annotated[
        Text | None, Query(max_length=200, description="words that the prompt has, in any case")
    ] = None,
    status: Annotated[str | None, Query(description="a status, in any case")] = None,
    style: Annotated[StyleName | None, Query(description="`id` (any version) or `id@version`")] = None,
    since: Annotated[datetime | None, Query(description="created then or later; UTC if no offset")] = None,
    until: Annotated[datetime | None, Query(description="created before then")] = None,
    mine: Annotated[bool, Query(description="with an admin's key: your own only")] = False,
    favourite: Annotated[bool, Query(description="those that you marked")] = False,
    collection: Annotated[UUID | None, Query(description="those in this collection of yours")] = None,
    flagged: Annotated[
        bool | None, Query(description="those whose prompt breaks the block list, or those others")
    ] = None,
    deleted: Annotated[
        bool, Query(description="those that can still be restored, in place of all others")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of the last page")] = None,
) -> GenerationPage:
    """Generations, newest first: your own, or with an admin's key everybody's."""
    if collection is not None:
        await known_collection(gateway, caller, collection)
    wanted = Filter(
        status=_status(status),
        style=style,
        since=_utc("since", since),
        until=_utc("until", until),
        owner=caller.owner if mine else caller.sees,
        words=words(q or ""),
        favourite_of=caller.owner if favourite else None,
        collection=collection,
        flagged=flagged,
        deleted=deleted,
    )
    before = decode(cursor) if cursor is not None else None
    rows = await finding.find(gateway.db, wanted, limit + 1, before)
    liked = await favourites.among(gateway.db, caller.owner, [row.id for row in rows])
    base = gateway.base_url(request)
    return GenerationPage(
        items=[views.generation(row, base, favourite=row.id in liked) for row in rows[:limit]],
        next_cursor=encode(rows[limit - 1]) if len(rows) > limit else None,
    )


def words(text: str) -> tuple[str, ...]:
    """What is searched for: each word by itself, a dozen at most."""
    return tuple(dict.fromkeys(text.split()))[:_WORDS]


@router.get("/{request_id}", responses=documented(401, 404, 422, 503))
async def get_generation(
    request_id: UUID, gateway: GatewayDep, caller: CallerDep, request: Request
) -> Generation:
    """A generation as it stands now."""
    return await _view(gateway, caller, request, await found(gateway, request_id, caller.sees))


@router.delete("/{request_id}", status_code=204, responses=documented(401, 404, 422, 503))
async def delete_generation(
    request_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    forever: Annotated[
        bool, Query(description="with its pictures, now; also what is deleted already")
    ] = False,
) -> None:
    """Delete a generation; an open one is cancelled first. It is hidden at once and can be restored for a day;
    then its row and pictures go."""
    hidden = await trash.delete(gateway.db, [request_id], sees)
    if not forever:
        if not hidden:
            raise _unknown()
        return
    erased = await trash.erase(gateway.db, [request_id], sees)
    if not erased:
        raise _unknown()
    await delete_objects(gateway.store, erased[0])


@router.post("/{request_id}/restore", responses=documented(401, 404, 422, 503))
async def restore_generation(
    request_id: UUID, gateway: GatewayDep, caller: CallerDep, request: Request
) -> Generation:
    """Bring back what was deleted within the last day; what is not deleted is no error."""
    restored = await trash.restore(gateway.db, [request_id], caller.sees)
    if not restored and await requests.get(gateway.db, request_id, caller.sees) is None:
        raise Refusal(
            404, "There is no generation with this id that could be restored; after a day it is gone."
        )
    return await _view(gateway, caller, request, await found(gateway, request_id, caller.sees))


@router.put("/{request_id}/favourite", status_code=204, responses=documented(401, 404, 422, 503))
async def mark_favourite(request_id: UUID, gateway: GatewayDep, caller: CallerDep) -> None:
    """Mark a generation as a favourite of yours; again is no error."""
    await found(gateway, request_id, caller.sees)
    await favourites.add(gateway.db, caller.owner, [request_id], caller.sees)


@router.delete("/{request_id}/favourite", status_code=204, responses=documented(401, 404, 422, 503))
async def unmark_favourite(request_id: UUID, gateway: GatewayDep, caller: CallerDep) -> None:
    """Take the mark away; none is no error."""
    await found(gateway, request_id, caller.sees)
    await favourites.remove(gateway.db, caller.owner, [request_id])


@router.post("/{request_id}/cancel", responses=documented(401, 404, 409, 422, 503))
async def cancel_generation(
    request_id: UUID, gateway: GatewayDep, caller: CallerDep, request: Request
) -> Generation:
    """Cancel at once, waiting or running; again is no error."""
    row = await requests.cancel(gateway.db, request_id, caller.sees)
    if row is None:
        raise _unknown()
    if row.status is not Status.CANCELLED:
        raise Refusal(409, f"The generation is {row.status} already; it cannot be cancelled.")
    return await _view(gateway, caller, request, row)


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
    return await _accepted(gateway, caller, request, response, created)


async def _accepted(
    gateway: Gateway, caller: Caller, request: Request, response: Response, created: Created
) -> Generation:
    response.headers["Location"] = f"/v1/generations/{created.request.id}"
    if created.new:
        return views.generation(created.request, gateway.base_url(request), created.position, favourite=False)
    response.status_code = 200
    return await _view(gateway, caller, request, created.request)


async def _view(gateway: Gateway, caller: Caller, request: Request, row: JobRequest) -> Generation:
    waiting = row.status is Status.PENDING
    position = await requests.position(gateway.db, row) if waiting else None
    liked = await favourites.among(gateway.db, caller.owner, [row.id])
    return views.generation(row, gateway.base_url(request), position, row.id in liked)


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


def encode(row: JobRequest | Batch) -> str:
    """The cursor of a list that goes on after this row."""
    place = json.dumps([row.created_at.isoformat(), row.id.hex])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def decode(cursor: str) -> Place:
    """Where a cursor goes on.

    Raises:
        Refusal: 422, it is none of ours.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        moment, request_id = json.loads(text)
        return datetime.fromisoformat(moment).astimezone(UTC), UUID(request_id)
    except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise wrong_field("cursor", "must be the next_cursor of an earlier answer") from None
