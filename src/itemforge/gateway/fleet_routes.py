"""Who works, what waits, and whether this gateway is well: workers, stats, probes."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from itemforge.contract import WorkerState
from itemforge.errors import DatabaseUnavailable
from itemforge.gateway.context import Gateway, GatewayDep, SeesDep
from itemforge.gateway.models import Stats, WorkerView
from itemforge.gateway.problems import documented
from itemforge.jobs import heartbeats, publishing, requests

router = APIRouter()


@router.get("/v1/workers", tags=["fleet"], responses=documented(401, 503))
async def list_workers(gateway: GatewayDep) -> list[WorkerView]:
    """Workers by their last heartbeat."""
    fleet = await heartbeats.fleet(gateway.db, gateway.settings.worker_timeout)
    return [WorkerView(**vars(worker)) for worker in fleet]


@router.get("/v1/stats", tags=["fleet"], responses=documented(401, 503))
async def get_stats(gateway: GatewayDep, sees: SeesDep) -> Stats:
    """How much waits and how much can be done at once; `requests` counts what the caller may see."""
    settings = gateway.settings
    window = await publishing.window(gateway.db, settings.relay_window, settings.worker_timeout)
    live = [w for w in await heartbeats.fleet(gateway.db, settings.worker_timeout) if w.live]
    return Stats(
        requests=await gateway.counted(requests.count, sees),
        unpublished=await gateway.counted(publishing.unpublished),
        waiting=window.waiting,
        window=window.size,
        workers=len(live),
        capacity=sum(w.free + w.in_hand for w in live if w.state is WorkerState.READY),
    )


@router.get("/healthz", tags=["probes"])
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", tags=["probes"], responses={503: {"description": "the database is away"}})
async def readyz(request: Request) -> JSONResponse:
    """Ready when the database is: requests are taken while the broker is away, and queued later."""
    gateway: Gateway = request.app.state.gateway
    ready = gateway.migrated.is_set()
    try:
        await gateway.db.ping()
    except DatabaseUnavailable:
        ready = False
    state: dict[str, Any] = {
        "ready": ready,
        "database": "ok" if ready else "unavailable",
        "broker": "ok" if gateway.broker.connected else "unavailable",
    }
    return JSONResponse(state, 200 if ready else 503)
