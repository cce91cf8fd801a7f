"""Packages of npm that tests read, fetched once into a folder that stays."""

import os
from pathlib import Path

from itemforge.dataset.packages import Archive, Package, fetch
from itemforge.errors import ConfigurationError
from services.process import unavailable


def package_folder() -> Path:
    """Where packages are kept: `ITEMFORGE_TEST_PACKAGES`, or where `itemforge data icons` keeps its own.

    To be asked before a test's own home replaces the real one.
    """
    named = os.environ.get("ITEMFORGE_TEST_PACKAGES")
    return Path(named) if named else Path.home() / ".local/share/itemforge/cache/packages"


def fetched(package: Package, folder: Path) -> Path:
    """The package's archive; the test is skipped (in CI it fails) where it cannot be had."""
    try:
        return fetch(package, folder)
    except ConfigurationError as why:
        unavailable(str(why))
        raise


def member(package: Package, folder: Path, name: str) -> bytes:
    """A file out of a package."""
    with Archive(fetched(package, folder)) as archive:
        return archive.read(name)
