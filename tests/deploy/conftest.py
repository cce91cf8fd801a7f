"""Roots for the tests of `deploy/`: made once a session, since each costs a minute and more."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockerfile import ROOT, Stage, build, context

from services.chroot import Root, debootstrap, need_debootstrap


@pytest.fixture(scope="session")
def bookworm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A minimal Debian 12, to be copied."""
    need_debootstrap()
    path = tmp_path_factory.mktemp("bookworm") / "root"
    debootstrap(path)
    yield Root(path)
    shutil.rmtree(path)  # pytest would keep gigabytes for three sessions


@pytest.fixture(scope="session")
def build_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = tmp_path_factory.mktemp("context")
    context(ROOT, files)
    return files


@pytest.fixture(scope="session")
def gateway_image(
    bookworm: Root, build_context: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    work = tmp_path_factory.mktemp("gateway-image")
    yield build(ROOT / "deploy/docker/gateway.Dockerfile", build_context, bookworm, work)
    shutil.rmtree(work)


@pytest.fixture(scope="session")
def worker_image(
    bookworm: Root, build_context: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    work = tmp_path_factory.mktemp("worker-image")
    yield build(ROOT / "deploy/docker/worker.Dockerfile", build_context, bookworm, work)
    shutil.rmtree(work)
