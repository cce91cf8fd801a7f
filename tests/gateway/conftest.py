from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rig import Rig, running, settings_for

from databases import database_url, db
from itemforge.settings import GatewaySettings

__all__ = ["database_url", "db"]


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> GatewaySettings:
    return settings_for(database_url, tmp_path)


@pytest.fixture
async def rig(settings: GatewaySettings) -> AsyncIterator[Rig]:
    async with running(settings) as made:
        yield made
