"""The worker's cache: local first, fetched once, verified, and never larger than its limit."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from itemforge.errors import GatewayUnavailable, InvalidStyle, ModelError, ObjectMissing, StyleNotFound
from itemforge.styles.cache import StyleCache
from itemforge.styles.pack import StylePack


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pack_of(name: str, version: int, *loras: bytes, source: str = "blob") -> StylePack:
    tables = tuple({"source": source, "sha256": sha(data), "weight": 0.5} for data in loras)
    return StylePack(id=name, version=version, loras=tables)


class Source:
    """A gateway in memory that counts its calls; `gate` holds the answers back."""

    def __init__(self, *packs: StylePack, blobs: tuple[bytes, ...] = ()) -> None:
        self.packs = {(pack.id, pack.version): pack.to_toml().encode() for pack in packs}
        self.blobs = {sha(data): data for data in blobs}
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def pack_toml(self, style: str, version: int | None) -> bytes:
        self.calls.append(f"{style}@{version}")
        await self.gate.wait()
        if version is None:
            version = max((v for i, v in self.packs if i == style), default=0)
        if (style, version) not in self.packs:
            raise StyleNotFound(style)
        return self.packs[style, version]

    async def blob(self, sha256: str) -> bytes:
        self.calls.append(sha256)
        await self.gate.wait()
        if sha256 not in self.blobs:
            raise ObjectMissing(sha256)
        return self.blobs[sha256]


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home" / "styles").mkdir(parents=True)
    return tmp_path / "home"


async def test_shipped_and_local_packs_need_no_source(home):
    (home / "styles" / "mine.toml").write_text(pack_of("mine", 2).to_toml())
    cache = StyleCache(home)
    assert (await cache.pack("plain")).name == "plain@1"
    assert (await cache.pack("mine")).name == "mine@2"
    assert (await cache.pack("mine@2")).name == "mine@2"
    assert await cache.loras(await cache.pack("plain")) == ()
    for unknown in ("none", "mine@3", "../x", ""):
        with pytest.raises(StyleNotFound):
            await cache.pack(unknown)


async def test_a_local_lora_lies_beside_its_pack(home):
    pack = pack_of("mine", 1, b"weights", source="sub/mine.safetensors")
    (home / "styles" / "mine.toml").write_text(pack.to_toml())
    file = home / "styles" / "sub" / "mine.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    cache = StyleCache(home)

    assert await cache.loras(await cache.pack("mine")) == ((file, sha(b"weights"), 0.5),)
    assert await cache.loras(pack, 0.8) == ((file, sha(b"weights"), 0.8),)
    assert await cache.by_sha256(sha(b"weights")) == file

    file.write_bytes(b"changed")
    with pytest.raises(InvalidStyle, match="under a new version"):
        await cache.loras(pack)


async def test_a_local_source_cannot_lead_out_of_its_folder(home):
    (home / "secret.safetensors").write_bytes(b"weights")
    pack = pack_of("mine", 1, b"weights", source="../secret.safetensors")
    (home / "styles" / "mine.toml").write_text(pack.to_toml())
    with pytest.raises(InvalidStyle, match="outside its folder"):
        await StyleCache(home).loras(pack)


async def test_a_published_style_is_fetched_once_and_kept(home):
    pack = pack_of("tsuki", 3, b"one", b"two")
    source = Source(pack, blobs=(b"one", b"two"))
    cache = StyleCache(home, source)

    fetched = await cache.pack("tsuki@3")
    first = await cache.loras(fetched)
    assert fetched == pack
    assert [path.read_bytes() for path, _, _ in first] == [b"one", b"two"]
    calls = len(source.calls)

    again = StyleCache(home, source)
    assert await again.loras(await again.pack("tsuki@3")) == first
    assert len(source.calls) == calls
    offline = StyleCache(home)
    assert await offline.loras(await offline.pack("tsuki@3")) == first


async def test_a_bare_id_asks_for_the_current_version_each_time(home):
    source = Source(pack_of("tsuki", 1))
    cache = StyleCache(home, source)
    assert (await cache.pack("tsuki")).version == 1
    source.packs["tsuki", 2] = pack_of("tsuki", 2).to_toml().encode()
    assert (await cache.pack("tsuki")).version == 2


async def test_requests_at_the_same_time_download_once(home):
    pack = pack_of("tsuki", 3, b"one")
    source = Source(pack, blobs=(b"one",))
    source.gate.clear()
    cache = StyleCache(home, source)
    packs = [asyncio.create_task(cache.pack("tsuki@3")) for _ in range(8)]
    loras = [asyncio.create_task(cache.loras(pack)) for _ in range(8)]
    await asyncio.sleep(0)
    source.gate.set()

    assert set(await asyncio.gather(*packs)) == {pack}
    assert len(set(await asyncio.gather(*loras))) == 1
    assert sorted(source.calls) == sorted(["tsuki@3", sha(b"one")])


async def test_what_came_damaged_is_refused_and_asked_for_again(home):
    pack = pack_of("tsuki", 3, b"one")
    source = Source(pack)
    source.blobs[sha(b"one")] = b"damaged"
    cache = StyleCache(home, source)
    with pytest.raises(InvalidStyle, match="came with the sha256"):
        await cache.loras(pack)
    assert not list((home / "cache").rglob("*.safetensors"))
    source.blobs[sha(b"one")] = b"one"
    ((path, _, _),) = await cache.loras(pack)
    assert path.read_bytes() == b"one"


async def test_another_pack_than_the_one_asked_for_is_refused(home):
    source = Source()
    source.packs["tsuki", 3] = pack_of("tsuki", 4).to_toml().encode()
    with pytest.raises(InvalidStyle, match="asked for the style tsuki@3, got tsuki@4"):
        await StyleCache(home, source).pack("tsuki@3")


async def test_errors_of_the_source_pass_through_and_the_next_try_works(home):
    class Away(Source):
        away = True

        async def blob(self, sha256: str) -> bytes:
            if self.away:
                raise GatewayUnavailable("away")
            return await super().blob(sha256)

    pack = pack_of("tsuki", 3, b"one")
    source = Away(pack, blobs=(b"one",))
    cache = StyleCache(home, source)
    with pytest.raises(GatewayUnavailable):
        await cache.loras(pack)
    source.away = False
    assert len(await cache.loras(pack)) == 1


async def test_the_least_recently_used_files_go_first(home):
    data = [bytes([n]) * 1000 for n in range(4)]
    source = Source(blobs=tuple(data))
    cache = StyleCache(home, source, limit=2500)
    paths = {}
    for n in (0, 1):
        ((paths[n], _, _),) = await cache.loras(pack_of("x", n + 1, data[n]))
        os.utime(paths[n], (n + 1, n + 1))
    await cache.loras(pack_of("x", 1, data[0]))  # used again: now the newest

    ((paths[2], _, _),) = await cache.loras(pack_of("x", 3, data[2]))

    assert [paths[n].exists() for n in range(3)] == [True, False, True]


async def test_a_lora_that_nobody_has_says_where_to_put_it(home):
    with pytest.raises(ModelError, match=r"put it at .*cache/blobs"):
        await StyleCache(home).by_sha256("ab" * 32)
