"""Fills a gateway's database with items, as many users' gallery has them, and its store with a few pictures for them all."""

import io
import json
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from PIL import Image, ImageDraw
from sqlalchemy import insert, text

from itemforge.contract import JobParams
from itemforge.jobs.database import Database
from itemforge.jobs.tables import requests
from itemforge.storage.face import ObjectStore

PICTURES = 24
_THINGS = (
    "potion",
    "sword",
    "shield",
    "apple",
    "crown",
    "ring",
    "scroll",
    "hammer",
    "lantern",
    "key",
    "chest",
    "boot",
)
_KINDS = ("red", "blue", "old", "golden", "tiny", "broken", "wooden", "icy", "burning", "royal")
_CHUNK = 1000


async def fill(db: Database, store: ObjectStore, count: int, owner: str = "local") -> list[UUID]:
    """Completed rows, a minute apart, the last one newest; returns their ids in that order."""
    for n in range(PICTURES):
        await store.put(_key(n), draw(n), "image/png")
    chance = random.Random(5)
    ids = [UUID(int=chance.getrandbits(128), version=4) for _ in range(count)]
    for first in range(0, count, _CHUNK):
        rows = [
            _row(store, owner, n, each, count) for n, each in enumerate(ids[first : first + _CHUNK], first)
        ]
        async with db.write() as write:
            await write.conn.execute(insert(requests), rows)
    if db.postgresql:  # as after a night
        async with db.read() as conn:
            await conn.execute(text("ANALYZE requests"))
    return ids


def _row(store: ObjectStore, owner: str, n: int, request_id: UUID, count: int) -> dict[str, object]:
    at = datetime.now(UTC) - timedelta(minutes=count - n)
    thing, kind = _THINGS[n % len(_THINGS)], _KINDS[n // len(_THINGS) % len(_KINDS)]
    prompt = f"a {kind} {thing} {n}"
    params = JobParams(
        prompt=f"trg, {prompt}, thick outlines",
        style="tale@3",
        seed=n,
        num_inference_steps=20,
    )
    image = {
        "n": 0,
        "seed": str(n),
        "bucket": store.bucket,
        "key": _key(n % PICTURES),
        "url": store.public_url(_key(n % PICTURES)),
        "width": 256,
        "height": 256,
    }
    return {
        "id": request_id,
        "owner": owner,
        "status": "Completed",
        "prompt": prompt,
        "style": params.style,
        "params": json.loads(params.model_dump_json()),
        "images": [image],
        "image_url": image["url"],
        "attempt": 1,
        "charged": 0,
        "created_at": at,
        "updated_at": at,
        "finished_at": at,
        "published_at": at,
    }


def _key(n: int) -> str:
    return f"generated/00000000-0000-4000-8000-{n:012}.png"


def draw(n: int, side: int = 256) -> bytes:
    """A bottle on white with an outline; another colour and shape for each n."""
    chance = random.Random(n)
    picture = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(picture)
    colour = tuple(chance.randrange(60, 230) for _ in range(3))
    wide, high = chance.randrange(50, 90), chance.randrange(60, 90)
    middle = side // 2
    pen.rectangle((middle - 18, 40, middle + 18, 120), fill=(200, 225, 240), outline="black", width=6)
    pen.ellipse((middle - wide, 200 - high, middle + wide, 230), fill=colour, outline="black", width=8)
    pen.ellipse((middle - wide // 2, 212 - high, middle - wide // 2 + 22, 240 - high), fill="white")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
