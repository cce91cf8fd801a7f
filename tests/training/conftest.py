"""A tiny training set and a tiny run: seconds on a CPU."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "dataset"))  # its small packages

from icon_packages import write_packages
from lora_set import write_pictures
from tiny_base import SIZE, tiny_config

from itemforge.dataset.icons import build_icons
from itemforge.training.base import train_base
from itemforge.training.config import StarterConfig
from itemforge.training.stage import Run


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("icons")
    build_icons(folder / "set", write_packages(folder / "packages"), SIZE)
    return folder / "set"


@pytest.fixture
def tiny(icons: Path, tmp_path: Path) -> StarterConfig:
    return tiny_config(icons, tmp_path)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, icons: Path) -> Path:
    """A tiny base model."""
    config = tiny_config(icons, tmp_path_factory.mktemp("base"))
    made = train_base(config, Run(config.run, lambda *_: None), torch.device("cpu"))
    assert made is not None
    return made


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches are shared: what is tested is what is made of them."""
    return tmp_path_factory.mktemp("home")
