"""What derivatives and files are called. Needs no numpy, so that a gateway which makes none does not load it."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from uuid import UUID

from itemforge.contract import Output

#: Changes whenever the same picture and output would give other bytes.
VERSION = 1
#: Characters of a file's name that say what it shows.
_LONGEST = 40
MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}


def derivative_key(request_id: UUID, n: int, output: Output) -> str:
    """Key of image `n` of a request in this form."""
    told = hashlib.sha256(f"{VERSION} {output.model_dump_json()}".encode()).hexdigest()
    return f"{derivative_prefix(request_id)}{n}.{told[:8]}.{output.format}"


def derivative_prefix(request_id: UUID) -> str:
    """Where a request's derivatives lie."""
    return f"generated/{request_id}/"


def slug(text: str) -> str:
    """What of a text can stand in a file's name on every system.

    >>> slug("Ein roter Apfel!")
    'ein-roter-apfel'
    """
    words = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    return words[:_LONGEST].rstrip("-") or "item"


def free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """A file's name that is not taken yet, and now is; of many with one stem the next ones are numbered."""
    name = next(name for name in _numbered(stem) if name not in taken)
    taken.add(name)
    return f"{name}.{suffix}"


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}-{count}" for count in itertools.count(2))
