import io
import struct
import zlib

import pytest
from PIL import Image as PillowImage
from rig import LOCAL, MemoryStore, Rig, png, running

from itemforge.settings import GatewaySettings


async def _drawn(rig: Rig) -> str:
    request_id: str = (await rig.submit())["id"]
    await rig.draw(request_id)
    return f"/v1/generations/{request_id}"


async def test_the_png_comes_as_it_was_drawn_and_is_cached(rig: Rig) -> None:
    path = await _drawn(rig)
    answer = await rig.http.get(f"{path}/image")
    assert answer.content == png() and answer.headers["content-type"] == "image/png"
    assert "private" in answer.headers["cache-control"]
    headers = {"If-None-Match": answer.headers["etag"]}
    again = await rig.http.get(f"{path}/image", headers=headers)
    assert again.status_code == 304 and again.content == b""
    assert (await rig.http.head(f"{path}/image")).status_code == 200


async def test_a_picture_that_is_not_there_says_why(rig: Rig) -> None:
    body = await rig.submit()
    path = f"/v1/generations/{body['id']}"
    early = await rig.http.get(f"{path}/image")
    assert early.status_code == 409 and early.headers["retry-after"]
    await rig.http.post(f"{path}/cancel")
    assert (await rig.http.get(f"{path}/image")).status_code == 404
    done = await _drawn(rig)
    assert (await rig.http.get(f"{done}/image?n=1")).status_code == 404
    assert (await rig.http.get(f"{done}/image?n=-1")).status_code == 422
    assert (await rig.http.get(f"{done}/thumbnail?n=1")).status_code == 404


@pytest.mark.parametrize("size", [64, 128, 256])
async def test_a_thumbnail_is_small_and_made_once(rig: Rig, size: int) -> None:
    path = await _drawn(rig)
    answer = await rig.http.get(f"{path}/thumbnail", params={"size": size})
    assert answer.headers["content-type"] == "image/jpeg"
    with PillowImage.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (size, size // 2)
    (key,) = await rig.store.list("thumbnails/")
    rig.store.objects[key] = b"kept"
    assert (await rig.http.get(f"{path}/thumbnail", params={"size": size})).content == b"kept"


async def test_other_thumbnail_sizes_and_broken_pictures_are_refused(rig: Rig) -> None:
    path = await _drawn(rig)
    assert (await rig.http.get(f"{path}/thumbnail?size=100")).status_code == 422
    bomb = png(1, 1).replace(struct.pack(">II", 1, 1), struct.pack(">II", 60000, 60000))
    crc = struct.pack(">I", zlib.crc32(bomb[12:29]))
    for broken in (b"not a picture", b"", png()[:60], bomb[:29] + crc + bomb[33:]):
        rig.store.objects = dict.fromkeys(rig.store.objects, broken)
        assert (await rig.http.get(f"{path}/thumbnail")).status_code == 422, broken[:40]


async def test_a_folders_pictures_are_served_under_the_gateways_own_address(
    settings: GatewaySettings,
) -> None:
    async with running(settings, store=MemoryStore(bucket="file:///objects")) as rig:
        path = await _drawn(rig)
        body = (await rig.http.get(path)).json()
        key = f"generated/{body['id']}.png"
        assert body["image_url"] == body["images"][0]["url"] == f"{LOCAL}/objects/{key}"
        assert (await rig.http.get(f"/status/{body['id']}")).json()["image_url"] == body["image_url"]
        answer = await rig.http.get(body["image_url"])
        assert answer.content == png() and "immutable" in answer.headers["cache-control"]
        elsewhere = await rig.http.get(path, headers={"Host": "localhost:9"})
        assert elsewhere.json()["image_url"] == f"http://localhost:9/objects/{key}"
    public = settings.model_copy(update={"public_url": "https://items.example/"})
    async with running(public, store=MemoryStore(bucket="file:///objects")) as rig:
        body = (await rig.http.get(await _drawn(rig))).json()
        assert body["image_url"] == f"https://items.example/objects/generated/{body['id']}.png"


NOT_PUBLIC = [
    "styles/plain/1.toml",
    "generated/../styles/secret.png",
    "generated/%2e%2e/%2e%2e/secret.png",
    "generated//secret.png",
    "generated/.hidden.png",
    "generated\\..\\secret.png",
    "/etc/passwd",
    "generated/secret.json",
    "generated/none.png",
    "generated/a%00.png",
    "generated/" + "a" * 300 + ".png",
    "generated/" + "a/" * 600 + "a.png",
]


async def test_only_pictures_are_public(settings: GatewaySettings) -> None:
    hidden = dict.fromkeys(
        ("styles/plain/1.toml", "styles/secret.png", "generated/../styles/secret.png", "generated/secret.json",
         "generated//secret.png", "generated/.hidden.png", "secret.png"), b"secret")  # fmt: skip
    async with running(settings, store=MemoryStore(bucket="file:///objects", objects=hidden)) as rig:
        for key in NOT_PUBLIC:
            answer = await rig.http.get(f"/objects/{key}")
            assert answer.status_code == 404 and b"secret" not in answer.content, key


async def test_a_folder_that_the_worker_mounts_elsewhere_is_the_same_folder(
    settings: GatewaySettings,
) -> None:
    async with running(settings, store=MemoryStore(bucket="file:///worker/objects")) as rig:
        path = await _drawn(rig)
        rig.store.bucket = "file:///gateway/objects"
        assert (await rig.http.get(f"{path}/image")).content == png()


async def test_a_picture_that_was_removed_from_the_store_is_404(rig: Rig) -> None:
    path = await _drawn(rig)
    rig.store.objects.clear()
    answer = await rig.http.get(f"{path}/image")
    assert answer.status_code == 404 and "not in the store any more" in answer.json()["detail"]


async def test_a_bucket_is_not_served_by_the_gateway(rig: Rig) -> None:
    rig.store.objects["generated/a.png"] = png()
    assert (await rig.http.get("/objects/generated/a.png")).status_code == 404


async def test_a_picture_that_only_its_worker_can_reach_is_redirected_to(rig: Rig) -> None:
    body = await rig.submit()
    await rig.http.put(
        f"/update_db/{body['id']}", json={"status": "completed", "image_url": "https://cdn.example/1.png"}
    )
    answer = await rig.http.get(f"/v1/generations/{body['id']}/image")
    assert answer.status_code == 307 and answer.headers["location"] == "https://cdn.example/1.png"


async def test_the_original_workers_picture_is_found_by_the_contracts_key(rig: Rig) -> None:
    body = await rig.submit()
    rig.store.objects[f"generated/{body['id']}.png"] = png()
    await rig.http.put(
        f"/update_db/{body['id']}", json={"status": "completed", "image_url": "https://cdn.example/1.png"}
    )
    path = f"/v1/generations/{body['id']}"
    assert (await rig.http.get(f"{path}/image")).content == png()
    (picture,) = (await rig.http.get(path)).json()["images"]
    assert picture["url"] == "https://cdn.example/1.png" and picture["seed"] == body["seed"]
