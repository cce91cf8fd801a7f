"""The benches are programs beside the package; their tests import them by path."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """As in the engine's tests: threads on cores that others use wait for each other most of the time."""
    torch.set_num_threads(1)
