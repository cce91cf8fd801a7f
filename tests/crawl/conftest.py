"""A wiki, and a crawl that never waits."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_wiki import FakeWiki

from itemforge.dataset.crawl.fetching import Limits
from itemforge.dataset.crawl.run import Means, Report, crawl
from itemforge.dataset.crawl.visitor import Manners
from own_log import restored_log  # noqa: F401 - a fixture

Crawl = Callable[..., Report]


@pytest.fixture
def wiki() -> Iterator[FakeWiki]:
    served = FakeWiki()
    yield served
    served.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "items"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def waits() -> list[float]:
    """The seconds that a crawl would have waited."""
    return []


@pytest.fixture
def crawled(wiki: FakeWiki, out: Path, notes: list[str], waits: list[float]) -> Crawl:
    """Crawls an address of the wiki into `out`."""

    def run(path: str, way: str = "auto", limits: Limits | None = None, **manners: object) -> Report:
        polite = Manners(
            "tests@example.org", **({"delay": 0.0, "backoff": 0.0, "allow_private": True} | manners)
        )
        means = Means(note=notes.append, pause=waits.append)
        return crawl(wiki.url + path, out, polite, limits or Limits(5 * 10**7, 5 * 10**9), way, means)

    return run
