"""Publishing a style over HTTP: what is taken, what is refused with a word that helps, and the way back."""

import hashlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rig import BASE, LOCAL, Rig, running

from itemforge.gateway import style_publishing
from itemforge.settings import GatewaySettings
from itemforge.styles.cache import StyleCache
from itemforge.styles.catalog import Catalog
from itemforge.styles.models import starter_dir

LORA = (starter_dir() / "styles" / "cel.safetensors").read_bytes()
SHA = hashlib.sha256(LORA).hexdigest()


def pack(style: str = "myth", sha256: str = SHA, base: str = BASE, **more: Any) -> str:
    fields = {"id": style, "version": 1, "base": base, "licence": "CC0-1.0", "trigger": "myth_art", **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(
        [*lines, "[lora]", 'source = "myth.safetensors"', f'sha256 = "{sha256}"', "weight = 0.7"]
    )


@pytest.fixture
async def rig(settings: GatewaySettings) -> AsyncIterator[Rig]:
    async with running(settings) as made:
        made.gateway.catalog = Catalog(made.store, settings.home)
        yield made


async def _upload(rig: Rig, data: bytes = LORA) -> Any:
    headers = {"Content-Type": "application/octet-stream"}
    return await rig.http.post("/v1/styles/blobs", content=data, headers=headers)


async def _publish(rig: Rig, toml: str, *files: str) -> Any:
    return await rig.http.post("/v1/styles/publish", json={"toml": toml, "files": files})


async def _listed(rig: Rig, style: str = "myth") -> dict[str, Any]:
    return next(each for each in (await rig.http.get("/v1/styles")).json() if each["id"] == style)


async def test_a_style_is_published_drawn_with_and_rolled_back(rig: Rig, tmp_path: Path) -> None:
    assert [style["id"] for style in (await rig.http.get("/v1/styles")).json()] == ["plain"]
    for _ in range(2):  # the same file again is the same file
        answer = await _upload(rig)
        assert answer.status_code == 201, answer.text
        assert answer.json() == {"sha256": SHA, "bytes": len(LORA), "tensors": answer.json()["tensors"]}
    assert answer.json()["tensors"] > 50

    first = await _publish(rig, pack(), SHA)
    assert first.status_code == 201, first.text
    assert (first.json()["name"], first.json()["loras"]) == ("myth@1", [{"sha256": SHA, "weight": 0.7}])
    second = await _publish(rig, pack(version=1, licence="MIT"))  # its LoRA is here already
    assert second.json()["name"] == "myth@2"
    listed = await _listed(rig)  # at once, though a catalog is believed for a while
    assert (listed["version"], listed["versions"], listed["licence"]) == (2, [1, 2], "MIT")
    assert (await rig.submit(style="myth"))["style"] == "myth@2"

    back = await rig.http.post("/v1/styles/myth/rollback", json={})
    assert back.json() == {"style": "myth", "before": 2, "now": 1}
    assert (await _listed(rig))["version"] == 1
    assert (await rig.submit(style="myth"))["style"] == "myth@1"
    forth = await rig.http.post("/v1/styles/myth/rollback", json={"version": 2})
    assert forth.json()["now"] == 2
    # What a worker gets is what was uploaded.
    found = await StyleCache(tmp_path / "worker", _Routes(rig)).pack("myth@2")
    ((file, sha256, weight),) = await StyleCache(tmp_path / "worker", _Routes(rig)).loras(found)
    assert (file.read_bytes(), sha256, weight) == (LORA, SHA, 0.7)


class _Routes:
    """Where a worker's styles come from: this gateway."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def pack_toml(self, style: str, version: int | None) -> bytes:
        return (await self._rig.http.get(f"/v1/styles/{style}/{version or 'current'}.toml")).content

    async def blob(self, sha256: str) -> bytes:
        return (await self._rig.http.get(f"/v1/styles/blobs/{sha256}")).content


def _tensors(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensor(name: str, size: int = 4) -> dict[str, Any]:
    return {name: {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no safetensors file"),
        (b"PK\x03\x04 a zip of pickles", "no safetensors file"),
        (_tensors([]), "no safetensors file"),
        (LORA[:-1], "cut off"),
        (LORA + b"x", "cut off"),
        (_tensors({"a.lora_A.weight": {"dtype": "F32"}}), "header is broken at 'a.lora_A.weight'"),
        (_tensors({}), "no tensors"),
        (_tensors(_tensor("conv_in.weight"), bytes(4)), "no LoRA: it has the tensor 'conv_in.weight'"),
        (_tensors(_tensor("lora_unet_x.hada_w1_a"), bytes(4)), "LoHa"),
        (_tensors(_tensor("unet.down.to_q.lora_B.bias"), bytes(4)), "LoRA with biases"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_no_lora_is_not_stored(rig: Rig, data: bytes, said: str) -> None:
    answer = await _upload(rig, data)
    assert answer.status_code == 422 and said in answer.json()["detail"], answer.text
    assert not [key for key in rig.store.objects if key.startswith("styles/")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_file_that_is_too_long_is_not_taken_in(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_publishing, "MAX_BLOB", 1000)
    answer = await _upload(rig)
    assert answer.status_code == 413 and "1000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("toml", "files", "said"),
    [
        ("id = ", (), "is not TOML"),
        (pack(colour="red"), (), "colour: is no key of a style pack"),
        (pack(base="c" * 64), (), f"is for the base model {'c' * 64}; this deployment draws with starter"),
        (pack(sha256="d" * 64), (), f"names a LoRA (myth.safetensors) with the sha256 {'d' * 64}"),
        (pack(sha256="d" * 64), (SHA,), f"has the sha256 {SHA}, which is not in the pack"),
        ('id = "myth"\nversion = 1', (SHA,), "it names no LoRA at all"),
        (pack("plain"), (), "wins over the registry; choose another id"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_pack_that_does_not_fit_is_refused(
    rig: Rig, toml: str, files: tuple[str, ...], said: str
) -> None:
    await _upload(rig)
    answer = await _publish(rig, toml, *files)
    assert answer.status_code == 422 and said in answer.json()["detail"], answer.text
    assert [key for key in rig.store.objects if not key.startswith("styles/blobs/")] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_there_is_no_way_back_to_what_never_was(rig: Rig) -> None:
    await _upload(rig)
    await _publish(rig, pack())
    for style, body, said in (
        ("plain", {}, "has no style 'plain'"),
        ("..%2f..", {}, "nothing at this address"),
        ("...", {}, "has no style '...'"),
        ("myth", {}, "the first version"),
        ("myth", {"version": 7}, "it has 1"),
    ):
        answer = await rig.http.post(f"/v1/styles/{style}/rollback", json=body)
        assert answer.status_code == 404 and said in answer.json()["detail"], answer.text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_page_shows_styles_and_rolls_back(rig: Rig) -> None:
    await _upload(rig)
    for licence in ("MIT", "<b>bold</b>"):
        await _publish(rig, pack(licence=licence))
    drawn = (await rig.submit("<i>cup</i>", style="myth"))["id"]
    await rig.draw(drawn)
    page = (await rig.http.get("/styles")).text
    assert "/v1/styles/myth/2/sample" in page and f"/items/{drawn}" in page
    assert (
        "&lt;b&gt;bold" in page and "&lt;i&gt;cup" in page and "<b>bold" not in page and "<i>cup" not in page
    )
    form = {"style": "myth", "version": "1"}
    answer = await rig.http.post("/studio/styles/rollback", data=form, headers={"Origin": LOCAL})
    assert answer.status_code == 200 and "myth means version 1 now" in answer.text
    assert (await _listed(rig))["licence"] == "MIT"
    for wrong in ({"style": "myth", "version": "x"}, {"style": "none", "version": "1"}):
        answer = await rig.http.post("/studio/styles/rollback", data=wrong, headers={"HX-Request": "true"})
        assert answer.status_code in (404, 422) and answer.headers["hx-retarget"] == "#toasts"
