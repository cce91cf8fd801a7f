"""Pictures in the form that a game takes: made at their first read, then kept in the store."""

import asyncio

from itemforge.contract import Output
from itemforge.errors import ObjectMissing
from itemforge.gateway.pictures import original
from itemforge.imaging.naming import MEDIA_TYPES, derivative_key
from itemforge.jobs.records import Request
from itemforge.storage.face import ObjectStore

#: Taken apart at one time; each needs a core, and up to 0.6 GB for the largest pictures.
_AT_ONCE = 2
#: Forms of one picture that are kept; a caller who asks for more gets them made each time.
_KEPT = 64


class Derivatives:
    """Makes and finds derivatives. Whoever asks for one that is being made waits for it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._making: dict[str, asyncio.Task[bytes]] = {}

    async def get(self, request: Request, n: int, output: Output) -> bytes:
        """Image `n` in this form.

        Raises:
            ObjectMissing: the picture is not in this store.
            InvalidInput: it cannot be brought into this form.
            StorageUnavailable: the store cannot be reached.
        """
        key = derivative_key(request.id, n, output)
        try:
            return await self._store.get(key)
        except ObjectMissing:
            pass
        if (task := self._making.get(key)) is None:
            task = self._making[key] = asyncio.create_task(self._make(request, n, output, key))
            task.add_done_callback(lambda done: self._made(key, done))
        # The one who came first may leave; the others still want it.
        return await asyncio.shield(task)

    def _made(self, key: str, task: asyncio.Task[bytes]) -> None:
        self._making.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; when nobody did, it is no news

    async def _make(self, request: Request, n: int, output: Output, key: str) -> bytes:
        async with self._places:
            data = await asyncio.to_thread(_derived, await original(self._store, request, n), output)
        if len(await self._store.list(key.rpartition("/")[0] + f"/{n}.")) < _KEPT:
            await self._store.put(key, data, MEDIA_TYPES[output.format])
        return data


def _derived(png: bytes, output: Output) -> bytes:
    from itemforge.imaging.derive import derive  # loads numpy and scipy, which many gateways never need

    return derive(png, output)
