"""From the address of a thumbnail to that of the original, and to the file's title.

Vignette (Fandom): `…/a/ab/F.png/revision/latest/scale-to-width-down/120?cb=1` → `…/F.png/revision/latest?cb=1&format=original`.
Without `format=original` it may send WebP under the name of a PNG. MediaWiki: `…/thumb/a/ab/F.png/120px-F.png` → `…/a/ab/F.png`.
"""

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_REVISION = re.compile(r"^(?P<file>/.*[^/])/revision/(?P<revision>[^/]+)(?:/.*)?$")
_THUMB = re.compile(
    r"^(?P<before>.*?)/thumb/(?P<file>(?:archive/)?(?:[0-9a-f]/[0-9a-f]{2}/)?[^/]+)/(?:[^/]*-)?\d+px-[^/]*$"
)
_WIKIA = re.compile(
    r"(^|\.)(wikia\.nocookie\.net|vignette\.wikia\.com|static\.wikia\.com|images\.wikia\.com)$"
)
#: What a Vignette address needs besides its path: the version, and the language of a wiki in another one's place.
_VIGNETTE_KEYS = ("cb", "path-prefix")
_PICTURE = re.compile(r"\.(png|jpe?g|gif|webp|bmp)$", re.IGNORECASE)


def original(url: str) -> str:
    """The original's address, in one spelling; an address that is none of a thumbnail stays.

    Raises:
        ValueError: it is no address.
    """
    parts = urlsplit(url)
    host = parts.netloc.lower()
    path = _spelt(parts.path)
    query = parts.query
    revision = _REVISION.match(path)
    if revision:
        path = f"{revision['file']}/revision/{revision['revision']}"
    path = _without_thumb(path)
    if revision or _WIKIA.search(parts.hostname or ""):
        kept = [(key, value) for key, value in parse_qsl(query) if key in _VIGNETTE_KEYS]
        query = urlencode([*kept, ("format", "original")])
    return urlunsplit((parts.scheme.lower(), host, path, query, ""))


def _without_thumb(path: str) -> str:
    # A thumbnail of a Vignette address may lie behind a MediaWiki one.
    head, slash, tail = path.partition("/revision/")
    if found := _THUMB.match(head):
        head = f"{found['before']}/{found['file']}"
    return head + slash + tail


def _spelt(path: str) -> str:
    return "/".join(quote(unquote(part), safe="!$&'()*+,;=:@~-._") for part in path.split("/"))


def file_name(url: str) -> str:
    """The name of the file at an original's address, as a title is written: `Iron Sword.png`."""
    path = urlsplit(url).path.partition("/revision/")[0]
    return unquote(path.rstrip("/").rpartition("/")[2]).replace("_", " ")


def is_picture(url: str) -> bool:
    """Whether an address looks like a picture's."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return False
    return bool(_PICTURE.search(path.partition("/revision/")[0]))


def item_name(title: str) -> str:
    """What a file is called, for want of better: its title without namespace and ending."""
    name = title.partition(":")[2] if re.match(r"^\w+:", title) else title
    return without_ending(name) or title


def without_ending(name: str) -> str:
    """A file's name as words."""
    return _PICTURE.sub("", name.replace("_", " ")).strip()
