"""Pictures as a game takes them: made at the first read, listed in `outputs`, exported in one ZIP."""

import asyncio
import hashlib
import io
import json
import re
import zipfile
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageDraw
from pydantic import SecretStr
from rig import LOCAL, MemoryStore, Rig, headers_of, picture, running

from itemforge.contract import JobMessage, JobParams, Scheduler
from itemforge.gateway import export_routes, outputs
from itemforge.imaging.derive import recipe_json
from itemforge.imaging.png import encode_png
from itemforge.imaging.recipe import Recipe
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings

RED = (200, 30, 40)
OUTPUT = {"background": "transparent", "size": 96, "trim": True, "pad": 4, "format": "png"}


def ring(colour: tuple[int, int, int] = RED, side: int = 128) -> np.ndarray:
    """A ring on white, left of the middle."""
    image = PillowImage.new("RGB", (4 * side, 4 * side), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((0.4 * side, 0.8 * side, 2.8 * side, 3.2 * side), fill=colour)
    pen.ellipse((1.2 * side, 1.6 * side, 2 * side, 2.4 * side), fill="white")
    return np.asarray(image.resize((side, side), PillowImage.Resampling.BOX))


def recipe_of(seed: int) -> Recipe:
    return Recipe(
        prompt="a ring, «größer»",
        negative_prompt="",
        steps=2,
        sampler=Scheduler.DDIM,
        guidance=7.5,
        seed=seed,
        width=128,
        height=128,
        base="a" * 64,
        model="starter",
    )


def master(seed: int = 7, pixels: np.ndarray | None = None) -> bytes:
    return encode_png(ring() if pixels is None else pixels, recipe_of(seed))


async def drawn(rig: Rig, data: bytes | None = None, prompt: str = "a red ring", **fields: Any) -> str:
    """Submit, and be the worker of it."""
    body = await rig.submit(prompt, **fields)
    count = body["num_images"]
    attempt = (await rig.claim(body["id"]))["attempt"]
    images = [picture(body["id"], rig.store, n) for n in range(count)]
    if count > 1:
        images = [image | {"key": f"generated/{body['id']}/{image['n']}.png"} for image in images]
    for image in images:
        rig.store.objects[image["key"]] = data or master(7 + image["n"])
    assert await rig.report(body["id"], attempt, images=images) == 200
    return str(body["id"])


def opened(data: bytes) -> PillowImage.Image:
    return PillowImage.open(io.BytesIO(data))


async def test_an_output_is_listed_made_at_the_first_read_and_kept(rig: Rig) -> None:
    request_id = await drawn(rig, output=OUTPUT)
    body = (await rig.http.get(f"/v1/generations/{request_id}")).json()
    assert body["output"] == {**OUTPUT, "holes": "guess"}
    assert body["image_url"].endswith(f"generated/{request_id}.png"), "the master stays what it was"
    (told,) = body["outputs"]
    assert re.fullmatch(rf"generated/{request_id}/0\.[0-9a-f]{{8}}\.png", told["key"])
    assert told["key"] not in rig.store.objects
    answer = await rig.http.get(told["url"])
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert rig.store.objects[told["key"]] == answer.content
    made = opened(answer.content)
    assert made.mode == "RGBA" and made.size == (96, 96)
    alpha = np.asarray(made)[..., 3]
    assert alpha[48, 48] == 0 and alpha[48, 12] == 255, "the ring's hole is a hole, and it is in the middle"
    assert made.getchannel("A").getbbox() == (4, 4, 92, 92)
    assert json.loads(recipe_json(answer.content) or "")["seed"] == 7
    assert made.info["parameters"].startswith("a ring, «größer»")
    rig.store.objects[told["key"]] = b"kept"
    assert (await rig.http.get(told["url"])).content == b"kept", "not made again"


async def test_the_same_output_gives_the_same_bytes_anywhere(settings: GatewaySettings) -> None:
    made = []
    for _ in range(2):
        async with running(settings, store=MemoryStore(bucket="file:///objects")) as rig:
            request_id = await drawn(rig)
            query = "background=transparent&size=100&format=webp"
            answers = await asyncio.gather(
                *(rig.http.get(f"/v1/generations/{request_id}/image?{query}") for _ in range(5))
            )
            assert {answer.status_code for answer in answers} == {200}
            (key,) = [key for key in rig.store.objects if key.endswith(".webp")]
            public = await rig.http.get(f"{LOCAL}/objects/{key}")
            made += [answer.content for answer in answers] + [public.content]
            assert public.headers["content-type"] == "image/webp"
    assert len(set(made)) == 1 and opened(made[0]).format == "WEBP"
    assert Recipe.from_json(recipe_json(made[0]) or "") == recipe_of(7)


@pytest.mark.parametrize("n", [0, 2])
async def test_any_form_can_be_had_afterwards(rig: Rig, n: int) -> None:
    request_id = await drawn(rig, num_images=3)
    path = f"/v1/generations/{request_id}/image?n={n}"
    assert (await rig.http.get(path)).content == master(7 + n), "without parameters as it was drawn"
    white = opened((await rig.http.get(f"{path}&background=white&size=64")).content)
    assert white.mode == "RGB" and white.size == (64, 64) and white.getpixel((0, 0)) == (255, 255, 255)
    kept = opened((await rig.http.get(f"{path}&background=transparent&holes=keep")).content)
    assert kept.size == (128, 128) and kept.getpixel((51, 64))[3] == 255
    cut = opened((await rig.http.get(f"{path}&background=transparent&holes=cut")).content)
    assert cut.getpixel((51, 64))[3] == 0
    listed = (await rig.http.get(f"/v1/generations/{request_id}")).json()
    assert listed["output"] is None and listed["outputs"] == []
    assert all(f"/{n}." in key for key in rig.store.objects if key.count(".") == 2)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"size": 63}, "output.size"),
        ({"size": 1025}, "output.size"),
        ({"size": True}, "output.size"),
        ({"background": "black"}, "output.background"),
        ({"holes": "fill"}, "output.holes"),
        ({"format": "gif"}, "output.format"),
        ({"pad": -1}, "output.pad"),
        ({"size": 64, "pad": 17}, "output"),
        ({"colour": "red"}, "output.colour"),
        ("png", "output"),
    ],
)
async def test_a_wrong_output_is_refused_and_says_which_field(rig: Rig, wrong: Any, field: str) -> None:
    answer = await rig.http.post("/v1/generations", json={"prompt": "x", "output": wrong})
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]], answer.text


