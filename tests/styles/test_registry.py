"""The registry of styles: versions that never change, and a pointer that can go back."""

import asyncio
from pathlib import Path

import pytest

from itemforge.errors import InvalidInput, StyleNotFound
from itemforge.storage.folder import FolderStore
from itemforge.styles.catalog import Catalog, current_key
from itemforge.styles.local import LocalPacks
from itemforge.styles.pack import StylePack
from itemforge.styles.registry import publish, rollback, versions

PACK = StylePack(id="tale", version=1, trigger="trg", template="{prompt}, outlines")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "objects")


@pytest.fixture
def local(tmp_path: Path) -> LocalPacks:
    return LocalPacks(tmp_path)


async def test_a_published_style_is_what_a_gateway_finds(
    store: FolderStore, local: LocalPacks, tmp_path: Path
) -> None:
    made = await publish(store, PACK, [(b"weights", 0.8)], local)
    assert made.name == "tale@1"
    catalog = Catalog(store, tmp_path)
    found = await catalog.get("tale")
    assert found == made and found.loras[0].weight == 0.8
    assert await catalog.blob(found.loras[0].sha256) == b"weights"


async def test_each_publication_is_a_new_version_and_the_old_ones_stay(
    store: FolderStore, local: LocalPacks, tmp_path: Path
) -> None:
    first = await publish(store, PACK, [(b"one", 1.0)], local)
    second = await publish(store, PACK, [(b"two", 1.0)], local)
    assert (first.version, second.version) == (1, 2) and await versions(store, "tale") == [1, 2]
    catalog = Catalog(store, tmp_path)
    assert await catalog.get("tale") == second and await catalog.get("tale@1") == first


async def test_publications_at_the_same_time_get_versions_of_their_own(
    store: FolderStore, local: LocalPacks
) -> None:
    made = await asyncio.gather(*(publish(store, PACK, [(bytes([n]), 1.0)], local) for n in range(8)))
    assert sorted(pack.version for pack in made) == list(range(1, 9))


async def test_a_gateway_that_runs_sees_the_new_version_and_the_way_back(
    store: FolderStore, local: LocalPacks, tmp_path: Path
) -> None:
    now = 0.0
    catalog = Catalog(store, tmp_path, clock=lambda: now)
    for _ in range(3):
        await publish(store, PACK, [(b"x", 1.0)], local)
    assert (await catalog.get("tale")).version == 3
    assert await rollback(store, "tale") == (3, 2)
    now += 60
    assert (await catalog.get("tale")).version == 2
    assert await rollback(store, "tale", 3) == (2, 3)
    assert await rollback(store, "tale") == (3, 2)
    assert await rollback(store, "tale") == (2, 1)
    with pytest.raises(StyleNotFound, match="first version"):
        await rollback(store, "tale")
    with pytest.raises(StyleNotFound, match="no tale@9; it has 1, 2, 3"):
        await rollback(store, "tale", 9)
    with pytest.raises(StyleNotFound, match="no style 'other'"):
        await rollback(store, "other")


async def test_a_lost_pointer_means_the_newest(store: FolderStore, local: LocalPacks) -> None:
    for _ in range(2):
        await publish(store, PACK, [], local)
    await store.delete(current_key("tale"))
    assert await rollback(store, "tale") == (2, 1)


async def test_a_style_that_ships_cannot_be_hidden(store: FolderStore, local: LocalPacks) -> None:
    with pytest.raises(InvalidInput, match="choose another id"):
        await publish(store, PACK.model_copy(update={"id": "plain"}), [], local)
    assert await store.list("styles/") == []
