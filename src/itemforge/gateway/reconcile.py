"""After an older copy of the database was restored: what the object store still knows comes back.

Pictures are written once, under keys that name their request, and carry their recipe. So an open request
whose pictures are all there is Completed, with the address that it had before; nobody need draw it again.
A request that only the store knows is reported and not invented: its owner and parameters are lost.
"""

import io
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID

from PIL import Image as PillowImage

from itemforge.contract import Image, Status, object_key
from itemforge.jobs import claims, finding, requests
from itemforge.jobs.database import Database
from itemforge.jobs.records import Request
from itemforge.storage.face import ObjectStore

_KEY = re.compile(r"generated/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/[0-9]{1,2})?\.png")
#: The recipe inside a PNG; `imaging.png` writes it, but needs numpy, which is loaded for outputs only.
_RECIPE = "itemforge"
_PAGE = 200


@dataclass
class Reconciled:
    """Request ids. `partly`: some pictures are missing or are another request's, so it is drawn again;
    `leased`: a worker has it and will end it; `unknown`: only the store knows it.
    """

    completed: list[UUID] = field(default_factory=list)
    partly: list[UUID] = field(default_factory=list)
    leased: list[UUID] = field(default_factory=list)
    unknown: list[UUID] = field(default_factory=list)


async def reconcile(db: Database, store: ObjectStore) -> Reconciled:
    """Complete open requests from the store. Safe to repeat, and while gateways and workers run.

    Raises:
        DatabaseUnavailable, StorageUnavailable, PermanentError: what was done so far stays; call again.
    """
    stored: dict[UUID, set[str]] = defaultdict(set)
    for key in await store.list("generated/"):
        if found := _KEY.fullmatch(key):
            stored[UUID(found.group(1))].add(key)
    result = Reconciled()
    async for request in _open(db):
        if stored.get(request.id):
            (await _outcome(db, store, request, stored[request.id], result)).append(request.id)
    ids = sorted(stored)
    for at in range(0, len(ids), _PAGE):
        page = ids[at : at + _PAGE]
        known = await requests.known(db, page)
        result.unknown += [request_id for request_id in page if request_id not in known]
    return result


async def _open(db: Database) -> AsyncIterator[Request]:
    for status in (Status.PENDING, Status.PROCESSING):
        before = None
        while page := await finding.find(db, finding.Filter(status), _PAGE, before):
            for request in page:
                yield request
            before = (page[-1].created_at, page[-1].id)


async def _outcome(
    db: Database, store: ObjectStore, request: Request, keys: set[str], result: Reconciled
) -> list[UUID]:
    images = []
    for n in range(request.params.num_images):
        key = object_key(request.id, n, request.params.num_images)
        image = await _image(store, request, n, key) if key in keys else None
        if image is None:
            return result.partly
        images.append(image)
    restored = await claims.restore(db, request.id, images)
    return result.completed if restored else result.leased


async def _image(store: ObjectStore, request: Request, n: int, key: str) -> Image | None:
    """What a worker would have reported of the picture; None when it is no picture of this request."""
    seed = request.params.seed + n
    try:
        with PillowImage.open(io.BytesIO(await store.get(key)), formats=("PNG",)) as picture:
            picture.load()
            width, height = picture.size
            recipe = picture.info.get(_RECIPE)  # none: of an original worker, whose key must do
        if recipe is not None and int(json.loads(recipe)["seed"]) != seed:
            return None
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, PillowImage.DecompressionBombError):
        return None
    url = store.public_url(key)
    return Image(n=n, seed=seed, bucket=store.bucket, key=key, url=url, width=width, height=height)
