"""The one face of an object store.

Objects are written once and never replaced (`put` is create-only), so of two workers that drew the same
request the first writer wins and a public address never changes its bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

#: The header that makes an upload create-only, in Google's words and in our folder route's.
GENERATION_HEADER = "x-goog-if-generation-match"


@dataclass(frozen=True)
class SignedPut:
    """Permission to create one object: PUT to `url` with exactly these headers.

    `url` is a secret while it lasts. Where it begins with a slash, the gateway itself takes the upload.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str]


class ObjectStore(Protocol):
    """A bucket, or a folder that behaves like one. Every call is safe to repeat."""

    @property
    def bucket(self) -> str:
        """What a row records: the bucket's name, or the folder's `file://` address."""
        ...

    async def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Create the object; False (a success) when it is there already, whose bytes then stay.

        Raises:
            StorageUnavailable: unreachable, or a server error after the store's own retries.
            PermanentError: refused (no permission, no such bucket); the text says what to do.
        """
        ...

    async def replace(self, key: str, data: bytes, content_type: str) -> None:
        """Write the object whether it is there or not: only for pointers such as `styles/x/current`.

        Raises:
            StorageUnavailable, PermanentError: as `put`.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            ObjectMissing: there is none.
            StorageUnavailable, PermanentError: as `put`.
        """
        ...

    async def exists(self, key: str) -> bool:
        """Whether the object is there.

        Raises:
            StorageUnavailable, PermanentError: as `put`.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the object; no error when it is gone already.

        Raises:
            StorageUnavailable, PermanentError: as `put`.
        """
        ...

    async def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, sorted.

        Raises:
            StorageUnavailable, PermanentError: as `put`.
        """
        ...

    async def sign_put(self, key: str, content_type: str, seconds: int, max_bytes: int) -> SignedPut:
        """Let somebody without credentials create this one object within `seconds`.

        Raises:
            ConfigurationError: the credentials cannot sign; the text says what is needed.
            StorageUnavailable, PermanentError: as `put`, where signing asks a service.
        """
        ...

    def public_url(self, key: str) -> str:
        """The address under which the object is public."""
        ...


def is_folder(bucket: str) -> bool:
    """Whether a recorded bucket is a folder. It may have several names: a worker's mount is not the gateway's."""
    return bucket.startswith("file://")
