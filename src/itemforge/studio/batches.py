"""Batches: from a pasted list to a grid of pictures that are approved, drawn again, and taken home."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import Query, Request, Response

from itemforge.gateway import batch_routes
from itemforge.gateway import batches as gateway_batches
from itemforge.gateway.batch_models import BatchExport
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep, SeesDep
from itemforge.gateway.generations import decode, encode
from itemforge.gateway.picture_routes import OutputDep
from itemforge.gateway.problems import Refusal
from itemforge.imaging.recipe import SAMPLER_NAMES
from itemforge.jobs import batches
from itemforge.jobs.batches import Batch
from itemforge.studio import batching, making
from itemforge.studio.batching import ShownCell, Standing
from itemforge.studio.make import marked
from itemforge.studio.rendering import page, part
from itemforge.studio.routing import Form, router

routes = router()

#: Batches and things of a batch that are loaded at a time.
_BATCHES, _THINGS = 20, 24


@routes.get("/batches")
async def batches_page(request: Request, gateway: GatewayDep, sees: SeesDep) -> Response:
    """The form of a new batch, and those there are."""
    offered = await making.choices(gateway)
    found, cursor = await _listed(gateway, sees, None, _BATCHES)
    return page(
        request,
        "batches.html",
        choices=offered,
        chosen=marked(gateway, [choice.pack.name for choice in offered], ""),
        samplers=SAMPLER_NAMES,
        most=making.MOST_VARIATIONS,
        given={},
        press=uuid4(),
        batches=found,
        cursor=cursor,
    )


@routes.get("/studio/batches/list")
async def more_batches(
    gateway: GatewayDep,
    sees: SeesDep,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """The newest batches as they stand now, or those after `cursor`."""
    found, following = await _listed(gateway, sees, cursor, _BATCHES)
    return part("batch_list.html", batches=found, cursor=following, first=cursor is None)


async def _listed(
    gateway: Gateway, sees: str | None, cursor: str | None, limit: int
) -> tuple[list[Standing], str | None]:
    before = decode(cursor) if cursor is not None else None
    found = await batches.find(gateway.db, sees, limit + 1, before)
    counts = await batches.count(gateway.db, [batch.id for batch in found[:limit]])
    shown = [Standing(batch, counts[batch.id]) for batch in found[:limit]]
    return shown, encode(found[limit - 1]) if len(found) > limit else None


@routes.post("/studio/batches/preview")
async def preview(form: Form) -> Response:
    """What the list would make, or what is wrong with it, line by line."""
    if not form.get("list", "").strip():
        return part("batch_preview.html", listing=None, pictures=0, each=0)
    listing, pictures = batching.listed(form)
    return part("batch_preview.html", listing=listing, pictures=pictures, each=making.form_count(form))


@routes.post("/studio/batches")
async def create(gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """Make the batch, and lead on to its page."""
    told = {"HX-Retarget": "#batch-said", "HX-Reswap": "innerHTML"}
    try:
        body, listing = batching.form_batch(form)
    except Refusal as no:
        return part("batch_said.html", no.status, told, lines=no.detail.split("\n"))
    try:
        press = str(making.press_of(form))
        batch, _ = await gateway_batches.submit(gateway, caller, body, f"studio-{press}")
    except Refusal as no:
        lines = batching.in_lines(no, listing).split("\n")
        return part("batch_said.html", no.status, told, lines=lines)
    return Response(status_code=204, headers={"HX-Redirect": f"/batches/{batch.id}"})


@routes.get("/batches/{batch_id}")
async def batch_page(batch_id: UUID, request: Request, gateway: GatewayDep, sees: SeesDep) -> Response:
    """A batch as a grid: one row for each thing."""
    batch = await gateway_batches.find(gateway, batch_id, sees)
    _, since = await batches.changed(gateway.db, batch.id, None, 0)
    cells = await batches.cells(gateway.db, batch.id, 0, _THINGS)
    return page(
        request,
        "batch.html",
        batch=batch,
        standing=await _stands(gateway, batch),
        things=batching.things(cells),
        following=_THINGS if batch.things > _THINGS else None,
        since=since.isoformat(),
    )


@routes.get("/studio/batches/{batch_id}/things")
async def more_things(
    batch_id: UUID, gateway: GatewayDep, sees: SeesDep, first: Annotated[int, Query(ge=0, le=2000)]
) -> Response:
    """Further rows of the grid."""
    batch = await gateway_batches.find(gateway, batch_id, sees)
    cells = await batches.cells(gateway.db, batch.id, first, _THINGS)
    following = first + _THINGS if first + _THINGS < batch.things else None
    return part("batch_things.html", batch=batch, things=batching.things(cells), following=following)


@routes.get("/studio/batches/{batch_id}/changes")
async def changes(
    batch_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    since: datetime,
    things: Annotated[int, Query(ge=0, le=2000, description="that the page has loaded")] = 0,
) -> Response:
    """How the batch stands, and those of the loaded cells that changed."""
    batch = await gateway_batches.find(gateway, batch_id, sees)
    if since.tzinfo is None:
        raise Refusal(422, "The page asks for changes since no time; load it again.")
    cells, at = await batches.changed(gateway.db, batch.id, since, things)
    return part(
        "batch_changes.html",
        standing=await _stands(gateway, batch),
        cells=[ShownCell(cell) for cell in cells],
        since=at.isoformat(),
    )


@routes.get("/studio/batches/{batch_id}/export")
async def export(
    batch_id: UUID,
    gateway: GatewayDep,
    sees: SeesDep,
    output: OutputDep,
    form: Annotated[Literal["zip", "atlas"], Query()] = "zip",
    which: Annotated[Literal["approved", "drawn"], Query()] = "approved",
) -> Response:
    """The ZIP; what cannot be made is told on a page."""
    batch = await gateway_batches.find(gateway, batch_id, sees)
    return await batch_routes.export(gateway, batch, BatchExport(which=which, output=output, form=form))


async def _stands(gateway: Gateway, batch: Batch) -> Standing:
    return Standing(batch, (await batches.count(gateway.db, [batch.id]))[batch.id])
