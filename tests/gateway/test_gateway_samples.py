"""What a style looks like: its own sample, else the caller's pictures, else a mark."""

import io

from PIL import Image
from rig import Rig, headers_of, running

from itemforge.jobs.keys import Role
from itemforge.settings import GatewaySettings


def _seen(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (256, 256))
        return picture.convert("RGB")


def _is_tomato(picture: Image.Image) -> bool:
    red, green, blue = picture.getpixel((64, 64))  # type: ignore[misc]
    return red > 220 and 60 < green < 140 and blue < 120


async def test_a_style_is_shown_by_its_own_sample(rig: Rig) -> None:
    answer = await rig.http.get("/v1/styles/plain/1/sample")
    assert (answer.content, answer.headers["content-type"]) == (b"a picture", "image/webp")
    again = await rig.http.get(
        "/v1/styles/plain/current/sample", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304
    for wrong in ("plain/2", "nobody/1", "plain/x", "plain/..", "..%2f..%2fetc/1"):
        assert (await rig.http.get(f"/v1/styles/{wrong}/sample")).status_code == 404, wrong


async def test_else_by_what_the_caller_drew_and_nobody_else(settings: GatewaySettings) -> None:
    async with running(settings) as rig:
        one, other = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        worker = await headers_of(rig, Role.WORKER)

        async def sample(of: dict[str, str]) -> Image.Image:
            answer = await rig.http.get("/v1/styles/tale/3/sample", headers=of)
            assert answer.status_code == 200, answer.text
            assert answer.headers["cache-control"].startswith("private")
            return _seen(answer.content)

        mark = await sample(one)
        assert not _is_tomato(mark)
        made = await rig.http.post("/v1/generations", json={"prompt": "a cup", "style": "tale"}, headers=one)
        rig.http.headers.update(worker)
        await rig.draw(made.json()["id"])
        del rig.http.headers["X-API-Key"]
        assert _is_tomato(await sample(one))
        assert (await sample(other)).tobytes() == mark.tobytes()
        assert (await rig.http.get("/v1/styles/tale/3/sample")).status_code == 401
        assert (await rig.http.get("/v1/styles/tale/3/sample", headers=worker)).status_code == 403
