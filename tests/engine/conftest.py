"""The model that ships with the project, loaded once, and random models of SD 1.5's structure."""

import pytest
import torch

from itemforge.engine.model import Model, load_model
from itemforge.styles.models import starter_dir


@pytest.fixture(scope="session")
def starter() -> Model:
    """In float32 on the CPU. Tests leave its weights as they were."""
    return load_model(starter_dir(), torch.device("cpu"), torch.float32)


@pytest.fixture
def own_starter() -> Model:
    """The same, for one test alone: it may merge LoRAs."""
    return load_model(starter_dir(), torch.device("cpu"), torch.float32)
