"""The routes for OpenAI's clients, by the real `openai` package."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from painter import painting
from PIL import Image as PillowImage
from rig import MemoryStore, Rig, headers_of, listening, running, settings_for

from itemforge.gateway import waiting
from itemforge.jobs import keys
from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings
from polling import eventually


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Rig]:
    settings = settings_for(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}", tmp_path)
    async with listening(settings, store=MemoryStore(f"file://{tmp_path}")) as rig:
        yield rig


def address(rig: Rig) -> str:
    return f"{str(rig.http.base_url).rstrip('/')}/v1"


async def ask(rig: Rig, use: Callable[[OpenAI], Any], **more: Any) -> Any:
    """What a program does with the blocking client, in a thread of its own."""

    def run() -> Any:
        with OpenAI(base_url=address(rig), **{"api_key": "none", "max_retries": 0, **more}) as client:
            return use(client)

    return await asyncio.to_thread(run)


def opened(data: openai.types.Image) -> PillowImage.Image:
    assert data.b64_json
    return PillowImage.open(io.BytesIO(base64.b64decode(data.b64_json)))


async def test_pictures_come_as_the_package_expects_them(served: Rig) -> None:
    worker = await headers_of(served, Role.WORKER)
    secret = (await headers_of(served, Role.USER))["X-API-Key"]
    async with painting(served, worker):
        models = await ask(served, lambda client: [each.id for each in client.models.list()], api_key=secret)
        assert models == ["plain", "tale"]
        one = await ask(served, lambda client: client.models.retrieve("tale@3"), api_key=secret)
        assert (one.id, one.object) == ("tale@3", "model")

        two = await ask(
            served,
            lambda client: client.images.generate(
                prompt="a ball", model="tale", n=2, size="auto", quality="high", user="me"
            ),
            api_key=secret,
        )
        assert [opened(each).size for each in two.data] == [(96, 64)] * 2
        assert two.data[0].revised_prompt == "trg, a ball, thick outlines"
        assert (two.background, two.output_format, two.size) == ("opaque", "png", "96x64")
        for each in two.data:
            read = await served.http.get(each.url)  # without a key
            assert read.content == base64.b64decode(each.b64_json)
        shown = await served.http.get(f"/v1/generations/{two.id}", headers={"X-API-Key": secret})
        assert (shown.json()["status"], shown.json()["num_images"]) == ("Completed", 2)

        cut = await ask(
            served,
            lambda client: client.images.generate(
                prompt="a ball",
                background="transparent",
                output_format="webp",
                size="256x256",
                response_format="b64_json",
                extra_body={"seed": 7},
            ),
            api_key=secret,
        )
        (data,) = cut.data
        picture = opened(data)
        assert (picture.format, picture.mode, picture.size) == ("WEBP", "RGBA", (256, 256))
        assert picture.getpixel((0, 0))[3] == 0 and picture.getpixel((128, 128))[3] == 255
        assert (data.url, cut.background, cut.output_format) == (None, "transparent", "webp")

        drawn = await ask(
            served,
            lambda client: client.images.generate(
                prompt="a ball", model="tale", size="64x128", response_format="url"
            ),
            api_key=secret,
        )
        assert (drawn.data[0].b64_json, drawn.size) == (None, "64x128")
        read = await served.http.get(drawn.data[0].url)
        assert PillowImage.open(io.BytesIO(read.content)).size == (64, 128)


async def test_many_wait_at_once_and_a_size_costs_no_picture(served: Rig) -> None:
    async with painting(served), AsyncOpenAI(base_url=address(served), api_key="none") as client:
        several = await asyncio.gather(
            *(client.images.generate(prompt=f"ball {n}", size="128x128") for n in range(5))
        )
        assert [each.size for each in several] == ["128x128"] * 5
        # It has no ground that could be taken off, and so stays as it was drawn.
        assert (await client.images.generate(prompt="noise", size="128x128")).size == "64x64"
        with pytest.raises(openai.BadRequestError, match="background is not plain"):
            await client.images.generate(prompt="noise", background="transparent")


WRONG: list[tuple[dict[str, Any], type[openai.APIStatusError], str | None, str | None]] = [
    ({"prompt": " "}, openai.BadRequestError, "prompt", None),
    ({"model": "gpt-image-2.5-flare"}, openai.NotFoundError, "model", "model_not_found"),
    ({"model": "alien"}, openai.NotFoundError, "model", "model_not_found"),
    ({"size": "8x1024"}, openai.BadRequestError, "size", None),
    ({"size": "large"}, openai.BadRequestError, "size", None),
    ({"n": 17}, openai.BadRequestError, "n", None),
    ({"output_format": "jpeg"}, openai.BadRequestError, "output_format", None),
    ({"extra_body": {"stream": True}}, openai.BadRequestError, "stream", None),
    ({"extra_body": {"colour": "red"}}, openai.BadRequestError, "colour", None),
    ({"extra_body": {"seed": -1}}, openai.BadRequestError, "seed", None),
]


async def test_what_is_wrong_is_said_in_the_packages_own_errors(served: Rig) -> None:
    async with AsyncOpenAI(base_url=address(served), api_key="none", max_retries=0) as client:
        for wrong, kind, param, code in WRONG:
            with pytest.raises(kind) as caught:
                await client.images.generate(**{"prompt": "a ball", **wrong})
            error = caught.value
            assert (error.param, error.code, error.type) == (param, code, "invalid_request_error"), wrong
            assert isinstance(error.body, dict) and error.body["message"], wrong
    answer = await served.http.post("/v1/images/edits", json={})
    assert answer.status_code == 404 and answer.json()["error"]["message"]
    assert (await served.http.get("/v1/stats")).json()["requests"]["Pending"] == 0


async def test_keys_and_limits_hold_here_too(served: Rig) -> None:
    worker = (await headers_of(served, Role.WORKER))["X-API-Key"]
    secret = (await headers_of(served, Role.USER, quota=1))["X-API-Key"]

    async def refused(key: str, **more: Any) -> openai.APIStatusError:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(
                served, lambda client: client.images.generate(**{"prompt": "a ball", **more}), api_key=key
            )
        return caught.value

    wrong = await refused("wrong")
    assert isinstance(wrong, openai.AuthenticationError) and wrong.code == "invalid_api_key"
    assert isinstance(await refused(worker), openai.PermissionDeniedError)
    more = await refused(secret, n=2)
    assert isinstance(more, openai.BadRequestError) and more.param == "n"
    async with painting(served, {"X-API-Key": worker}):
        await ask(served, lambda client: client.images.generate(prompt="a ball"), api_key=secret)
    spent = await refused(secret)
    assert isinstance(spent, openai.RateLimitError) and spent.code == "rate_limit_exceeded"
    assert "1 images a day" in spent.message
    assert int(spent.response.headers["retry-after"]) > 80_000


async def test_what_fails_is_drawn_once_however_patient_the_package_is(served: Rig) -> None:
    async with painting(served):
        with pytest.raises(openai.InternalServerError, match="the prompt broke it") as caught:
            await ask(served, lambda client: client.images.generate(prompt="broken"), max_retries=2)
    assert caught.value.type == "server_error"
    (row,) = (await served.http.get("/v1/generations")).json()["items"]
    assert caught.value.request_id == row["id"]


async def test_a_wait_that_is_over_goes_on_under_the_same_key(settings: GatewaySettings) -> None:
    body, key = {"prompt": "a ball"}, {"Idempotency-Key": "one"}
    async with running(settings.model_copy(update={"images_wait": 0.2})) as rig:
        answer = await rig.http.post("/v1/images/generations", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (504, "timeout", "server_error")
        assert answer.headers["x-request-id"] in error["message"]
        assert answer.headers["x-should-retry"] == "false"
        first = await rig.http.post("/v1/images/generations", json=body, headers=key)
        assert first.status_code == 504 and "x-should-retry" not in first.headers
        async with painting(rig):
            await eventually(lambda: len(rig.store.objects) == 2, 30)
            again = await rig.http.post("/v1/images/generations", json=body, headers=key)
        assert again.status_code == 200
        assert again.json()["id"] == again.headers["x-request-id"] == first.headers["x-request-id"]
        other = await rig.http.post("/v1/images/generations", json={"prompt": "a key"}, headers=key)
        assert other.status_code == 409 and "new one" in other.json()["error"]["message"]
        assert len((await rig.http.get("/v1/generations")).json()["items"]) == 2


async def test_who_leaves_cancels_nothing(served: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK", 0.05)
    with pytest.raises(openai.APITimeoutError):
        await ask(served, lambda client: client.images.generate(prompt="a ball"), timeout=1.0)
    await eventually(lambda: not served.gateway.db.signals._watches, 30, why="nobody waits for it any more")
    (row,) = (await served.http.get("/v1/generations")).json()["items"]
    assert row["status"] == "Pending"


async def test_the_wait_ends_with_the_generation_the_key_or_the_gateway(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LOOK", 0.05)

    async def begun(rig: Rig, headers: dict[str, str]) -> tuple[asyncio.Task[httpx.Response], str]:
        """A call that waits, and the id of its generation."""

        async def newest() -> str | None:
            items = (await rig.http.get("/v1/generations", headers=headers)).json()["items"]
            return items[0]["id"] if items and items[0]["status"] == "Pending" else None

        call = asyncio.create_task(
            rig.http.post("/v1/images/generations", json={"prompt": "a ball"}, headers=headers)
        )
        return call, await eventually(newest, 30) or ""

    async with running(settings.model_copy(update={"key_cache": 0.0})) as rig:
        user = await headers_of(rig, Role.USER)
        call, request_id = await begun(rig, user)
        await rig.http.post(f"/v1/generations/{request_id}/cancel", headers=user)
        assert (await call).status_code == 409
        call, request_id = await begun(rig, user)
        await rig.http.delete(f"/v1/generations/{request_id}", headers=user)
        assert (await call).status_code == 404
        key, secret = await keys.create(rig.gateway.db, "to be revoked", Role.USER)
        call, _ = await begun(rig, {"X-API-Key": secret})
        await keys.revoke(rig.gateway.db, key.id)
        answer = await call
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        call, _ = await begun(rig, user)
        rig.gateway.db.signals.close()
        answer = await call
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
