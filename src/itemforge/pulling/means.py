"""What a pull touches the world with, passed in: settings, progress, the clock, and W&B's client."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from itemforge.pulling.wandb_client import ArtifactWay, wandb_artifact
from itemforge.settings import PullSettings


class Tell(Protocol):
    """Hears a file's name, how many of its bytes are here, and of how many, if that is known."""

    def __call__(self, name: str, done: int, of: int | None) -> None: ...


def _untold(name: str, done: int, of: int | None) -> None:
    return None


def _unsaid(text: str) -> None:
    return None


@dataclass(frozen=True)
class Means:
    """`note` hears what a person should know; `pause` waits between two tries."""

    settings: PullSettings
    tell: Tell = _untold
    note: Callable[[str], None] = _unsaid
    artifact: ArtifactWay = wandb_artifact
    pause: Callable[[float], None] = time.sleep

    @property
    def home(self) -> Path:
        return self.settings.home
