"""The gallery: what was made, to look through and pick from; and two of it side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.generations import decode, encode, found
from itemforge.gateway.keyring import Caller
from itemforge.gateway.models import Chosen
from itemforge.gateway.pictures import delete_objects
from itemforge.jobs import collections, favourites, finding, trash
from itemforge.jobs.keys import Role
from itemforge.jobs.records import Request as JobRequest
from itemforge.studio.filters import Look
from itemforge.studio.recipe import recipe
from itemforge.studio.rendering import page, part
from itemforge.studio.routing import router

routes = router()
#: What the page's scripts post; their errors are the API's, which the scripts show.
acts = APIRouter(include_in_schema=False)

#: Cards that come at once. Every number of columns that the stylesheet has divides it, so no row has a gap.
SHEET = 60
#: Counted so far; a number beside the filters need not be exact above.
_COUNTED = 10_000

Cursor = Annotated[str | None, Query(max_length=200)]


@dataclass(frozen=True)
class Sheet:
    """Some cards, and where the next ones begin."""

    rows: Sequence[JobRequest]
    liked: set[UUID]
    cursor: str | None


async def _sheet(gateway: Gateway, caller: Caller, look: Look, cursor: str | None) -> Sheet:
    before = decode(cursor) if cursor else None
    rows = await finding.find(gateway.db, look.filter(caller), SHEET + 1, before)
    shown = rows[:SHEET]
    liked = await favourites.among(gateway.db, caller.owner, [row.id for row in shown])
    return Sheet(shown, liked, encode(shown[-1]) if len(rows) > SHEET else None)


@routes.get("/gallery")
async def gallery(
    request: Request, gateway: GatewayDep, caller: CallerDep, cursor: Cursor = None
) -> Response:
    """The page, with its first cards."""
    look = Look.of(request.query_params)
    mine = await collections.listed(gateway.db, caller.owner)
    return page(
        request,
        "gallery.html",
        look=look,
        sheet=await _sheet(gateway, caller, look, cursor),
        count=await finding.count(gateway.db, look.filter(caller), _COUNTED + 1),
        counted=_COUNTED,
        styles=sorted({pack.id for pack in await gateway.catalog.list()}),
        collections=mine,
        chosen=next((each for each in mine if str(each.id) == look.collection), None),
        may_see_all=caller.role is Role.ADMIN,
    )


@routes.get("/studio/gallery/more")
async def more(request: Request, gateway: GatewayDep, caller: CallerDep, cursor: Cursor = None) -> Response:
    """The next cards."""
    look = Look.of(request.query_params)
    return part("sheet.html", look=look, sheet=await _sheet(gateway, caller, look, cursor))


@routes.get("/gallery/compare")
async def compare(request: Request, gateway: GatewayDep, caller: CallerDep, a: UUID, b: UUID) -> Response:
    """Two generations side by side, with what differs in their recipes."""
    rows = [await found(gateway, each, caller.sees) for each in (a, b)]
    return page(request, "compare.html", rows=rows, recipes=[recipe(row) for row in rows])


@acts.post("/studio/gallery/favourite", status_code=204)
async def favourite(body: Chosen, gateway: GatewayDep, caller: CallerDep) -> None:
    await favourites.add(gateway.db, caller.owner, body.ids, caller.sees)


@acts.post("/studio/gallery/unfavourite", status_code=204)
async def unfavourite(body: Chosen, gateway: GatewayDep, caller: CallerDep) -> None:
    await favourites.remove(gateway.db, caller.owner, body.ids)


@acts.post("/studio/gallery/delete")
async def delete(body: Chosen, gateway: GatewayDep, caller: CallerDep) -> dict[str, int]:
    """Hide them; how many."""
    return {"count": len(await trash.delete(gateway.db, body.ids, caller.sees))}


@acts.post("/studio/gallery/restore")
async def restore(body: Chosen, gateway: GatewayDep, caller: CallerDep) -> dict[str, int]:
    """Bring them back; how many."""
    return {"count": len(await trash.restore(gateway.db, body.ids, caller.sees))}


@acts.post("/studio/gallery/erase")
async def erase(body: Chosen, gateway: GatewayDep, caller: CallerDep) -> dict[str, int]:
    """Delete what is hidden for good, with its pictures; how many."""
    gone = await trash.erase(gateway.db, body.ids, caller.sees)
    for row in gone:
        await delete_objects(gateway.store, row)
    return {"count": len(gone)}