@pytest.mark.parametrize("query", ["size=1", "size=x", "background=red", "size=64&pad=20", "trim=maybe"])
async def test_a_wrong_query_is_refused(rig: Rig, query: str) -> None:
    request_id = await drawn(rig)
    answer = await rig.http.get(f"/v1/generations/{request_id}/image?{query}")
    assert answer.status_code == 422 and answer.json()["detail"]


async def test_what_cannot_be_cut_out_says_what_to_do(rig: Rig) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    request_id = await drawn(rig, master(pixels=noise))
    path = f"/v1/generations/{request_id}/image"
    answer = await rig.http.get(f"{path}?background=transparent")
    assert answer.status_code == 422 and "not plain" in answer.json()["detail"]
    blank = await drawn(rig, master(pixels=np.full((64, 64, 3), 255, np.uint8)))
    answer = await rig.http.get(f"/v1/generations/{blank}/image?trim=true")
    assert answer.status_code == 422 and "empty" in answer.json()["detail"]
    rig.store.objects.clear()
    assert (await rig.http.get(f"{path}?background=transparent")).status_code == 404


async def test_forms_beyond_the_first_ones_are_made_but_not_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "_KEPT", 2)
    request_id = await drawn(rig)
    for size in (64, 65, 66, 67):
        answer = await rig.http.get(f"/v1/generations/{request_id}/image?size={size}")
        assert opened(answer.content).size == (size, size)
    assert len(await rig.store.list(f"generated/{request_id}/")) == 2


