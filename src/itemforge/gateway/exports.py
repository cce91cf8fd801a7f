"""Many pictures in one ZIP: as files, or on sheets; and a manifest that says what each one is."""

import asyncio
import hashlib
import io
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image as PillowImage

from itemforge.contract import Output
from itemforge.errors import InvalidInput, ObjectMissing
from itemforge.gateway.models import AtlasOptions
from itemforge.gateway.outputs import Derivatives
from itemforge.gateway.pictures import find_image, original
from itemforge.gateway.zipping import ZipStream
from itemforge.imaging.naming import free_name, slug
from itemforge.jobs.records import Request
from itemforge.storage.face import ObjectStore

MANIFEST = "manifest.json"
#: Pictures that are read or made ahead of the one that is being sent.
_AHEAD = 4


@dataclass(frozen=True)
class Item:
    """One picture of an export. `output` None: the PNG as it was drawn."""

    request: Request
    n: int
    output: Output | None
    file: str

    @property
    def seed(self) -> int:
        image = find_image(self.request, self.n)
        return image.seed if image else self.request.params.seed + self.n

    @property
    def pixels(self) -> int:
        """How many it has at most, as far as the row knows."""
        image, params = find_image(self.request, self.n), self.request.params
        width, height = (image.width, image.height) if image else (params.width or 512, params.height or 512)
        if self.output is None:
            return width * height
        pad = 2 * self.output.pad
        return self.output.size**2 if self.output.size else (width + pad) * (height + pad)


@dataclass
class Manifest:
    """What is in the ZIP, and what could not be put there."""

    pictures: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> bytes:
        told = {"format": 1, "pictures": self.pictures, "missing": self.missing}
        return json.dumps(told, ensure_ascii=False, indent=1).encode()


def list_items(rows: Sequence[Request], output: Output | None) -> list[Item]:
    """All pictures of these requests, each with a name of its own: its prompt and its seed."""
    items: list[Item] = []
    taken: set[str] = set()
    for row in rows:
        form = output or row.params.output
        for n in range(row.params.num_images):
            stem = f"{slug(row.prompt)}-{Item(row, n, form, '').seed}"
            items.append(Item(row, n, form, free_name(stem, form.format if form else "png", taken)))
    return items


async def zipped(store: ObjectStore, derivatives: Derivatives, items: Sequence[Item]) -> AsyncIterator[bytes]:
    """A ZIP of the pictures as files.

    Raises:
        InvalidInput: not one could be made; the text says why.
        StorageUnavailable: the store went away.
    """
    stream, manifest = ZipStream(), Manifest()
    async for item, data in _made(store, derivatives, items, manifest):
        manifest.pictures.append(await asyncio.to_thread(_entry, item, data))
        yield stream.add(item.file, data, item.request.created_at)
    _check_any(manifest)
    yield stream.add(MANIFEST, manifest.to_json(), items[0].request.created_at, packed=True)
    yield stream.close()


async def on_sheets(
    store: ObjectStore, derivatives: Derivatives, items: Sequence[Item], options: AtlasOptions
) -> AsyncIterator[bytes]:
    """A ZIP of sheets with their JSON.

    Raises:
        InvalidInput, StorageUnavailable: as `zipped`; a picture is larger than a sheet.
    """
    stream, manifest, files = ZipStream(), Manifest(), {}
    async for item, data in _made(store, derivatives, items, manifest):
        manifest.pictures.append(await asyncio.to_thread(_entry, item, data))
        files[item.file] = data
    _check_any(manifest)
    at = items[0].request.created_at
    formats = {item.output.format if item.output else "png" for item in items}
    kind: Literal["png", "webp"] = "webp" if formats == {"webp"} else "png"
    for name, data, frames in await asyncio.to_thread(_sheets, files, options, kind):
        for entry in manifest.pictures:
            if entry["file"] in frames:
                entry["sheet"] = name
        yield stream.add(name, data, at, packed=name.endswith(".json"))
    yield stream.add(MANIFEST, manifest.to_json(), at, packed=True)
    yield stream.close()


def _check_any(manifest: Manifest) -> None:
    if not manifest.pictures:
        reasons = "; ".join(sorted({each["reason"] for each in manifest.missing})[:3])
        raise InvalidInput(f"none of the pictures can be exported so: {reasons}")


async def _made(
    store: ObjectStore, derivatives: Derivatives, items: Sequence[Item], manifest: Manifest
) -> AsyncIterator[tuple[Item, bytes]]:
    """The files in order, some of them made ahead; those that cannot be had are put down as missing."""
    waiting: deque[tuple[Item, asyncio.Task[bytes]]] = deque()
    left = iter(items)
    try:
        while True:
            while len(waiting) < _AHEAD and (item := next(left, None)) is not None:
                waiting.append((item, asyncio.create_task(_file(store, derivatives, item))))
            if not waiting:
                return
            item, task = waiting[0]
            try:
                data = await task
            except (InvalidInput, ObjectMissing) as why:
                manifest.missing.append({"id": str(item.request.id), "n": item.n, "reason": str(why)})
            else:
                yield item, data
            waiting.popleft()
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _file(store: ObjectStore, derivatives: Derivatives, item: Item) -> bytes:
    if item.output is None:
        return await original(store, item.request, item.n)
    return await derivatives.get(item.request, item.n, item.output)


def _entry(item: Item, data: bytes) -> dict[str, Any]:
    from itemforge.imaging.derive import recipe_json

    with PillowImage.open(io.BytesIO(data), formats=("PNG", "WEBP")) as picture:
        width, height = picture.size
    recipe = recipe_json(data)
    return {
        "file": item.file,
        "id": str(item.request.id),
        "n": item.n,
        "prompt": item.request.prompt,
        "seed": str(item.seed),
        "style": item.request.style,
        "recipe": json.loads(recipe) if recipe else None,
        "size": {"width": width, "height": height},
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _sheets(
    files: dict[str, bytes], options: AtlasOptions, kind: Literal["png", "webp"]
) -> list[tuple[str, bytes, frozenset[str]]]:
    """Name and bytes of each file of an atlas, and the frames that are on it."""
    import numpy as np

    from itemforge.imaging.atlas import Layout, make_atlas
    from itemforge.imaging.derive import encode

    pictures = {
        name: np.asarray(PillowImage.open(io.BytesIO(data), formats=("PNG", "WEBP")).convert("RGBA"))
        for name, data in files.items()
    }
    layout = Layout(**options.model_dump())
    made: list[tuple[str, bytes, frozenset[str]]] = []
    for sheet in make_atlas(pictures, layout, suffix=kind):
        made.append((sheet.image, encode(sheet.pixels, Output(format=kind), {}), frozenset(sheet.frames)))
        made.append((sheet.data, sheet.json, frozenset()))
    return made
