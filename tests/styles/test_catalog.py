"""The gateway's catalog: shipped, local and published styles, read rarely and told apart by version."""

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest

from itemforge.errors import InvalidStyle, ObjectMissing, PermanentError, StorageUnavailable, StyleNotFound
from itemforge.styles import catalog as module
from itemforge.styles import local
from itemforge.styles.catalog import FRESH, PAUSE, Catalog, blob_key, current_key, toml_key


class Store:
    """An object store in memory that counts what is asked of it and can go away."""

    bucket = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.away = False
        self.refusing = False
        self.hanging = False

    async def get(self, key: str) -> bytes:
        await self._called(f"get {key}")
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    async def list(self, prefix: str) -> list[str]:
        await self._called(f"list {prefix}")
        return sorted(key for key in self.objects if key.startswith(prefix))

    async def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.hanging:
            await asyncio.Event().wait()
        if self.refusing:
            raise PermanentError("the store refused access")
        if self.away:
            raise StorageUnavailable("the store is away")

    def publish(self, style: str, version: int, *, current: bool = True, **keys: str) -> None:
        lines = [f'id = "{style}"', f"version = {version}", *(f'{k} = "{v}"' for k, v in keys.items())]
        self.objects[toml_key(style, version)] = "\n".join(lines).encode()
        if current:
            self.objects[current_key(style)] = f"{version}\n".encode()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home" / "styles").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch) -> None:
    """One style ships here, however many really do."""
    (tmp_path / "shipped/styles").mkdir(parents=True)
    shutil.copy(local.starter_dir() / "styles/plain.toml", tmp_path / "shipped/styles")
    monkeypatch.setattr(local, "starter_dir", lambda: tmp_path / "shipped")


@pytest.fixture
def catalog(store, home, clock) -> Catalog:
    return Catalog(store, home, clock=clock)


async def test_shipped_local_and_published_styles_are_listed(store, home):
    (home / "styles" / "mine.toml").write_text('id = "mine"\nversion = 4')
    catalog = Catalog(store, home)
    store.publish("tsuki", 2)
    store.publish("tsuki", 3, current=False)
    assert [pack.name for pack in await catalog.list()] == ["mine@4", "plain@1", "tsuki@2"]


async def test_the_list_does_not_ask_the_store_each_time(store, clock, catalog):
    await catalog.list()
    calls = len(store.calls)
    store.publish("tsuki", 1)
    assert "tsuki" not in [pack.id for pack in await catalog.list()]
    assert len(store.calls) == calls
    clock.now += FRESH
    assert "tsuki" in [pack.id for pack in await catalog.list()]


async def test_a_bare_id_means_the_current_version_and_follows_it(store, clock, catalog):
    store.publish("tsuki", 1)
    store.publish("tsuki", 2)
    assert (await catalog.get("tsuki")).version == 2
    store.publish("tsuki", 3)
    assert (await catalog.get("tsuki")).version == 2
    clock.now += FRESH
    assert (await catalog.get("tsuki")).version == 3
    assert (await catalog.get("tsuki@1")).version == 1


async def test_a_version_is_read_once(store, catalog):
    store.publish("tsuki", 1, negative="photo")
    await catalog.get("tsuki@1")
    store.publish("tsuki", 1, negative="changed, which is forbidden")
    assert (await catalog.get("tsuki@1")).negative == "photo"
    assert b"photo" in await catalog.toml("tsuki", 1)
    assert store.calls.count(f"get {toml_key('tsuki', 1)}") == 1


async def test_a_shipped_style_can_get_a_new_current_version_from_the_registry(store, catalog):
    store.publish("plain", 2)
    assert (await catalog.get("plain")).version == 2
    assert (await catalog.get("plain@1")).template.endswith("white background")


@pytest.mark.parametrize(
    "name", ["none", "none@1", "plain@99", "plain@", "plain@x", "../x", "UP", "a/b@1", ""]
)
async def test_an_unknown_style_is_not_found(name, catalog):
    with pytest.raises(StyleNotFound, match="there is no style"):
        await catalog.get(name)


async def test_blobs_come_from_beside_a_local_pack_or_from_the_store(store, home):
    data = b"weights"
    sha256 = hashlib.sha256(data).hexdigest()
    (home / "styles" / "mine.safetensors").write_bytes(data)
    (home / "styles" / "mine.toml").write_text(
        f'id = "mine"\nversion = 1\n[lora]\nsource = "mine.safetensors"\nsha256 = "{sha256}"'
    )
    store.objects[blob_key("cd" * 32)] = b"published"
    catalog = Catalog(store, home)
    assert await catalog.blob(sha256) == data
    assert await catalog.blob("cd" * 32) == b"published"
    for unknown in ("ef" * 32, "../../etc/passwd", ""):
        with pytest.raises(ObjectMissing):
            await catalog.blob(unknown)


async def test_while_the_store_is_away_shipped_and_known_styles_still_work(store, clock, catalog):
    store.publish("tsuki", 1)
    await catalog.list()
    store.away = True
    clock.now += FRESH
    assert [pack.name for pack in await catalog.list()] == ["plain@1", "tsuki@1"]
    assert (await catalog.get("plain")).name == "plain@1"
    assert (await catalog.get("tsuki")).name == "tsuki@1"


async def test_at_a_start_without_the_store_the_shipped_styles_work(store, home):
    store.away = True
    catalog = Catalog(store, home)
    assert (await catalog.get("plain")).name == "plain@1"
    assert [pack.name for pack in await catalog.list()] == ["plain@1"]
    with pytest.raises(StorageUnavailable):
        await catalog.get("tsuki")


@pytest.mark.parametrize("trouble", ["away", "refusing", "hanging"])
async def test_a_store_in_trouble_is_asked_seldom_and_holds_no_shipped_style_up(
    trouble, store, home, clock, monkeypatch
):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    setattr(store, trouble, True)
    catalog = Catalog(store, home, clock=clock)
    for _ in range(3):
        assert (await catalog.get("plain")).name == "plain@1"
        assert [pack.name for pack in await catalog.list()] == ["plain@1"]
    assert sorted(store.calls) == ["get styles/plain/current", "list styles/"]
    setattr(store, trouble, False)
    store.publish("plain", 2)
    clock.now += PAUSE
    assert [pack.name for pack in await catalog.list()] == ["plain@2"]


async def test_broken_packs_do_not_hide_the_others(store, home, catalog):
    (home / "styles" / "bad.toml").write_text("id = ")
    store.objects[toml_key("worse", 1)] = b"\xff"
    store.objects[current_key("worse")] = b"1"
    store.objects[toml_key("liar", 1)] = b'id = "other"\nversion = 1'
    store.objects[current_key("liar")] = b"1"
    store.objects[current_key("odd")] = b"not a number"
    store.publish("ahead", 1)
    store.objects[current_key("ahead")] = b"2"
    assert [pack.name for pack in await catalog.list()] == ["plain@1"]
    with pytest.raises(InvalidStyle, match="holds the style other@1"):
        await catalog.get("liar@1")


async def test_a_pack_put_at_home_while_running_is_found(home, clock, catalog):
    with pytest.raises(StyleNotFound):
        await catalog.get("late")
    (home / "styles" / "late.toml").write_text('id = "late"\nversion = 1')
    clock.now += FRESH
    assert (await catalog.get("late")).name == "late@1"
