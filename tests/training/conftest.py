"""A tiny training set and a tiny run: seconds on a CPU."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "dataset"))  # its small packages

from icon_packages import write_packages

from itemforge.dataset.icons import build_icons
from itemforge.training.config import Diffusion, StarterConfig, Steps, TextShape, UnetShape, VaeShape

SIZE = 32


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("icons")
    build_icons(folder / "set", write_packages(folder / "packages"), SIZE)
    return folder / "set"


@pytest.fixture
def tiny(icons: Path, tmp_path: Path) -> StarterConfig:
    few = {"batch_size": 4, "learning_rate": 1e-3, "warmup": 2}
    return StarterConfig(
        data=icons,
        run=tmp_path / "run",
        size=SIZE,
        text=TextShape(vocabulary=700, hidden_size=32, layers=1, heads=2),
        vae=VaeShape(channels=(16, 32), norm_groups=8),
        unet=UnetShape(channels=(32, 64), heads=2),
        train_vae=Steps(steps=6, **few),
        train_diffusion=Diffusion(steps=6, **few),
        train_decoder=Steps(steps=4, **few),
    )
