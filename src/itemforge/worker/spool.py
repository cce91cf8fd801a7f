"""Finished pictures that wait for storage, on disk.

The spool is a cache, not a promise: it saves drawing a picture again when storage or gateway are away
for longer than a delivery may wait. Whatever goes wrong with it (full disk, no permission) is logged
and the job goes its ordinary way.
"""

import hashlib
from pathlib import Path
from uuid import UUID

import structlog

from itemforge.contract import JobParams

log = structlog.get_logger(__name__)

#: Oldest pictures go first above this many bytes.
MAX_BYTES = 2 * 1024**3
#: What every whole PNG ends with; a file that lost its end with the power must not become the picture.
_PNG_END = b"IEND\xaeB`\x82"


class Spool:
    """PNG files named by request, image and what was asked for, in one folder."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def _path(self, request_id: UUID, n: int, params: JobParams) -> Path:
        asked = hashlib.sha256(params.model_dump_json().encode()).hexdigest()[:16]
        return self._folder / f"{request_id}-{n}-{asked}.png"

    def put(self, request_id: UUID, n: int, params: JobParams, png: bytes) -> None:
        """Keep a picture; a failure is logged, not raised."""
        path = self._path(request_id, n, params)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(png)
            part.replace(path)
            self._trim()
        except OSError as error:
            log.warning("spool_unwritable", error=error, request_id=str(request_id))

    def get(self, request_id: UUID, n: int, params: JobParams) -> bytes | None:
        """The picture, if it was spooled whole for the same request and parameters."""
        try:
            png = self._path(request_id, n, params).read_bytes()
        except OSError:
            return None
        return png if png.endswith(_PNG_END) else None

    def drop(self, request_id: UUID, n: int, params: JobParams) -> None:
        """Forget a picture that is stored."""
        try:
            self._path(request_id, n, params).unlink(missing_ok=True)
        except OSError as error:
            log.warning("spool_undeletable", error=error, request_id=str(request_id))

    def _trim(self) -> None:
        files = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in self._folder.glob("*.p*"))
        size = sum(length for _, length, _ in files)
        for _, length, path in files:
            if size <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            size -= length
