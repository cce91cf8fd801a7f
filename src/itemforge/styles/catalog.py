"""The gateway's view of all styles: those that ship, those of its home, and the registry in the store.

The registry is plain objects: `styles/{id}/{version}.toml`, `styles/blobs/{sha256}`, and
`styles/{id}/current`, which holds the version that a bare `id` means. Versions never change, so what was
read once is kept; only `current` and the listing are read again, at most every few seconds.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import structlog

from itemforge.errors import InvalidStyle, ItemForgeError, ObjectMissing, PermanentError, StorageUnavailable
from itemforge.storage.face import ObjectStore
from itemforge.styles.files import read_start
from itemforge.styles.local import LocalPacks, not_found
from itemforge.styles.pack import StylePack, parse, split_name

log = structlog.get_logger(__name__)

#: Seconds that the listing and the `current` versions are believed.
FRESH = 10.0
#: Seconds that the registry may take to say which versions there are; the store's own tries take longer.
PATIENCE = 5.0
#: Seconds until a registry that did not answer is asked again.
PAUSE = 60.0
MAX_KEPT = 4096
#: A style's sample larger than this (bytes) is not shown.
MAX_SAMPLE = 256 * 1024
#: The registry did not answer: in time, at all, or it refused (then the operator has to look; the styles that
#: ship go on).
_AWAY = (TimeoutError, StorageUnavailable, PermanentError)

_TOML_KEY = re.compile(r"styles/([a-z0-9][a-z0-9_-]{0,63})/([1-9][0-9]{0,8})\.toml")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def toml_key(style: str, version: int) -> str:
    """Key of a published pack."""
    return f"styles/{style}/{version}.toml"


def blob_key(sha256: str) -> str:
    """Key of a published LoRA."""
    return f"styles/blobs/{sha256}"


def sample_key(style: str, version: int) -> str:
    """Key of a picture of what a published pack looks like."""
    return f"styles/{style}/{version}.webp"


def current_key(style: str) -> str:
    """Key of the object that holds a style's current version, as a decimal number."""
    return f"styles/{style}/current"


