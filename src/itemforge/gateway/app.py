"""The app factory: routes, middleware, and what runs beside them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

import itemforge
from itemforge.broker.face import Broker
from itemforge.errors import DatabaseUnavailable
from itemforge.gateway import (
    batch_routes,
    collection_routes,
    dead_routes,
    export_routes,
    feed_route,
    fleet_routes,
    generations,
    images_routes,
    picture_routes,
    problems,
    seed_routes,
    stream,
    style_publishing,
    style_routes,
    upkeep,
    upload_routes,
    webhook_routes,
    worker_routes,
)
from itemforge.gateway.auth import Access
from itemforge.gateway.context import Gateway, Studio, Styles
from itemforge.gateway.images_errors import ImagesErrors
from itemforge.gateway.keyring import check_exposure
from itemforge.gateway.metrics import router as metrics_router
from itemforge.gateway.metrics import watch
from itemforge.gateway.middleware import BodyLimit, Envelope
from itemforge.gateway.openapi import describe_access
from itemforge.gateway.relay import Relay
from itemforge.gateway.sender import Sender
from itemforge.gateway.traced import Traced
from itemforge.jobs import migrate, publishing
from itemforge.jobs.database import Database
from itemforge.jobs.listener import listen
from itemforge.jobs.lock import only_process
from itemforge.settings import GatewaySettings
from itemforge.storage.face import ObjectStore
from itemforge.styles.models import ModelFacts
from itemforge.telemetry.gateway_metrics import GatewayMetrics
from itemforge.tls import client_context

log = structlog.get_logger(__name__)

#: Seconds between tries while the database is away at the start.
_DATABASE_PAUSE = 2.0
#: Seconds after which a background task that crashed (a bug) starts again.
_CRASH_PAUSE = 1.0


def create_app(
    settings: GatewaySettings,
    *,
    broker: Broker,
    store: ObjectStore,
    catalog: Styles,
    model: ModelFacts,
    embedded: bool = False,
    worker_key: str | None = None,
    metrics: GatewayMetrics | None = None,
    studio: Callable[[FastAPI], Studio] | None = None,
) -> FastAPI:
    """The gateway as an ASGI app. `app.state.gateway` is its `Gateway`.

    `studio` adds the pages.

    `embedded`: queue and worker live in this process, so at the start every open row begins anew; the
    worker calls with `worker_key`.

    Raises:
        ConfigurationError: the database's address or the file of trusted certificates is wrong.
    """
    if settings.ca_file is not None:
        client_context(
            settings.ca_file
        )  # the sender of webhooks reads it later, when nobody is there to hear
    db = Database(settings.database_url)
    metrics = metrics or GatewayMetrics()
    gateway = Gateway(settings, db, broker, store, catalog, model, embedded, worker_key, metrics)
    # The documentation's pages come from this server, so they also show where no CDN is reached.
    app = FastAPIOffline(
        title="ItemForge",
        version=itemforge.__version__,
        summary="From a prompt to a 2D game item in a game's own art style.",
        lifespan=_lifespan,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call a method
    )
    app.state.gateway = gateway
    app.state.look = watch(gateway)
    problems.install(app)
    for module in (
        generations,
        stream,
        feed_route,
        images_routes,
        picture_routes,
        export_routes,
        batch_routes,
        collection_routes,
        style_routes,
        style_publishing,
        webhook_routes,
        fleet_routes,
        dead_routes,
        worker_routes,
        upload_routes,
    ):
        app.include_router(module.router)
    app.include_router(metrics_router)
    if settings.seed_routes != "off":
        app.include_router(seed_routes.router)
    if studio is not None:
        gateway.studio = studio(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(Access, gateway=gateway)
    app.add_middleware(ImagesErrors)
    app.add_middleware(Envelope, metrics=metrics)
    app.add_middleware(Traced)
    describe_access(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    try:
        with only_process(gateway.db):
            await gateway.broker.start()
            opened = await _open(gateway, starting=True)
            beside = asyncio.create_task(_run(gateway, opened))
            try:
                yield
            finally:
                gateway.db.signals.close()
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
    finally:
        await gateway.db.close()


async def _open(gateway: Gateway, *, starting: bool = False) -> bool:
    """Migrate and, embedded, reopen; False while the database is away.

    Raises:
        ConfigurationError: the database is a newer version's; at the start also, nobody could come in.
    """
    try:
        await migrate.upgrade(gateway.db)
        if starting:  # later nobody waits for the answer, and without keys nobody gets in anyway
            await check_exposure(gateway.settings, gateway.db)
        if gateway.embedded:
            reopened = await publishing.reopen_all(gateway.db)
            log.info("open_requests_found", rows=reopened)
    except DatabaseUnavailable as error:
        log.warning("database_away", reason=str(error))
        return False
    gateway.migrated.set()
    return True


async def _run(gateway: Gateway, opened: bool) -> None:
    """Everything that goes on beside the routes, until cancelled."""
    while not opened:
        await asyncio.sleep(_DATABASE_PAUSE)
        opened = await _open(gateway)
    settings, db = gateway.settings, gateway.db
    works: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("relay", Relay(settings, db, gateway.broker, gateway.metrics.published).run),
        ("sender", Sender(gateway).run),
        (
            "sweeper",
            lambda: upkeep.repeat(
                settings.sweep_interval,
                lambda: upkeep.sweep(settings, db, gateway.broker, gateway.metrics.swept),
            ),
        ),
        (
            "cleaner",
            lambda: upkeep.repeat(settings.clean_interval, lambda: upkeep.clean(settings, db, gateway.store)),
        ),
    ]
    if db.postgresql:
        works.append(("listener", lambda: listen(db)))
    async with asyncio.TaskGroup() as group:
        for name, work in works:
            group.create_task(_kept_up(name, work))


async def _kept_up(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """The supervisor: what should never end is started again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background_task_crashed", task=name)
        await asyncio.sleep(_CRASH_PAUSE)
