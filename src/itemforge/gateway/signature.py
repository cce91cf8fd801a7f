"""Signatures by the Standard Webhooks scheme (github.com/standard-webhooks/standard-webhooks, its specification):
HMAC-SHA256 over `id.timestamp.body`, in base64 behind `v1,`; several with spaces between them."""

import base64
import hashlib
import hmac
from collections.abc import Iterable

from itemforge.jobs.webhooks import PREFIX


def headers(message_id: str, at: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The three headers of a message that is sent `at` (Unix seconds), signed by each of the secrets."""
    signed = f"{message_id}.{at}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(_sign(secret, signed) for secret in secrets),
    }


def _sign(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
