"""Who works, what waits, and whether this gateway is well: workers, stats, probes."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from itemforge.contract import WorkerState
from itemforge.errors import DatabaseUnavailable
from itemforge.gateway.context import Gateway, GatewayDep, SeesDep
from itemforge.gateway.models import SlotView, Stats, Throughput, WorkerView
from itemforge.gateway.problems import documented
from itemforge.jobs import figures, heartbeats, publishing, requests
from itemforge.jobs.throughput import Span, images_per_hour, throughput

router = APIRouter()


@router.get("/v1/workers", tags=["fleet"], responses=documented(401, 503))
async def list_workers(gateway: GatewayDep, sees: SeesDep) -> list[WorkerView]:
    """Workers by their last heartbeat; `jobs` are your own, or with an admin's key everybody's."""
    fleet = await heartbeats.fleet(gateway.db, gateway.settings.worker_timeout)
    jobs = await heartbeats.drawing(gateway.db, sees)
    return [WorkerView(**vars(worker), jobs=jobs.get(worker.worker_id, [])) for worker in fleet]


@router.get("/v1/stats", tags=["fleet"], responses=documented(401, 503))
async def get_stats(gateway: GatewayDep, sees: SeesDep) -> Stats:
    """How much waits and how much can be done at once; `requests` counts what the caller may see."""
    settings = gateway.settings
    window = await publishing.window(gateway.db, settings.relay_window, settings.worker_timeout)
    load = await figures.load(gateway.db, settings.worker_timeout)
    backlog = await gateway.counted(figures.backlog)
    live = [w for w in await heartbeats.fleet(gateway.db, settings.worker_timeout) if w.live]
    return Stats(
        requests=await gateway.counted(requests.count, sees),
        unpublished=await gateway.counted(publishing.unpublished),
        waiting=window.waiting,
        window=window.size,
        workers=len(live),
        capacity=sum(w.free + w.in_hand for w in live if w.state is WorkerState.READY),
        oldest_seconds=round(load.oldest_seconds, 1),
        backlog_seconds=round(figures.backlog_seconds(backlog, load.places), 1),
        images_per_hour=await gateway.counted(images_per_hour),
    )


@router.get("/v1/stats/throughput", tags=["fleet"], responses=documented(401, 422, 503))
async def get_throughput(gateway: GatewayDep, span: Span = Span.HOUR) -> Throughput:
    """What was completed and what failed: in the last hour by the minute, or in the last day by the quarter."""
    slots = await gateway.counted(throughput, span)
    return Throughput(span=span, step_seconds=span.step, slots=[SlotView(**vars(slot)) for slot in slots])


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
