"""A request's objects: the pictures as drawn, and small ones made on demand."""

import asyncio
import io

from PIL import Image as PillowImage

from itemforge.contract import Image, object_key
from itemforge.errors import ObjectMissing
from itemforge.imaging.naming import derivative_prefix
from itemforge.imaging.opening import open_png
from itemforge.jobs.records import Request
from itemforge.storage.face import ObjectStore, is_folder

#: Sides (pixels) that thumbnails come in.
THUMBNAIL_SIZES = (64, 128, 256)


def thumbnail_prefix(request: Request) -> str:
    """Where a request's thumbnails lie."""
    return f"thumbnails/{request.id}/"


async def original(store: ObjectStore, request: Request, n: int) -> bytes:
    """The PNG of image `n`.

    Raises:
        ObjectMissing: there is none in this store.
        StorageUnavailable: the store cannot be reached.
    """
    return await store.get(_key(store, request, n))


async def thumbnail(store: ObjectStore, request: Request, n: int, side: int) -> bytes:
    """Image `n` as a JPEG whose longer side has at most `side` pixels; made once.

    Raises:
        ObjectMissing, StorageUnavailable: as `original`.
        InvalidInput: the object is not a PNG, or too large.
    """
    key = f"{thumbnail_prefix(request)}{n}.{side}.jpg"
    try:
        return await store.get(key)
    except ObjectMissing:
        pass
    data = await asyncio.to_thread(_shrink, await original(store, request, n), side)
    await store.put(key, data, "image/jpeg")
    return data


async def delete_objects(store: ObjectStore, request: Request) -> None:
    """Remove all that may lie in this store for a request; what is gone already is no error.

    Raises:
        StorageUnavailable: the rest is still there; call again.
    """
    images = range(request.params.num_images)
    keys = {object_key(request.id, n, request.params.num_images) for n in images}
    keys |= {image.key for image in request.images if image.bucket == store.bucket}
    keys |= set(await store.list(thumbnail_prefix(request)))
    keys |= set(await store.list(derivative_prefix(request.id)))
    for key in sorted(keys):
        await store.delete(key)


def _key(store: ObjectStore, request: Request, n: int) -> str:
    image = find_image(request, n)
    if image is None:
        # The original worker reports no key, but its keys are the contract's.
        return object_key(request.id, n, request.params.num_images)
    if image.bucket != store.bucket and not (is_folder(image.bucket) and is_folder(store.bucket)):
        raise ObjectMissing(f"the picture lies in another store: {image.bucket}")
    return image.key


def find_image(request: Request, n: int) -> Image | None:
    """What a worker reported of image `n`."""
    return next((image for image in request.images if image.n == n), None)


def _shrink(data: bytes, side: int) -> bytes:
    small = open_png(data, "RGBA")
    small.thumbnail((side, side), PillowImage.Resampling.LANCZOS)
    white = PillowImage.new("RGB", small.size, "white")
    white.paste(small, mask=small.getchannel("A"))
    out = io.BytesIO()
    white.save(out, "JPEG", quality=88, optimize=True)
    return out.getvalue()
