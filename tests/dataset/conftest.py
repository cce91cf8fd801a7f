"""A small dataset, made once by the commands themselves; each test gets its own copy."""

import shutil
import sys
from pathlib import Path

import pytest

# What the steps' own tests draw and serve.
sys.path += [str(Path(__file__).parents[1] / name) for name in ("process", "captioning", "crawl", "training")]

from small_set import said, write_things

from own_log import restored_log  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def _processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_things(folder / "things")
    said("data", "import", folder / "items", folder / "things")
    manifest = folder / "items/dataset.toml"
    manifest.write_text(manifest.read_text().replace("size = 512", "size = 64"))
    said("data", "process", folder / "items", "--processes", "2")
    return folder / "items"


@pytest.fixture
def items(_processed: Path, tmp_path: Path) -> Path:
    """Processed pictures without captions."""
    shutil.copytree(_processed, tmp_path / "items")
    return tmp_path / "items"
