"""An object store in memory that can be away."""

from collections.abc import Mapping

from itemforge.errors import ObjectMissing, StorageUnavailable


class MemoryStore:
    """`storage.face.ObjectStore`; `broken` makes every call fail as an outage does, `full` writing alone."""

    bucket = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.broken = False
        self.full = False

    def _check(self) -> None:
        if self.broken:
            raise StorageUnavailable("the store is away")

    async def put(
        self, key: str, data: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> bool:
        self.puts += 1
        self._check()
        if self.full:
            raise StorageUnavailable("the store is full")
        if key in self.objects:
            return False
        self.objects[key] = data
        return True

    async def replace(self, key: str, data: bytes, content_type: str) -> None:
        self._check()
        self.objects[key] = data

    async def get(self, key: str) -> bytes:
        self._check()
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectMissing(key) from None

    async def exists(self, key: str) -> bool:
        self._check()
        return key in self.objects

    async def delete(self, key: str) -> None:
        self._check()
        self.objects.pop(key, None)

    async def list(self, prefix: str) -> list[str]:
        self._check()
        return sorted(key for key in self.objects if key.startswith(prefix))

    def public_url(self, key: str) -> str:
        return f"https://store.example/{key}"
