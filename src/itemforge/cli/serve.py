"""`up`, `gateway` and `worker`: the processes that stay."""

import asyncio
import secrets
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer

from itemforge.cli.lock import home_lock
from itemforge.settings import GatewaySettings, WorkerSettings, load
from itemforge.telemetry.logs import setup_logs
from itemforge.tls import check_server_files, own_certificate_only

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
    _nothing_to_drain_yet()
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
    from itemforge.telemetry.export import tracing

    with home_lock(gateway.home), tracing(gateway, "itemforge"):
        asyncio.run(_up(gateway))


async def _up(settings: GatewaySettings) -> None:
    from itemforge.broker.embedded import EmbeddedBroker
    from itemforge.gateway.listening import bind
    from itemforge.storage.opening import open_store
    from itemforge.telemetry.gateway_metrics import GatewayMetrics
    from itemforge.telemetry.metrics import new_registry
    from itemforge.telemetry.worker_metrics import WorkerMetrics
    from itemforge.worker.gateway_client import HttpCaller
    from itemforge.worker.service import Worker

    listener = bind(settings.host, settings.port)
    broker = EmbeddedBroker(settings.retry_scale)
    # Its worker calls over HTTP as any other, with a key that lives as long as this process.
    worker_key = secrets.token_urlsafe(32)
    worker_settings = _embedded_worker(settings, listener.getsockname()[1], worker_key)
    caller = HttpCaller(worker_settings, trust=_own_gateway(settings))
    registry = new_registry("itemforge")  # the gateway shows the worker's figures too
    worker_metrics = WorkerMetrics(registry, worker_settings.price_per_hour)
    worker = Worker(
        worker_settings, broker, open_store(worker_settings), caller=caller, metrics=worker_metrics
    )
    with _signals(worker.stop):
        working = asyncio.create_task(worker.run())
        # The engine's process takes longest to load; it does so while the gateway is imported and started.
        while worker.engine_pid is None and not working.done():  # noqa: ASYNC110  # either ends it
            await asyncio.sleep(0.01)
        from itemforge.gateway.server import Server
        from itemforge.studio import site

        try:
            server = Server(
                settings,
                listener,
                broker,
                open_store(settings),
                embedded=True,
                worker_key=worker_key,
                metrics=GatewayMetrics(registry),
                studio=site.install,
            )
            async with server.running() as address:
                _say(f"ItemForge answers at {address} (API: {address}/docs); Ctrl+C ends it")
                await working
        finally:
            worker.stop()
            worker.stop()
            await asyncio.gather(working, return_exceptions=True)
            await broker.close()


def _embedded_worker(settings: GatewaySettings, port: int, key: str) -> WorkerSettings:
    """The worker speaks to its gateway over loopback, as any other worker does over the network."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    host = everywhere.get(settings.host, settings.host)
    scheme = "https" if settings.tls_cert_file else "http"
    return load(
        WorkerSettings,
        home=settings.home,
        api_gateway_url=f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}",
        api_key=key,
        gateway_mode="claims",
        uploads="direct",  # it shares the gateway's folder
        model=settings.model,
        default_style=settings.default_style,
        storage_public_url=settings.storage_public_url,
    )


def _own_gateway(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Over loopback the certificate's name fits nobody, so the embedded worker knows the certificate itself.

    Raises:
        ConfigurationError: the TLS files cannot be used.
    """
    if not check_server_files(settings.tls_cert_file, settings.tls_key_file) or not settings.tls_cert_file:
        return None
    return own_certificate_only(settings.tls_cert_file)


def gateway(host: Host = None, port: Port = None, home: Home = None) -> None:
    """Run the API gateway on RabbitMQ, with the database of DATABASE_URL."""
    _nothing_to_drain_yet()
    settings = load(GatewaySettings, host=host, port=port, home=home)
    settings.require_amqp_url()
    setup_logs(settings, "gateway")
    from itemforge.telemetry.export import tracing

    with tracing(settings, "gateway"):
        asyncio.run(_gateway(settings))


async def _gateway(settings: GatewaySettings) -> None:
    from itemforge.broker.rabbitmq import RabbitBroker
    from itemforge.gateway.listening import bind
    from itemforge.gateway.server import Server
    from itemforge.storage.opening import open_store
    from itemforge.studio import site

    listener = bind(settings.host, settings.port)
    broker = RabbitBroker(settings)
    server = Server(settings, listener, broker, open_store(settings), embedded=False, studio=site.install)
    stopped = asyncio.Event()
    with _signals(stopped.set):
        async with server.running() as address:
            _say(f"the gateway answers at {address} (API: {address}/docs)")
            await stopped.wait()
    await broker.close()


def worker(
    home: Home = None,
    probe_port: Annotated[
        int | None,
        typer.Option(help="Port of /healthz, /readyz and /metrics; 0 takes a free one.", min=0, max=65535),
    ] = None,
) -> None:
    """Run an inference worker on RabbitMQ, for the gateway of API_GATEWAY_URL.

    SIGTERM and Ctrl+C drain: what is being drawn is finished; a second one ends at once.
    """
    _nothing_to_drain_yet()
    settings = load(WorkerSettings, home=home, worker_port=probe_port)
    settings.require_amqp_url()
    setup_logs(settings, "worker")
    from itemforge.telemetry.export import tracing

    with tracing(settings, "worker"):
        asyncio.run(_worker(settings))


async def _worker(settings: WorkerSettings) -> None:
    from itemforge.broker.rabbitmq import RabbitBroker
    from itemforge.storage.opening import open_store
    from itemforge.telemetry.metrics import exposition
    from itemforge.worker.probes import Probes
    from itemforge.worker.service import Worker

    broker = RabbitBroker(settings)
    service = Worker(settings, broker, open_store(settings))
    probes = Probes(
        settings.worker_host,
        settings.worker_port,
        lambda: (service.ready, {"state": service.state, "worker_id": service.worker_id}),
        lambda accept: exposition(service.metrics.registry, accept),
    )
    serving = asyncio.create_task(probes.run())
    _say(f"worker {service.worker_id}, probes at http://{settings.worker_host}:{probes.port}/readyz")
    try:
        with _signals(service.stop):
            await service.run()
    finally:
        await broker.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _nothing_to_drain_yet() -> None:
    """Until `_signals` takes over, a signal ends the process cleanly: there is nothing to finish."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block SIGTERM and SIGINT call `stop`, as often as they come."""

    def heard(number: signal.Signals) -> None:
        log.info("signal_received", signal=number.name)
        stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _say(line: str) -> None:
    """At once, also into a pipe: whoever started us waits for the line that says where we answer."""
    print(line, flush=True)  # noqa: T201  # the command line's own voice
