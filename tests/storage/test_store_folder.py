"""The folder store alone: what stands on the disk, and what happens when the disk refuses."""

import errno
import json
import os
from pathlib import Path

import pytest

from itemforge.errors import ConfigurationError, PermanentError, StorageUnavailable
from itemforge.settings import StorageSettings, load
from itemforge.storage.folder import FolderStore
from itemforge.storage.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "objects")


def everything_under(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


async def test_content_type_and_metadata_stand_beside_and_go_with_the_object(
    store: FolderStore, tmp_path: Path
) -> None:
    await store.put("generated/1.png", b"x", "image/png", {"attempt": "2"})
    beside = tmp_path / "objects/.itemforge/meta/generated/1.png.json"
    assert json.loads(beside.read_text()) == {"content_type": "image/png", "metadata": {"attempt": "2"}}
    await store.delete("generated/1.png")
    assert everything_under(tmp_path / "objects") == set()


async def test_no_temporary_file_is_left_behind(store: FolderStore, tmp_path: Path) -> None:
    for _ in range(2):
        await store.put("a", b"x", "text/plain")
        await store.replace("b", b"x", "text/plain")
    assert everything_under(tmp_path / "objects") == {
        "a",
        "b",
        ".itemforge/meta/a.json",
        ".itemforge/meta/b.json",
    }


def test_old_temporary_files_of_a_killed_process_are_removed_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "objects/.itemforge/tmp"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"x")
    os.utime(folder / "old", (1_000_000, 1_000_000))
    (folder / "being-written").write_bytes(b"x")
    FolderStore(tmp_path / "objects")
    assert everything_under(folder) == {"being-written"}


@pytest.mark.parametrize(
    ("number", "error", "advice"),
    [
        (errno.ENOSPC, StorageUnavailable, "free disk space"),
        (errno.EDQUOT, StorageUnavailable, "free disk space"),
        (errno.EIO, StorageUnavailable, "check the disk"),
        (errno.EACCES, PermanentError, "write permission"),
        (errno.EROFS, PermanentError, "write permission"),
        (errno.EPERM, PermanentError, "write permission"),
    ],
)
@pytest.mark.parametrize("operation", ["put", "replace"])
async def test_a_disk_that_refuses_is_a_clear_error_and_leaves_nothing(
    store: FolderStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    advice: str,
    operation: str,
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error, match=advice) as raised:
        await getattr(store, operation)("a", b"x", "text/plain")
    assert os.strerror(number) in str(raised.value)
    assert everything_under(tmp_path / "objects") == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
async def test_a_disk_that_is_really_full_is_retryable(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def open_full(path: Path, mode: str = "r") -> object:
        return opened(Path("/dev/full"), "wb") if "x" in mode else opened(path, mode)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StorageUnavailable, match="full"):
        await store.put("a", b"x", "text/plain")


def test_a_file_in_the_folder_s_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("not a folder")
    with pytest.raises(PermanentError, match="object folder"):
        FolderStore(tmp_path / "objects")


async def test_a_key_below_an_object_or_in_a_folder_s_place_is_refused(store: FolderStore) -> None:
    await store.put("a", b"x", "text/plain")
    with pytest.raises(PermanentError, match="below another"):
        await store.put("a/b", b"x", "text/plain")
    await store.put("folder/b", b"x", "text/plain")
    with pytest.raises(PermanentError, match="below another"):
        await store.put("folder", b"x", "text/plain")
    assert not await store.exists("a/b")
    await store.delete("a/b")
    await store.delete("folder")
    assert await store.list("") == ["a", "folder/b"]


def test_without_settings_objects_lie_at_home(tmp_path: Path) -> None:
    store = open_store(load(StorageSettings, home=tmp_path / "home"))
    assert isinstance(store, FolderStore)
    assert store.bucket == (tmp_path / "home/objects").as_uri()


@pytest.mark.parametrize("url", ["s3://bucket", "gs://", "file://elsewhere/x", "objects", "/objects"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="ITEMFORGE_STORAGE_URL"):
        open_store(load(StorageSettings, storage_url_setting=url))
