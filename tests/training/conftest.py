"""A tiny training set and a tiny run: seconds on a CPU."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "dataset"))  # its small packages

from icon_packages import write_packages
from tiny_base import SIZE, tiny_config

from itemforge.dataset.icons import build_icons
from itemforge.training.config import StarterConfig


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("icons")
    build_icons(folder / "set", write_packages(folder / "packages"), SIZE)
    return folder / "set"


@pytest.fixture
def tiny(icons: Path, tmp_path: Path) -> StarterConfig:
    return tiny_config(icons, tmp_path)
