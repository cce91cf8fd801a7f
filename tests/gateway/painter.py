"""The worker of a rig: draws what is published, a red ball each, and tells how far it is."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw
from rig import Rig

from itemforge.contract import object_key

STEPS = 4


def ball(width: int, height: int) -> bytes:
    """A PNG of a red ball on white."""
    image = PillowImage.new("RGB", (width, height), "white")
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    ImageDraw.Draw(image).ellipse(box, fill=(200, 30, 40))
    return _file(image)


def noise(width: int, height: int) -> bytes:
    """A PNG without any plain ground."""
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    return _file(PillowImage.fromarray(pixels))


def _file(image: PillowImage.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@asynccontextmanager
async def painting(rig: Rig, headers: dict[str, str] | None = None) -> AsyncIterator[None]:
    """Inside the block everything that is published is drawn; prompts with "broken" in them fail, "noise" is noise.

    `headers` are of a worker's key, where the rig has keys.
    """
    task = asyncio.create_task(_paint(rig, headers or {}))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _paint(rig: Rig, headers: dict[str, str]) -> None:
    done = 0
    while True:
        for request_id in rig.broker.ids[done:]:
            done += 1
            await _serve(rig, headers, request_id)
        await asyncio.sleep(0.02)


async def _serve(rig: Rig, headers: dict[str, str], request_id: str) -> None:
    async def call(what: str, body: Any) -> Any:
        answer = await rig.http.post(f"/v1/worker/{what}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    (claim,) = await call("claims", {"worker_id": "painter", "jobs": [{"request_id": request_id}]})
    if claim["outcome"] != "claimed":
        return
    attempt, params = claim["attempt"], claim["params"]
    report: dict[str, Any] = {"request_id": request_id, "attempt": attempt, "status": "Completed"}
    images = range(params["num_images"])
    for step in range(1, STEPS):
        rows = [
            {"request_id": request_id, "attempt": attempt, "step": step, "steps": STEPS, "image": n}
            for n in images
        ]
        await call(
            "heartbeat", {"worker_id": "painter", "state": "ready", "free": 0, "rows": rows, "held": 0}
        )
    if "broken" in params["prompt"]:
        report |= {"status": "Failed", "error": "the prompt broke it"}
    else:
        draw = noise if "noise" in params["prompt"] else ball
        report["images"] = [await _stored(rig, request_id, params, n, draw) for n in images]
    await call("reports", [report])


async def _stored(rig: Rig, request_id: str, params: dict[str, Any], n: int, draw: Any) -> dict[str, Any]:
    key = object_key(UUID(request_id), n, params["num_images"])
    width, height = params["width"], params["height"]
    await rig.store.put(key, draw(width, height), "image/png")
    return {
        "n": n,
        "seed": str(int(params["seed"]) + n),
        "bucket": rig.store.bucket,
        "key": key,
        "url": rig.store.public_url(key),
        "width": width,
        "height": height,
    }
