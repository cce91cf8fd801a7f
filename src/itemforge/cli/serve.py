"""`up`, `gateway` and `worker`: the processes that stay."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import structlog
import typer

from itemforge.cli.lock import home_lock
from itemforge.settings import GatewaySettings, WorkerSettings, load
from itemforge.telemetry.logs import setup_logs

log = structlog.get_logger(__name__)

Host = Annotated[str | None, typer.Option(help="Address to listen on (ITEMFORGE_HOST).")]
Port = Annotated[
    int | None, typer.Option(help="Port; 0 takes a free one (ITEMFORGE_PORT).", min=0, max=65535)
]
Home = Annotated[Path | None, typer.Option(help="Folder of models, database and pictures (ITEMFORGE_HOME).")]


def up(host: Host = None, port: Port = None, home: Home = None) -> None:
    """Run the whole system in one command: gateway, worker, SQLite, folder store, in-process queue.

    Ends cleanly on Ctrl+C or SIGTERM: what is being drawn is finished; a second one ends at once.
    """
    gateway = load(GatewaySettings, host=host, port=port, home=home)
    # The embedded system owns its database: its queue lives in this process only.
    gateway = load(
        GatewaySettings,
        host=gateway.host,
        port=gateway.port,
        home=gateway.home,
        database_url_setting=f"sqlite:///{gateway.home / 'itemforge.db'}",
    )
    setup_logs(gateway, "itemforge")
    with home_lock(gateway.home):
        asyncio.run(_up(gateway))


async def _up(settings: GatewaySettings) -> None:
    from itemforge.broker.embedded import EmbeddedBroker
    from itemforge.gateway.server import Server, bind
    from itemforge.storage.opening import open_store
    from itemforge.worker.service import Worker

    listener = bind(settings.host, settings.port)
    port = listener.getsockname()[1]
    broker = EmbeddedBroker(settings.retry_scale)
    server = Server(settings, listener, broker, open_store(settings), embedded=True)
    key = settings.admin_key.get_secret_value() if settings.admin_key else None
    local = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host  # noqa: S104  # compared, not bound
    worker_settings = load(
        WorkerSettings,
        home=settings.home,
        api_gateway_url=f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}",
        api_key=key,
        gateway_mode="claims",
        default_style=settings.default_style,
        storage_public_url=settings.storage_public_url,
    )
    worker = Worker(worker_settings, broker, open_store(worker_settings))
    async with server.running() as address:
        typer.echo(f"ItemForge answers at {address} (API: {address}/docs); Ctrl+C ends it")
        _flush()
        await _until_signalled(worker.run(), worker.stop)
    await broker.close()


def gateway(host: Host = None, port: Port = None, home: Home = None) -> None:
    """Run the API gateway on RabbitMQ, with the database of DATABASE_URL."""
    settings = load(GatewaySettings, host=host, port=port, home=home)
    settings.require_amqp_url()
    setup_logs(settings, "gateway")
    asyncio.run(_gateway(settings))


async def _gateway(settings: GatewaySettings) -> None:
    from itemforge.broker.rabbitmq import RabbitBroker
    from itemforge.gateway.server import Server, bind
    from itemforge.storage.opening import open_store

    listener = bind(settings.host, settings.port)
    broker = RabbitBroker(settings)
    server = Server(settings, listener, broker, open_store(settings), embedded=False)
    stopped = asyncio.Event()
    async with server.running() as address:
        typer.echo(f"the gateway answers at {address} (API: {address}/docs)")
        _flush()
        await _until_signalled(stopped.wait(), stopped.set)
    await broker.close()


def worker(
    home: Home = None,
    probe_port: Annotated[
        int | None, typer.Option(help="Port of /healthz and /readyz; 0 takes a free one.", min=0, max=65535)
    ] = None,
) -> None:
    """Run an inference worker on RabbitMQ, for the gateway of API_GATEWAY_URL.

    SIGTERM and Ctrl+C drain: what is being drawn is finished; a second one ends at once.
    """
    settings = load(WorkerSettings, home=home, worker_port=probe_port)
    settings.require_amqp_url()
    setup_logs(settings, "worker")
    asyncio.run(_worker(settings))


async def _worker(settings: WorkerSettings) -> None:
    from itemforge.broker.rabbitmq import RabbitBroker
    from itemforge.storage.opening import open_store
    from itemforge.worker.probes import Probes
    from itemforge.worker.service import Worker

    broker = RabbitBroker(settings)
    service = Worker(settings, broker, open_store(settings))
    probes = Probes(
        settings.worker_host,
        settings.worker_port,
        lambda: (service.ready, {"state": service.state, "worker_id": service.worker_id}),
    )
    serving = asyncio.create_task(probes.run())
    typer.echo(f"worker {service.worker_id}, probes at http://{settings.worker_host}:{probes.port}/readyz")
    _flush()
    try:
        await _until_signalled(service.run(), service.stop)
    finally:
        await broker.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _until_signalled(work: Awaitable[object], stop: Callable[[], None]) -> None:
    """Run `work`; SIGTERM and SIGINT call `stop`, as often as they come."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, number, stop)
    try:
        await work
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _on_signal(number: int, stop: Callable[[], None]) -> None:
    log.info("signal_received", signal=signal.Signals(number).name)
    stop()


def _flush() -> None:
    # Whoever started us waits for the line that says where we answer.
    typer.get_text_stream("stdout").flush()
