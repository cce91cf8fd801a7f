"""`/v1/batches`: a list of things times variations, as requests of their own that are judged and drawn again alone."""

from itertools import groupby
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from itemforge.contract import Output
from itemforge.gateway import batches
from itemforge.gateway.batch_models import (
    BatchCounts,
    BatchDetail,
    BatchExport,
    BatchPage,
    BatchRequest,
    BatchView,
    CellView,
    Changed,
    RerollRequest,
    ThingView,
    VerdictRequest,
)
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, SeesDep
from itemforge.gateway.export_routes import send_zip
from itemforge.gateway.generations import IdempotencyKey, decode, encode
from itemforge.gateway.picture_routes import OutputDep
from itemforge.gateway.problems import documented, wrong_field
from itemforge.gateway.views import pictures
from itemforge.jobs import batches as rows
from itemforge.jobs.batches import Batch, Cell, Counts

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_CHANGES = documented(400, 401, 404, 409, 413, 415, 422, 503)
_ZIP = {200: {"content": {"application/zip": {}}}, **documented(401, 404, 409, 422, 503)}


@router.post(
    "",
    status_code=202,
    responses={
        200: {"model": BatchView, "description": "the same batch was sent before: here it is"},
        **documented(400, 401, 409, 413, 415, 422, 429, 503),
    },
)
async def create_batch(
    body: BatchRequest,
    gateway: GatewayDep,
    caller: CallerDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> BatchView:
    """Ask for many pictures at once: one request for each variation of each thing, all or none."""
    batch, new = await batches.submit(gateway, caller, body, idempotency_key)
    response.headers["Location"] = f"/v1/batches/{batch.id}"
    if not new:
        response.status_code = 200
    return await look(gateway, batch)


@router.get("", responses=documented(401, 422, 503))
async def list_batches(
    gateway: GatewayDep,
    sees: SeesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of the last page")] = None,
) -> BatchPage:
    """Batches, newest first: your own, or with an admin's key everybody's."""
    found = await rows.find(gateway.db, sees, limit + 1, decode(cursor) if cursor is not None else None)
    counts = await rows.count(gateway.db, [batch.id for batch in found[:limit]])
    return BatchPage(
        items=[view(batch, counts[batch.id]) for batch in found[:limit]],
        next_cursor=encode(found[limit - 1]) if len(found) > limit else None,
    )


@router.get("/{batch_id}", responses=documented(401, 404, 422, 503))
async def get_batch(
    batch_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    request: Request,
    first: Annotated[int, Query(ge=0, le=2000, description="the thing to begin with")] = 0,
    limit: Annotated[int, Query(ge=1, le=500, description="things")] = 100,
) -> BatchDetail:
    """A batch as it stands now, with some of its things and their variations."""
    batch = await batches.find(gateway, batch_id, sees)
    cells = await rows.cells(gateway.db, batch.id, first, limit)
    base = gateway.base_url(request)
    seen = await look(gateway, batch)
    return BatchDetail(
        **dict(seen),
        items=[_thing(list(group), base) for _, group in groupby(cells, lambda cell: cell.thing)],
        next=first + limit if first + limit < batch.things else None,
    )


@router.post("/{batch_id}/verdicts", responses=_CHANGES)
async def judge_batch(batch_id: UUID, body: VerdictRequest, gateway: GatewayDep, sees: SeesDep) -> Changed:
    """Approve or reject drawn pictures, many at once."""
    batch = await batches.find(gateway, batch_id, sees)
    cells = await batches.judge(gateway, batch, body.verdict, body.ids)
    return Changed(changed=len(cells), batch=await look(gateway, batch))


@router.post("/{batch_id}/reroll", responses=_CHANGES | documented(429))
async def reroll_batch(
    batch_id: UUID, body: RerollRequest, gateway: GatewayDep, caller: CallerDep
) -> Changed:
    """Draw rejected and failed ones with new seeds; the old generations stay, and are their `retry_of`."""
    batch = await batches.find(gateway, batch_id, caller.sees)
    ids = await batches.reroll(gateway, caller, batch, body.ids)
    return Changed(changed=len(ids), batch=await look(gateway, batch))


@router.post("/{batch_id}/cancel", responses=documented(401, 404, 422, 503))
async def cancel_batch(batch_id: UUID, gateway: GatewayDep, sees: SeesDep) -> Changed:
    """Cancel all that waits or is being drawn; again is no error."""
    batch = await batches.find(gateway, batch_id, sees)
    ended = await rows.cancel(gateway.db, batch.id)
    return Changed(changed=ended, batch=await look(gateway, batch))


@router.post("/{batch_id}/export", response_class=Response, responses=_CHANGES | _ZIP)
async def export_batch(batch_id: UUID, body: BatchExport, gateway: GatewayDep, sees: SeesDep) -> Response:
    """A ZIP of the approved pictures (or all that are drawn), named by their things, with `manifest.json`."""
    if body.atlas is not None and body.form != "atlas":
        raise wrong_field("atlas", "is only for the form atlas; set form, or leave it out")
    return await export(gateway, await batches.find(gateway, batch_id, sees), body)


@router.get("/{batch_id}/export", response_class=Response, responses=_ZIP)
async def download_batch(
    batch_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    output: OutputDep,
    form: Annotated[Literal["zip", "atlas"], Query()] = "zip",
    which: Annotated[Literal["approved", "drawn"], Query()] = "approved",
) -> Response:
    """The same ZIP by an address alone, as a link."""
    batch = await batches.find(gateway, batch_id, sees)
    return await export(gateway, batch, BatchExport(which=which, output=output, form=form))


async def export(gateway: Gateway, batch: Batch, body: BatchExport) -> Response:
    """The ZIP of a batch.

    Raises:
        Refusal: 409, there is nothing to export; 422, it is too large.
        InvalidInput, StorageUnavailable: as `exports.zipped`.
    """
    output = body.output
    if output is None and body.form == "atlas":
        output = Output(background="transparent")
    items = await batches.export_items(gateway, batch, output, approved=body.which == "approved")
    return await send_zip(gateway, items, body.form, body.atlas, "which")


async def look(gateway: Gateway, batch: Batch) -> BatchView:
    """The batch with its counts now."""
    return view(batch, (await rows.count(gateway.db, [batch.id]))[batch.id])


def view(batch: Batch, counts: Counts) -> BatchView:
    """The public view of a batch."""
    return BatchView(
        id=batch.id,
        name=batch.name,
        style=batch.style,
        things=batch.things,
        size=batch.size,
        settings=batch.settings,
        counts=BatchCounts(status=counts.status, verdict=counts.verdict, gone=counts.gone),
        done=counts.open == 0,
        created_at=batch.created_at,
    )


def _thing(cells: list[Cell], base: str) -> ThingView:
    prompts = [cell.request.prompt for cell in cells if cell.request]
    return ThingView(
        thing=cells[0].thing,
        name=cells[0].name,
        prompt=prompts[0] if prompts else None,
        cells=[_cell(cell, base) for cell in cells],
    )


def _cell(cell: Cell, base: str) -> CellView:
    request = cell.request
    drawn = pictures(request, base) if request else []
    return CellView(
        variation=cell.variation,
        id=cell.request_id,
        status=cell.status,
        verdict=cell.verdict,
        tries=cell.tries,
        seed=request.params.seed if request else None,
        image=drawn[0] if drawn else None,
        error=request.error if request else None,
    )
