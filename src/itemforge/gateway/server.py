"""The gateway on a socket: uvicorn inside our own process, stopped by us and by nobody else."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from itemforge.broker.face import Broker
from itemforge.gateway.app import create_app
from itemforge.gateway.context import Gateway, Studio
from itemforge.settings import GatewaySettings
from itemforge.storage.face import ObjectStore
from itemforge.styles.catalog import Catalog
from itemforge.styles.models import describe
from itemforge.telemetry.gateway_metrics import GatewayMetrics
from itemforge.tls import check_server_files

log = structlog.get_logger(__name__)

#: Seconds that answers under way get at the end.
_GRACE = 5


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's: a worker in the same process has to drain first."""
        yield


@asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket) -> AsyncIterator[str]:
    """Serve an app of `create_app` inside the block; gives its address. Closes the listener.

    Raises:
        ConfigurationError: the database belongs to another process or a newer version, the gateway would
            be open to others without any key, or the TLS files cannot be used.
    """
    gateway: Gateway = app.state.gateway
    settings = gateway.settings
    secure = check_server_files(settings.tls_cert_file, settings.tls_key_file)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",  # entered below: uvicorn would turn its errors into SystemExit
        timeout_graceful_shutdown=_GRACE,
        forwarded_allow_ips=settings.trusted_proxies,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
    )
    server = _Uvicorn(config)
    with contextlib.closing(listener):
        async with app.router.lifespan_context(app):
            running = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                while not server.started and not running.done():  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(0.01)
                address = _address(listener, "https" if secure else "http")
                log.info("gateway_serves", url=address)
                gateway.address = address
                yield address
            finally:
                gateway.db.signals.close()  # event streams would keep the server waiting
                server.should_exit = True
                await running


def _address(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = socket.gethostname()
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Server:
    """The whole gateway: styles and model from `settings.home`, broker and store as given."""

    def __init__(
        self,
        settings: GatewaySettings,
        listener: socket.socket,
        broker: Broker,
        store: ObjectStore,
        *,
        embedded: bool = False,
        worker_key: str | None = None,
        metrics: GatewayMetrics | None = None,
        studio: Callable[[FastAPI], Studio] | None = None,
    ) -> None:
        """Raises ConfigurationError (wrong TLS files) or ModelError (no such model)."""
        check_server_files(settings.tls_cert_file, settings.tls_key_file)
        self._listener = listener
        self.app = create_app(
            settings,
            broker=broker,
            store=store,
            catalog=Catalog(store, settings.home),
            model=describe(settings.model, settings.home),
            embedded=embedded,
            worker_key=worker_key,
            metrics=metrics,
            studio=studio,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve inside the block; gives the address."""
        async with serving(self.app, self._listener) as address:
            yield address
