"""A worker with claims, and one against a gateway as the seed's is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_system import System

from gateways import ClaimingGateway, SeedLikeGateway


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[System]:
    gateway = ClaimingGateway()
    yield System(tmp_path / "home", gateway)
    gateway.close()


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[System]:
    gateway = SeedLikeGateway()
    yield System(tmp_path / "home", gateway)
    gateway.close()
