import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import Watched, watched_system

from services.postgres import PostgresServer
from services.rabbitmq import ForeignNode, RabbitNode, fresh_vhost


@pytest.fixture(scope="module")
def watched(
    _rabbit: RabbitNode | ForeignNode,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """Gateway, worker, RabbitMQ, node exporter and Prometheus, after some jobs, one of which failed."""
    if not isinstance(_rabbit, RabbitNode):
        pytest.skip("Prometheus reads the broker's own figures, at the address that our node has for them")
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch, postgres_server.database() as database:
        for name in os.environ:
            if name.startswith(("ITEMFORGE_", "RABBITMQ_", "GCS_", "DATABASE_URL", "API_GATEWAY_URL")):
                patch.delenv(name)
        with fresh_vhost(_rabbit) as vhost, watched_system(folder, vhost, database, _rabbit) as system:
            yield system
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def deploy() -> Path:
    return Path(__file__).parents[2] / "deploy"
