"""Signed uploads into a folder: the contract of Google's V4 addresses, with a secret of our own.

A signature says that whoever shows it may create one object, of one content type, until a given time. It
is an HMAC-SHA256 over exactly that. The secret lies in the store's own folder, so that all gateways of one
folder accept one another's signatures.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from itemforge.storage.face import GENERATION_HEADER, SignedPut
from itemforge.storage.keys import check_key

#: Where the gateway takes these uploads.
ROUTE = "/v1/uploads/"
_SECRET_BYTES = 32


class UploadSigner:
    """Makes and checks the signatures of one folder; `secret` is its key of 256 bits."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, key: str, content_type: str, seconds: int) -> SignedPut:
        expires = int(time.time()) + seconds
        signature = self._signature(check_key(key), expires, content_type, "0")
        return SignedPut(
            f"{ROUTE}{quote(key)}?expires={expires}&signature={signature}",
            {"Content-Type": content_type, GENERATION_HEADER: "0"},
        )

    def allows(self, key: str, expires: int, signature: str, headers: Mapping[str, str]) -> bool:
        """Whether the signature is ours, for this key and these headers, and has not expired."""
        content_type = headers.get("content-type", "")
        generation = headers.get(GENERATION_HEADER, "")
        wanted = self._signature(key, expires, content_type, generation)
        genuine = hmac.compare_digest(wanted.encode(), signature.encode())
        return genuine and generation == "0" and time.time() < expires

    def _signature(self, key: str, expires: int, content_type: str, generation: str) -> str:
        # Lengths before the parts: no two sets of parts give one text.
        parts = ("PUT", key, str(expires), content_type, generation)
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def folder_secret(path: Path) -> bytes:
    """The secret in this file, made at the first call, readable for this user alone.

    Of several processes that make it at once one wins, and all read the same.

    Raises:
        OSError: the file cannot be written or read, or is no secret of ours.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
        finally:
            part.unlink()
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise OSError(f"{path} is no upload secret; delete it, and a new one is made")
    return secret
