"""A home, a hub on loopback, and what a pull touches the world with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo
from model_files import SD15, sd15

from itemforge.pulling.means import Means
from itemforge.settings import PullSettings, load
from own_log import restored_log  # noqa: F401 - a fixture


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ITEMFORGE_HOME", str(tmp_path / "itemforge"))
    return tmp_path / "itemforge"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    served = FakeHub()
    served.repos[SD15] = Repo(sd15())
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    yield served
    served.close()


@pytest.fixture
def means(home: Path) -> Callable[..., Means]:
    """Makes means that never wait."""

    def made(**changed: object) -> Means:
        return Means(load(PullSettings), pause=lambda _: None, **changed)  # type: ignore[arg-type]

    return made
