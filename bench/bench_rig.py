"""What the gateway's measurements stand on: durable services of their own, and processes to measure.

PostgreSQL runs with fsync, full_page_writes and synchronous_commit on, RabbitMQ as in the tests; both are
private, started here and gone with us (`tests/services`).
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from services import postgres, rabbitmq  # noqa: E402  # found by the line above
from services.process import free_port  # noqa: E402

#: Settings of the developer's that would change a measurement.
FOREIGN = ("ITEMFORGE_", "RABBITMQ_", "GCS_", "DATABASE_URL", "API_GATEWAY_URL", "STORAGE_EMULATOR_HOST")


@dataclass(frozen=True)
class Services:
    """Addresses of an empty database and an empty vhost."""

    database_url: str
    amqp_url: str
    postgres: postgres.PostgresServer
    rabbit: rabbitmq.RabbitNode


@contextmanager
def durable_postgres() -> Iterator[postgres.PostgresServer]:
    if (binaries := postgres.find_binaries()) is None:
        raise SystemExit("no PostgreSQL here: install postgresql")
    cluster = postgres.PostgresCluster(binaries, durable=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@contextmanager
def rabbit_node() -> Iterator[rabbitmq.RabbitNode]:
    if (server := rabbitmq.find_server()) is None:
        raise SystemExit("no RabbitMQ here: install rabbitmq-server")
    node = rabbitmq.RabbitNode(server)
    try:
        node.start()
        yield node
    finally:
        node.remove()


@contextmanager
def services() -> Iterator[Services]:
    """Both services, one fresh database, one fresh vhost."""
    with durable_postgres() as server, rabbit_node() as node, fresh(server, node) as ready:
        yield ready


@contextmanager
def fresh(server: postgres.PostgresServer, node: rabbitmq.RabbitNode) -> Iterator[Services]:
    """A fresh database and a fresh vhost on running services."""
    with ExitStack() as stack:
        database_url = stack.enter_context(server.database())
        vhost = stack.enter_context(rabbitmq.fresh_vhost(node))
        yield Services(database_url, vhost.url, server, node)


@contextmanager
def process(command: Sequence[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child with our environment and `env`, asked to end by SIGTERM when the block ends."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    with log.open("ab") as output:
        child = subprocess.Popen(command, env={**clean, **env}, stdout=output, stderr=output, cwd=ROOT)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def gateway(services: Services, home: Path, **env: str) -> Iterator[str]:
    """Our gateway as it is run in production, `itemforge gateway`; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "itemforge", "gateway", "--port", str(port)]
    values = {
        "DATABASE_URL": services.database_url,
        "ITEMFORGE_AMQP_URL": services.amqp_url,
        "ITEMFORGE_HOME": str(home),
        **env,
    }
    with process(command, values, home / "gateway.log") as child:
        yield _answering(child, f"http://127.0.0.1:{port}", "/readyz", home / "gateway.log")


@contextmanager
def seed_gateway(services: Services, home: Path) -> Iterator[str]:
    """The plain gateway; gives its address."""
    port = free_port()
    command = [sys.executable, str(ROOT / "bench" / "seed_gateway.py"), "--port", str(port)]
    values = {"DATABASE_URL": services.database_url, "ITEMFORGE_AMQP_URL": services.amqp_url}
    with process(command, values, home / "seed.log") as child:
        yield _answering(child, f"http://127.0.0.1:{port}", "/docs", home / "seed.log")


def _answering(child: subprocess.Popen[bytes], address: str, path: str, log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if httpx.get(address + path, trust_env=False).is_success:
                return address
        except httpx.HTTPError:
            time.sleep(0.05)
    raise SystemExit(f"{child.args!r} does not answer: {log.read_text(errors='replace')[-2000:]}")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="itemforge-bench-") as path:
        yield Path(path)


def quiet() -> None:
    """Only warnings of our own process: a line for each request would be measured too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def machine() -> str:
    """What a table has to say of where it was measured."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {load:.1f} at the start, {time.strftime('%Y-%m-%d')}"
