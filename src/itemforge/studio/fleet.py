"""The fleet's page: who draws, what waits, what was done, and what could not be."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from itemforge.gateway import dead, fleet_routes
from itemforge.gateway.auth import check_role
from itemforge.gateway.context import CallerDep, Gateway, GatewayDep
from itemforge.gateway.keyring import Caller
from itemforge.jobs import publishing
from itemforge.jobs.keys import Role
from itemforge.jobs.throughput import Span
from itemforge.studio.plot import plot
from itemforge.studio.rendering import page, part
from itemforge.studio.routing import Form, router

routes = router()

#: The address whose roles say who may see dead letters, and how many are shown at once.
_DEAD, _SHOWN = "/v1/dead", 20
SpanQuery = Annotated[Span, Query()]


@routes.get("/fleet")
async def fleet(
    request: Request, gateway: GatewayDep, caller: CallerDep, span: SpanQuery = Span.HOUR
) -> Response:
    """The whole page; its parts refresh themselves by the routes below."""
    values = {**await _now(gateway, caller), **await _done(gateway, span)}
    return page(request, "fleet.html", is_admin=caller.role is Role.ADMIN, alone=False, **values)


@routes.get("/studio/fleet/now")
async def now(gateway: GatewayDep, caller: CallerDep) -> Response:
    """The figures and the workers."""
    return part("fleet_now.html", **await _now(gateway, caller))


@routes.get("/studio/fleet/done")
async def done(gateway: GatewayDep, span: SpanQuery = Span.HOUR) -> Response:
    """The plot, and the table that says the same."""
    return part("fleet_done.html", **await _done(gateway, span), alone=True)


@routes.get("/studio/fleet/dead")
async def dead_letters(gateway: GatewayDep, caller: CallerDep) -> Response:
    """What failed for good; admins only. Not looked at by the clock: the broker counts each look."""
    check_role(caller, _DEAD)
    return part("dead.html", **await _dead(gateway))


@routes.post("/studio/fleet/dead/send-again")
async def send_again(gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """One of them again."""
    check_role(caller, _DEAD)
    sent = await dead.send_again(gateway, caller, form.get("id", ""))
    said = "Sent again." if sent.request_id else "The message is on the queue again."
    return part("dead.html", **await _dead(gateway), said=said, new=sent.request_id)


@routes.post("/studio/fleet/dead/send-all-again")
async def send_all_again(gateway: GatewayDep, caller: CallerDep) -> Response:
    """All requests of the list again."""
    check_role(caller, _DEAD)
    sent = await dead.send_all_again(gateway, caller)
    said = f"{len(sent)} sent again." if len(sent) != 1 else "Sent again."
    return part("dead.html", **await _dead(gateway), said=said, new=None)


@routes.post("/studio/fleet/dead/drop")
async def drop(gateway: GatewayDep, caller: CallerDep, form: Form) -> Response:
    """One of them off the list."""
    check_role(caller, _DEAD)
    await dead.drop(gateway, form.get("id", ""))
    return part("dead.html", **await _dead(gateway), said="Dropped.", new=None)


async def _dead(gateway: Gateway) -> dict[str, Any]:
    return {
        "letters": await dead.letters(gateway, _SHOWN),
        "moment": await publishing.moment(gateway.db),
    }


async def _now(gateway: Gateway, caller: Caller) -> dict[str, Any]:
    workers = await fleet_routes.list_workers(gateway, caller.sees)
    # In places that stay, so that nothing jumps while one reads.
    live = sorted((each for each in workers if each.live), key=lambda each: each.worker_id)
    return {
        "workers": [*live, *(each for each in workers if not each.live)],
        "stats": await fleet_routes.get_stats(gateway, caller.sees),
        "moment": await publishing.moment(gateway.db),
        "everybody": caller.sees is None,
    }


async def _done(gateway: Gateway, span: Span) -> dict[str, Any]:
    return {"plot": plot(await fleet_routes.get_throughput(gateway, span)), "spans": list(Span)}
