"""`stack`: a system of its own for each test, on classic queues; `quorum_stack` on quorum queues."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack import Stack

from services.fakegcs import FakeGcs
from services.postgres import PostgresServer
from services.rabbitmq import Vhost


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a busy machine a scenario may take minutes; its own bounded waits shall say what is wrong."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Name of a migrated database, as a template: copying one is faster than migrating."""
    with postgres_server.database() as url:
        command = [sys.executable, "-m", "itemforge", "db", "upgrade"]
        env = {"DATABASE_URL": url.replace("+asyncpg", ""), "PATH": "/usr/bin:/bin"}
        env |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}  # the source that the processes run
        subprocess.run(command, env=env, check=True, capture_output=True, cwd="/")
        yield url.rsplit("/", 1)[1]


@contextmanager
def new_stack(
    folder: Path, vhost: Vhost, server: PostgresServer, template: str, gcs: FakeGcs
) -> Iterator[Stack]:
    with server.database(template) as database_url:
        stack = Stack(folder, vhost, database_url, gcs.url, gcs.url, gcs.new_bucket())
        try:
            yield stack
        finally:
            stack.close()


@pytest.fixture
def stack(
    tmp_path: Path,
    amqp_vhost: Vhost,
    postgres_server: PostgresServer,
    migrated_database: str,
    _fake_gcs: FakeGcs,
) -> Iterator[Stack]:
    with new_stack(tmp_path, amqp_vhost, postgres_server, migrated_database, _fake_gcs) as stack:
        yield stack


@pytest.fixture
def quorum_stack(
    tmp_path: Path,
    quorum_amqp_vhost: Vhost,
    postgres_server: PostgresServer,
    migrated_database: str,
    _fake_gcs: FakeGcs,
) -> Iterator[Stack]:
    with new_stack(tmp_path, quorum_amqp_vhost, postgres_server, migrated_database, _fake_gcs) as stack:
        yield stack


@pytest.fixture(params=["stack", "quorum_stack"])
def any_stack(request: pytest.FixtureRequest) -> Stack:
    """On classic queues, then on quorum queues."""
    found: Stack = request.getfixturevalue(request.param)
    return found
