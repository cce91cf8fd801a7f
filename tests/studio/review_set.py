"""Datasets for the tests of the review: small pictures, captions, groups, flags; quick to make."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from itemforge.dataset.process.recipe import Reason
from itemforge.dataset.processed import Processed, save_processed
from itemforge.dataset.store import Picture, Store, add_picture, now, open_store
from itemforge.dataset.store_captions import Edit, save_captions

COLOURS = ("red", "green", "blue", "gold", "grey", "purple")
THINGS = ("sword", "shield", "potion", "ring", "helmet", "bow", "apple", "key", "scroll", "boots")


def drawn(number: int, side: int = 48) -> bytes:
    """A PNG, another for each number."""
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((8, 8, side - 8, side - 8), fill=f"hsl({number * 37 % 360}, 70%, 50%)")
    pen.point([(n, 0) for n in range(24) if number >> n & 1], fill="black")
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return data.getvalue()


def put(
    store: Store,
    number: int,
    name: str,
    fields: Mapping[str, Any] | None = None,
    *,
    url: str = "https://wiki.test/File",
    reason: str = "",
    group: str = "",
    kept: bool = True,
    processed: bool = True,
    others: Mapping[str, str] | None = None,
) -> str:
    """One picture as the steps before the review leave it; its sha256."""
    data = drawn(number)
    sha256 = hashlib.sha256(data).hexdigest()
    picture = Picture(sha256, "", "image/png", 48, 48, len(data), now())
    for path in (store.path(picture), store.folder / f"processed/pictures/{sha256}-recipe000000.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source = {
        "page": "Items",
        "section": "",
        "title": f"File:{name}.png",
        "uploader": "ann",
        "licence": "CC BY",
    }
    source |= dict(others or {})
    with store.change() as db:
        add_picture(db, picture)
        db.execute(
            "INSERT INTO sources (sha256, item, page, section, url, title, uploader, licence, timestamp, sha1, first_seen) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?)",
            (
                *(sha256, name, source["page"], source["section"], url, source["title"]),
                *(source["uploader"], source["licence"], str(number), now()),
            ),
        )
    if processed:
        made = f"processed/pictures/{sha256}-recipe000000.png"
        state = "flagged" if reason else "ok"
        save_processed(
            store,
            Processed(sha256, state, reason, made, "", "", "", group or sha256, kept, False),  # type: ignore[arg-type]
            "recipe000000",
        )
    if fields is not None:
        about = {"provider": "name", "prompt_version": "1", "state": "auto"}
        save_captions(
            store, [Edit(sha256, {"fields": dict(fields), **about}, 0)], who="name", what="caption", deed=""
        )
    return sha256


def many(folder: Path, count: int, groups: bool = True) -> list[str]:
    """So many pictures, named in their order; each tenth is flagged, the first four are two groups."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_store(folder) as store:
        store.db.execute("PRAGMA synchronous = OFF")
        return [_one(store, number, groups and number < 4) for number in range(count)]


def _one(store: Store, number: int, grouped: bool) -> str:
    thing, colour = THINGS[number % len(THINGS)], COLOURS[number % len(COLOURS)]
    return put(
        store,
        number,
        f"item {number:04d} {thing}",
        {"object": f"iron {thing}", "parts": ["leather grip"], "colours": [colour], "material": "iron"},
        reason=str(Reason.BUSY) if number % 10 == 9 else "",
        group=f"group-{number // 2}" if grouped else "",
        kept=not grouped or number != 1,
    )


def fields_of(store: Store, sha256: str) -> dict[str, Any]:
    (text,) = store.db.execute("SELECT fields FROM captions WHERE sha256 = ?", (sha256,)).fetchone()
    return dict(json.loads(text))


def states(folder: Path, shas: Sequence[str]) -> list[str]:
    with open_store(folder) as store:
        found = dict(store.db.execute("SELECT sha256, state FROM captions").fetchall())
    return [found.get(sha, "none") for sha in shas]
