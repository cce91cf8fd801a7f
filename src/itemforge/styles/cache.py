"""The worker's styles: local packs first, else fetched from the gateway, verified and kept on disk.

Everything fetched is named by its sha256 or by `id@version`, both of which never change their bytes, so
a file that is there is right, and two workers that share a home help each other.
"""

import asyncio
import hashlib
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import structlog

from itemforge.errors import InvalidStyle, ModelError
from itemforge.styles.files import MAX_BLOB, write_atomic
from itemforge.styles.local import LocalPack, LocalPacks, not_found
from itemforge.styles.pack import PackLora, StylePack, parse, split_name

log = structlog.get_logger(__name__)

#: Bytes of fetched LoRAs that are kept; a LoRA of SD 1.5 has 3 to 150 MB.
LIMIT = 10 * 1024**3

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(@[1-9][0-9]{0,8})?")


class PackSource(Protocol):
    """Where packs and LoRAs come from: the gateway's routes."""

    async def pack_toml(self, style: str, version: int | None) -> bytes:
        """The file of a pack; `version` None asks for the current one.

        Raises:
            StyleNotFound: there is none.
            RetryableError: the source cannot be reached.
        """
        ...

    async def blob(self, sha256: str) -> bytes:
        """A LoRA's bytes.

        Raises:
            ObjectMissing: there is none.
            RetryableError: the source cannot be reached.
        """
        ...


class StyleCache:
    """Packs and LoRA files of one home."""

    def __init__(self, home: Path, source: PackSource | None = None, *, limit: int = LIMIT) -> None:
        self._home = home
        self._source = source
        self._limit = limit
        self._local = LocalPacks(home)
        self._blobs = home / "cache" / "blobs"
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pack(self, name: str) -> StylePack:
        """The pack of `id@version` or `id`.

        Raises:
            StyleNotFound: neither here nor at the source.
            InvalidStyle: what the source gave is no such pack.
            RetryableError: the source cannot be reached.
        """
        if (local := self._find_local(name)) is not None:
            return local.pack
        if not _NAME.fullmatch(name):
            raise not_found(name)
        style, version = split_name(name)
        async with self._locks[name]:
            kept = self._home / "cache" / "packs" / f"{name}.toml"
            if version is not None and kept.is_file():
                return parse(kept.read_bytes())
            if self._source is None:
                raise not_found(name)
            data = await self._source.pack_toml(style, version)
            pack = parse(data)
            if pack.name != name and pack.id != name:
                raise InvalidStyle(f"asked for the style {name}, got {pack.name}")
            write_atomic(kept.with_name(f"{pack.name}.toml"), data)
            return pack

    async def loras(
        self, pack: StylePack, weight: float | None = None
    ) -> tuple[tuple[Path, str, float], ...]:
        """Verified file, sha256 and weight of each of the pack's LoRAs; `weight` as `lora_weight`.

        Raises:
            ObjectMissing, InvalidStyle: a LoRA is nowhere, or is not what the pack says.
            RetryableError: the source cannot be reached.
        """
        local = self._find_local(pack.name)
        files = [await self._file(pack, lora, local) for lora in pack.loras]
        weights = pack.weights(weight)
        return tuple(zip(files, (lora.sha256 for lora in pack.loras), weights, strict=True))

    async def by_sha256(self, sha256: str) -> Path:
        """The LoRA file with that sha256, whichever style it belongs to.

        Raises:
            ModelError: it is not here and cannot be fetched.
        """
        if (file := await asyncio.to_thread(self._local.blob, sha256)) is not None:
            return file
        return await self._blob(sha256, f"the LoRA {sha256}")

    def _find_local(self, name: str) -> LocalPack | None:
        if (found := self._local.find(name)) is None:
            self._local = LocalPacks(self._home)  # it may have been put there since
            found = self._local.find(name)
        return found

    async def _file(self, pack: StylePack, lora: PackLora, local: LocalPack | None) -> Path:
        if local is not None:
            beside = await asyncio.to_thread(local.lora_file, lora)
            if beside is not None:
                return beside
        return await self._blob(lora.sha256, f"a LoRA of the style {pack.name}")

    async def _blob(self, sha256: str, what: str) -> Path:
        file = self._blobs / f"{sha256}.safetensors"
        async with self._locks[sha256]:
            if file.is_file():
                os.utime(file)  # the least recently used go first
                return file
            if self._source is None:
                raise ModelError(f"{what} is not here: put it at {file}, or beside its pack")
            data = await self._source.blob(sha256)
            await asyncio.to_thread(self._keep, file, data, sha256, what)
        return file

    def _keep(self, file: Path, data: bytes, sha256: str, what: str) -> None:
        if len(data) > MAX_BLOB:
            raise InvalidStyle(f"{what} has {len(data)} bytes, more than the {MAX_BLOB} that are allowed")
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise InvalidStyle(f"{what} came with the sha256 {found} instead of {sha256}; publish it again")
        write_atomic(file, data)
        log.info("lora_fetched", sha256=sha256, bytes=len(data))
        self._evict(file)

    def _evict(self, newest: Path) -> None:
        """Remove the least recently used files beyond the limit, never the one just written."""
        files = [(f.stat().st_mtime_ns, f.stat().st_size, f) for f in self._blobs.glob("*.safetensors")]
        room = self._limit - sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if room >= 0:
                return
            if file != newest:
                file.unlink(missing_ok=True)
                room += size
                log.info("lora_evicted", sha256=file.stem, bytes=size)