class Catalog:
    """Find styles by name. Safe to use from many requests at once."""

    def __init__(
        self, store: ObjectStore, home: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._home = home
        self._clock = clock
        self._local = LocalPacks(home)
        self._local_at = clock()
        self._tomls: dict[tuple[str, int], tuple[StylePack, bytes]] = {}
        self._current: dict[str, tuple[float, int]] = {}  # believed until then
        self._listed: tuple[StylePack, ...] | None = None
        self._versions: dict[str, list[int]] = {}  # of the registry
        self._listed_until = 0.0
        self._listing = asyncio.Lock()

    async def list(self) -> list[StylePack]:
        """The current version of every style, by id; while the store is away, as last seen."""
        async with self._listing:
            if self._listed is None or self._clock() >= self._listed_until:
                await self._look_at_home()
                self._listed = await self._list()
            return list(self._listed)

    async def versions(self) -> Mapping[str, Sequence[int]]:
        """The versions of each style that the registry has, the oldest first; as last seen, as `list`."""
        await self.list()
        return self._versions

    def forget(self) -> None:
        """Look at the registry anew: this gateway has just changed it."""
        self._listed_until = 0.0
        self._current.clear()

    async def get(self, name: str) -> StylePack:
        """The pack of `id@version`, or the current one of `id`.

        Raises:
            StyleNotFound: there is none.
            StorageUnavailable: the registry cannot be read and nobody else knows the style.
        """
        await self._look_at_home()
        style, version = split_name(name)
        if version is None and "@" not in name:
            version = await self._version(style)
        if version is None:
            raise not_found(name)
        return (await self._pack(style, version))[0]

    async def toml(self, style: str, version: int) -> bytes:
        """The bytes of a pack's file.

        Raises:
            StyleNotFound, StorageUnavailable: as `get`.
        """
        return (await self._pack(style, version))[1]

    async def blob(self, sha256: str) -> bytes:
        """A LoRA's bytes.

        Raises:
            ObjectMissing: no style has it.
            StorageUnavailable: the registry cannot be read.
        """
        if not _SHA256.fullmatch(sha256):
            raise ObjectMissing(f"{sha256[:80]!r} is no sha256")
        if (file := await asyncio.to_thread(self._local.blob, sha256)) is not None:
            return await asyncio.to_thread(file.read_bytes)
        return await self._store.get(blob_key(sha256))

    async def sample(self, pack: StylePack) -> bytes | None:
        """A WebP of what the style looks like, if it came with one.

        Raises:
            StorageUnavailable: the registry cannot be read.
        """
        local = self._local.find(pack.name)
        if local is not None:
            return await asyncio.to_thread(_start_of, local.sample_file)
        try:
            return await self._store.get(sample_key(pack.id, pack.version))
        except ObjectMissing:
            return None

    async def _look_at_home(self) -> None:
        if self._clock() - self._local_at >= FRESH:
            self._local_at = self._clock()
            self._local = await asyncio.to_thread(LocalPacks, self._home)

    async def _version(self, style: str) -> int | None:
        """The version that a bare id means: the registry's `current`, else the highest local one."""
        local = self._local.find(style)
        known = self._current.get(style)
        if known is not None and self._clock() < known[0]:
            return known[1]
        believed = FRESH
        try:
            async with asyncio.timeout(PATIENCE):
                version = await self._read_current(style)
        except _AWAY as error:
            if known is None and local is None:
                raise StorageUnavailable(
                    f"the style registry cannot be read: {error or 'no answer'}"
                ) from error
            log.warning("style_registry_away", style=style, reason=str(error))
            version, believed = known[1] if known is not None else None, PAUSE
        if version is None and local is not None:
            version = local.pack.version
        if version is not None:
            self._current[style] = (self._clock() + believed, version)
        return version

    async def _read_current(self, style: str) -> int | None:
        if not _TOML_KEY.fullmatch(toml_key(style, 1)):
            return None
        try:
            text = (await self._store.get(current_key(style))).strip()
        except ObjectMissing:
            return None
        return int(text) if text.isdigit() and len(text) < 10 else None

    async def _pack(self, style: str, version: int) -> tuple[StylePack, bytes]:
        name = f"{style}@{version}"
        if (local := self._local.find(name)) is not None:
            return local.pack, local.toml
        if (known := self._tomls.get((style, version))) is not None:
            return known
        key = toml_key(style, version)
        if not _TOML_KEY.fullmatch(key):
            raise not_found(name)
        try:
            data = await self._store.get(key)
        except ObjectMissing:
            raise not_found(name) from None
        pack = parse(data)
        if pack.name != name:
            raise InvalidStyle(f"the object {key} holds the style {pack.name}; publish it again")
        if len(self._tomls) >= MAX_KEPT:
            self._tomls.clear()
        self._tomls[style, version] = (pack, data)
        return pack, data

    async def _list(self) -> tuple[StylePack, ...]:
        names = {style for style, _ in self._local.packs}
        try:
            async with asyncio.timeout(PATIENCE):
                keys = await self._store.list("styles/")
        except _AWAY as error:
            log.warning("style_registry_away", reason=str(error))
            self._listed_until = self._clock() + PAUSE
            if self._listed is not None:
                return self._listed
            keys = []
        else:
            self._listed_until = self._clock() + FRESH
            self._versions = _versions_of(keys)
        names |= set(_versions_of(keys))
        found = []
        for name in sorted(names):
            try:
                if (version := await self._version(name)) is not None:
                    found.append((await self._pack(name, version))[0])
            except ItemForgeError as error:
                log.warning("style_pack_skipped", style=name, reason=str(error))
        return tuple(found)


def _versions_of(keys: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for key in keys:
        if match := _TOML_KEY.fullmatch(key):
            found.setdefault(match[1], []).append(int(match[2]))
    return {style: sorted(versions) for style, versions in found.items()}


def _start_of(file: Path) -> bytes | None:
    try:
        data = read_start(file, MAX_SAMPLE + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_SAMPLE else None