async def test_the_event_loop_stays_free_while_pictures_are_made(rig: Rig) -> None:
    request_id = await drawn(rig)
    making = asyncio.create_task(rig.http.get(f"/v1/generations/{request_id}/image?size=1024"))
    answered = 0
    while not making.done():
        assert (await rig.http.get("/healthz")).status_code == 200
        answered += 1
        await asyncio.sleep(0)  # without a socket nothing above lets others run
    assert making.result().status_code == 200 and answered > 1


async def test_deleting_removes_the_derivatives(rig: Rig) -> None:
    request_id = await drawn(rig, output=OUTPUT)
    await rig.http.get(f"/v1/generations/{request_id}/image?size=64")
    assert len(await rig.store.list(f"generated/{request_id}")) == 2
    assert (await rig.http.delete(f"/v1/generations/{request_id}?forever=true")).status_code == 204
    assert await rig.store.list("generated/") == []


async def test_the_message_has_the_output_and_a_retry_asks_for_it_again(rig: Rig) -> None:
    request_id = await drawn(rig, output=OUTPUT)
    again = await rig.http.post(f"/v1/generations/{request_id}/retry")
    assert again.json()["output"] == {**OUTPUT, "holes": "guess"}
    claim = await rig.claim(again.json()["id"])
    assert claim["params"]["output"]["size"] == 96


def test_what_others_mean_by_output_fails_no_message() -> None:
    body = {"request_id": str(uuid4()), "params": {"prompt": "x", "output": {"kind": "tiff"}}}
    assert JobMessage.model_validate(body).params.output is None
    assert b"output" not in JobMessage(request_id=uuid4(), params=JobParams(prompt="x")).encode()


# ── Exports ──────────────────────────────────────────────────────────────────────────────────────


