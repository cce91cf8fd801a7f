"""Which keys an object may have."""

from itemforge.errors import PermanentError

#: Google Cloud Storage's own limit, in bytes.
MAX_KEY = 1024


def check_key(key: str) -> str:
    """The key itself, if it can stand for an object in a bucket, in a folder and in a URL.

    Raises:
        PermanentError: it is empty, too long, absolute, or has empty, dot or hidden parts.
    """
    parts = key.split("/")
    plain = all(part and not part.startswith(".") for part in parts)
    if not plain or len(key.encode(errors="replace")) > MAX_KEY or not key.isprintable() or "\\" in key:
        raise PermanentError(f"{key[:100]!r} cannot be an object's key; use parts like generated/7.png")
    return key
