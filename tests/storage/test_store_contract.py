"""What every object store promises, in a folder and in a bucket with and without a prefix."""

import asyncio
from pathlib import Path

import httpx
import pytest

from itemforge.errors import ObjectMissing, PermanentError
from itemforge.settings import StorageSettings, load
from itemforge.storage.face import ObjectStore
from itemforge.storage.opening import open_store

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8


@pytest.fixture(params=["folder", "gcs", "gcs with prefix"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StorageSettings:
    if request.param == "folder":
        return load(StorageSettings, storage_url_setting=(tmp_path / "objects here").as_uri())
    emulator, bucket = request.getfixturevalue("gcs_emulator"), request.getfixturevalue("gcs_bucket")
    if request.param == "gcs":
        return load(StorageSettings, gcs_bucket_name=bucket, storage_emulator_host=emulator)
    url = f"gs://{bucket}/some team/items"
    return load(StorageSettings, storage_url_setting=url, storage_emulator_host=emulator)


@pytest.fixture
def store(settings: StorageSettings) -> ObjectStore:
    return open_store(settings)


async def test_an_object_comes_back_byte_for_byte(store: ObjectStore) -> None:
    assert await store.put("generated/1.png", PNG, "image/png", {"attempt": "1", "note": "für dich"}) is True
    assert await store.get("generated/1.png") == PNG
    assert await store.exists("generated/1.png")


async def test_an_object_that_is_there_is_a_success_and_keeps_its_bytes(store: ObjectStore) -> None:
    assert await store.put("a.png", b"first", "image/png") is True
    assert await store.put("a.png", b"second", "image/png") is False
    assert await store.get("a.png") == b"first"


async def test_of_many_writers_at_once_exactly_one_wins(store: ObjectStore) -> None:
    bodies = [b"writer %d" % n * 1000 for n in range(8)]
    won = await asyncio.gather(*(store.put("x/y.png", body, "image/png") for body in bodies))
    assert won.count(True) == 1
    assert await store.get("x/y.png") == bodies[won.index(True)]


async def test_a_pointer_can_be_replaced(store: ObjectStore) -> None:
    await store.replace("styles/x/current", b"1", "text/plain")
    await store.replace("styles/x/current", b"2", "text/plain")
    assert await store.get("styles/x/current") == b"2"


async def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert await store.put("empty", b"", "application/octet-stream")
    assert await store.get("empty") == b""
    assert await store.list("") == ["empty"]


async def test_a_large_object_is_whole(store: ObjectStore) -> None:
    data = PNG * 5000  # beyond the size at which Google's client changes its way of uploading
    assert await store.put("blobs/large", data, "application/octet-stream")
    assert await store.get("blobs/large") == data
    assert await store.put("blobs/large", b"x", "application/octet-stream") is False


async def test_a_missing_object_is_named(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match=r"generated/none\.png"):
        await store.get("generated/none.png")
    assert not await store.exists("generated/none.png")
    assert not await store.exists("generated")


async def test_a_deleted_object_is_gone_and_may_come_again(store: ObjectStore) -> None:
    await store.put("a/b", b"1", "text/plain")
    await store.delete("a/b")
    await store.delete("a/b")
    await store.delete("never/was")
    assert not await store.exists("a/b")
    assert await store.list("a") == []
    assert await store.put("a/b", b"2", "text/plain") is True


async def test_a_listing_has_the_keys_that_begin_with_the_prefix_sorted(store: ObjectStore) -> None:
    for key in ("s/b/2.toml", "s/b/10.toml", "s/a/1.toml", "s/bc/1.toml", "t.txt"):
        await store.put(key, b"x", "text/plain", {"k": "v"})
    assert await store.list("s/b") == ["s/b/10.toml", "s/b/2.toml", "s/bc/1.toml"]
    assert await store.list("s/b/") == ["s/b/10.toml", "s/b/2.toml"]
    assert await store.list("") == ["s/a/1.toml", "s/b/10.toml", "s/b/2.toml", "s/bc/1.toml", "t.txt"]
    assert await store.list("nothing/here") == []


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", ".itemforge/tmp/x", "a/", "a\x00b", "é" * 600],
)
async def test_a_key_that_leads_elsewhere_is_refused(store: ObjectStore, key: str) -> None:
    for call in (
        store.put(key, b"x", "text/plain"),
        store.replace(key, b"x", "text/plain"),
        store.get(key),
        store.exists(key),
        store.delete(key),
    ):
        with pytest.raises(PermanentError, match="cannot be an object's key"):
            await call
    with pytest.raises(PermanentError):
        store.public_url(key)


async def test_the_public_url_leads_to_the_bytes(store: ObjectStore, settings: StorageSettings) -> None:
    key = "generated/ä b%.png"
    await store.put(key, PNG, "image/png")
    url = store.public_url(key)
    assert url.endswith("/generated/%C3%A4%20b%25.png")
    if url.startswith("file://"):
        assert await asyncio.to_thread(Path(httpx.URL(url).path).read_bytes) == PNG
        return
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(url)
    assert answer.content == PNG
    assert answer.headers["Content-Type"] == "image/png"


async def test_the_public_url_may_be_another(settings: StorageSettings) -> None:
    store = open_store(settings.model_copy(update={"storage_public_url": "https://cdn.example/items/"}))
    assert store.public_url("generated/1.png") == "https://cdn.example/items/generated/1.png"


async def test_the_bucket_says_where_it_is(store: ObjectStore, settings: StorageSettings) -> None:
    assert store.bucket in settings.storage_url