async def exported(rig: Rig, **body: Any) -> zipfile.ZipFile:
    answer = await rig.http.post("/v1/exports", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    return archive


async def test_a_zip_has_the_pictures_and_a_manifest_that_describes_them(rig: Rig) -> None:
    ids = [await drawn(rig, prompt="../Größe 1!"), await drawn(rig, num_images=2)]
    archive = await exported(rig, ids=[*ids, ids[0]], output={"background": "transparent", "size": 64})
    manifest = json.loads(archive.read("manifest.json"))
    files = [each["file"] for each in manifest["pictures"]]
    assert files == ["größe-1-7.png", "a-red-ring-7.png", "a-red-ring-8.png"]
    assert archive.namelist() == [*files, "manifest.json"] and manifest["missing"] == []
    for each in manifest["pictures"]:
        data = archive.read(each["file"])
        assert each["sha256"] == hashlib.sha256(data).hexdigest() and each["bytes"] == len(data)
        assert opened(data).size == (each["size"]["width"], each["size"]["height"]) == (64, 64)
        assert each["recipe"]["seed"] == int(each["seed"]) and each["style"] == "plain@1"
    assert manifest["pictures"][0]["prompt"] == "../Größe 1!"
    repeated = await rig.http.post("/v1/exports", json={"ids": ids})
    assert repeated.content == (await rig.http.post("/v1/exports", json={"ids": ids})).content
    as_drawn = zipfile.ZipFile(io.BytesIO(repeated.content))
    assert as_drawn.read("a-red-ring-8.png") == master(8)


async def test_pictures_of_one_name_get_names_of_their_own(rig: Rig) -> None:
    ids = [await drawn(rig, prompt=prompt) for prompt in ("a ring", "A  ring!", "💍", "con")]
    names = (await exported(rig, ids=ids)).namelist()
    assert names == ["a-ring-7.png", "a-ring-7-2.png", "item-7.png", "con-7.png", "manifest.json"]


async def test_an_atlas_has_all_pictures_on_sheets(rig: Rig) -> None:
    ids = [await drawn(rig, master(pixels=ring((10 * n, 90, 200 - 9 * n)))) for n in range(6)]
    archive = await exported(
        rig, ids=ids, form="atlas", output={"background": "transparent", "size": 100}, atlas={"max_side": 256}
    )
    manifest = json.loads(archive.read("manifest.json"))
    frames: dict[str, Any] = {}
    for name in archive.namelist():
        if name.startswith("atlas") and name.endswith(".json"):
            data = json.loads(archive.read(name))
            sheet = opened(archive.read(data["meta"]["image"]))
            assert sheet.size == (data["meta"]["size"]["w"], data["meta"]["size"]["h"])
            frames |= dict.fromkeys(data["frames"], data["meta"]["image"])
    assert len(frames) == 6
    assert {each["file"]: each["sheet"] for each in manifest["pictures"]} == frames


async def test_what_is_missing_is_said_and_the_rest_comes(rig: Rig) -> None:
    ids = [await drawn(rig) for _ in range(3)]
    del rig.store.objects[f"generated/{ids[1]}.png"]
    manifest = json.loads((await exported(rig, ids=ids)).read("manifest.json"))
    assert [each["id"] for each in manifest["pictures"]] == [ids[0], ids[2]]
    assert [each["id"] for each in manifest["missing"]] == [ids[1]] and manifest["missing"][0]["reason"]
    answer = await rig.http.post("/v1/exports", json={"ids": [ids[1]]})
    assert answer.status_code == 422 and "none of the pictures" in answer.json()["detail"]


async def test_an_export_that_cannot_be_meant_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    done, pending = await drawn(rig, num_images=2), (await rig.submit())["id"]
    for body, status, said in (
        ({"ids": []}, 422, "ids"),
        ({"ids": [str(uuid4()) for _ in range(501)]}, 422, "500"),
        ({"ids": [str(uuid4())]}, 404, "no generation"),
        ({"ids": [done, pending]}, 409, pending),
        ({"ids": [done], "form": "tar"}, 422, "form"),
        ({"ids": [done], "atlas": {}}, 422, "atlas"),
        ({"ids": [done], "form": "atlas", "atlas": {"max_side": 100}}, 422, "max_side"),
        (
            {"ids": [done], "form": "atlas", "output": {"size": 512}, "atlas": {"max_side": 256}},
            422,
            "512x512",
        ),
    ):
        answer = await rig.http.post("/v1/exports", json=body)
        assert answer.status_code == status and said in answer.text, (body, answer.text)
    monkeypatch.setattr(export_routes, "MAX_PICTURES", 1)
    answer = await rig.http.post("/v1/exports", json={"ids": [done]})
    assert answer.status_code == 422 and "2 pictures" in answer.json()["detail"]
    monkeypatch.setattr(export_routes, "MAX_PICTURES", 500)
    monkeypatch.setattr(export_routes, "MAX_PIXELS", {"zip": 100, "atlas": 100})
    answer = await rig.http.post("/v1/exports", json={"ids": [done]})
    assert answer.status_code == 422 and "pixels" in answer.json()["detail"]


async def test_with_keys_everybody_exports_only_their_own(settings: GatewaySettings) -> None:
    keyed = settings.model_copy(update={"admin_key": SecretStr("the bootstrap key of these tests")})
    admin = {"X-API-Key": "the bootstrap key of these tests"}
    async with running(keyed) as rig:
        ann, bob = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        worker = await headers_of(rig, Role.WORKER)
        made = await rig.http.post("/v1/generations", json={"prompt": "a ring", "seed": 7}, headers=ann)
        request_id = made.json()["id"]
        rig.http.headers.update(admin)
        attempt = (await rig.claim(request_id))["attempt"]
        rig.store.objects[f"generated/{request_id}.png"] = master()
        assert await rig.report(request_id, attempt) == 200
        del rig.http.headers["X-API-Key"]
        body = {"ids": [request_id]}
        codes = {
            who: (await rig.http.post("/v1/exports", json=body, headers=headers)).status_code
            for who, headers in {"ann": ann, "bob": bob, "worker": worker, "admin": admin, "": {}}.items()
        }
        assert codes == {"ann": 200, "bob": 404, "worker": 403, "admin": 200, "": 401}
        path = f"/v1/generations/{request_id}/image?size=64"
        assert (await rig.http.get(path, headers=bob)).status_code == 404
        assert (await rig.http.get(path, headers=ann)).status_code == 200
