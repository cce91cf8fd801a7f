"""A Gemini of the tests' own, the real client for it, and an empty cache."""

from collections.abc import Callable, Iterator

import pytest
from gemini_server import KEY, GeminiServer, serving
from pydantic import SecretStr

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.gemini import GeminiCaptioner, GeminiOptions


def _open(url: str, **options: object) -> GeminiCaptioner:
    chosen = {"base_url": url, "timeout": 5.0, "attempts": 3, "pause": 0.01, **options}
    return GeminiCaptioner(SecretStr(KEY), GeminiOptions(**chosen))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def _server() -> Iterator[GeminiServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def captioner(_server: GeminiServer) -> Iterator[GeminiCaptioner]:
    """One for all tests: it takes half a second to make, and keeps nothing."""
    with _open(_server.url) as opened:
        yield opened


@pytest.fixture
def gemini(_server: GeminiServer) -> GeminiServer:
    _server.reset()
    return _server


@pytest.fixture
def open_captioner(gemini: GeminiServer) -> Iterator[Callable[..., GeminiCaptioner]]:
    opened: list[GeminiCaptioner] = []

    def open_one(**options: object) -> GeminiCaptioner:
        opened.append(_open(**{"url": gemini.url, **options}))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def cache() -> Iterator[CaptionCache]:
    with CaptionCache() as opened:
        yield opened
