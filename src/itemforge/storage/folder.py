"""A folder that behaves like a bucket: the embedded system's object store.

An object appears whole or not at all: bytes go to a temporary file on the same disk, are flushed, and then
get their name by a hard link, which fails when the name is taken. Content type and metadata stand in a
JSON file beside, under `.itemforge/`, where no listing looks.
"""

import asyncio
import errno
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from itemforge.errors import ObjectMissing, PermanentError, StorageUnavailable
from itemforge.storage.face import SignedPut
from itemforge.storage.keys import check_key
from itemforge.storage.signing import UploadSigner, folder_secret

log = structlog.get_logger(__name__)

_OWN = ".itemforge"
#: Temporary files of a killed process are removed at the next start when they are older (seconds).
_STALE_AFTER = 3600.0
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IMPOSSIBLE = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,  # a folder has the object's name
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EXDEV,
)


class FolderStore:
    """`storage.face.ObjectStore` in `root`, which is made if it is missing."""

    def __init__(self, root: Path, public_url: str | None = None) -> None:
        """Raises:
        StorageUnavailable, PermanentError: the folder cannot be made or written.
        """
        self._root = root
        self._public = (public_url or root.as_uri()).rstrip("/")
        self._temporary = root / _OWN / "tmp"
        self._signer: UploadSigner | None = None
        with self._errors():
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._remove_stale()

    @property
    def bucket(self) -> str:
        return self._root.as_uri()

    def public_url(self, key: str) -> str:
        return f"{self._public}/{quote(check_key(key))}"

    async def put(
        self, key: str, data: bytes, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> bool:
        return await asyncio.to_thread(self._put, check_key(key), data, content_type, dict(metadata or {}))

    async def replace(self, key: str, data: bytes, content_type: str) -> None:
        await asyncio.to_thread(self._replace, check_key(key), data, content_type)

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._get, check_key(key))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._exists, check_key(key))

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, check_key(key))

    async def list(self, prefix: str) -> list[str]:
        def find() -> Any:
            with self._errors():
                return sorted(self._keys(prefix))

        return list(await asyncio.to_thread(find))

    async def sign_put(self, key: str, content_type: str, seconds: int, max_bytes: int) -> SignedPut:
        """As the face says; the gateway's own route holds the limit on bytes."""
        return (await self.signer()).sign(key, content_type, seconds)

    async def signer(self) -> UploadSigner:
        """What makes and checks this folder's signatures.

        Raises:
            StorageUnavailable, PermanentError: the secret cannot be made or read.
        """

        def read() -> UploadSigner:
            with self._errors():
                return UploadSigner(folder_secret(self._root / _OWN / "upload-secret"))

        if self._signer is None:
            self._signer = await asyncio.to_thread(read)
        return self._signer

    def _put(self, key: str, data: bytes, content_type: str, metadata: dict[str, str]) -> bool:
        with self._errors():
            path = self._root / key
            if path.is_file():
                return False
            with self._written(data) as temporary:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    if path.is_file():
                        return False
                    raise
            _flush_directory(path.parent)
            self._describe(key, content_type, metadata)
        return True

    def _replace(self, key: str, data: bytes, content_type: str) -> None:
        with self._errors():
            path = self._root / key
            with self._written(data) as temporary:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
            _flush_directory(path.parent)
            self._describe(key, content_type, {})

    def _get(self, key: str) -> bytes:
        with self._errors():
            try:
                return (self._root / key).read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectMissing(f"there is no object {key!r} in {self._root}") from None

    def _exists(self, key: str) -> bool:
        with self._errors():
            return (self._root / key).is_file()

    def _delete(self, key: str) -> None:
        with self._errors():
            for path in (self._root / key, self._description(key)):
                try:
                    path.unlink()
                except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                    continue

    def _keys(self, prefix: str) -> Iterator[str]:
        start = self._root
        if "/" in prefix:
            start = self._root / check_key(prefix.rpartition("/")[0])
        for folder, subfolders, files in os.walk(start, onerror=_raise):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in files:
                key = (Path(folder) / name).relative_to(self._root).as_posix()
                if key.startswith(prefix):
                    yield key

    def _description(self, key: str) -> Path:
        return self._root / _OWN / "meta" / f"{key}.json"

    def _describe(self, key: str, content_type: str, metadata: dict[str, str]) -> None:
        text = json.dumps({"content_type": content_type, "metadata": metadata}, ensure_ascii=False)
        path = self._description(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            text, encoding="utf-8"
        )  # not flushed, as the object is: people read it, and no program

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A temporary file with these bytes on disk; it is gone afterwards."""
        path = self._temporary / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        for path in self._temporary.iterdir():
            if time.time() - path.stat().st_mtime > _STALE_AFTER:
                path.unlink(missing_ok=True)
                log.info("stale_file_removed", name=path.name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = f"{error.strerror or error} ({self._root})"
            if error.errno in _REFUSED:
                raise PermanentError(
                    f"the object folder refused: {said}; give this user write permission there, "
                    "or name another folder in ITEMFORGE_STORAGE_URL"
                ) from error
            if error.errno in _IMPOSSIBLE:
                raise PermanentError(
                    f"the object folder cannot hold this object: {said}; it needs a file system with hard links "
                    "and long names, and no key may go on below another"
                ) from error
            if error.errno in _FULL:
                raise StorageUnavailable(f"the object folder is full: {said}; free disk space") from error
            raise StorageUnavailable(f"the object folder failed: {said}; check the disk") from error


def _flush_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # removed while we looked
        raise error
