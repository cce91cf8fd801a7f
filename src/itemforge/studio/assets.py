"""The studio's own files: read once, called by an address that has their hash, and kept by browsers for ever.

`studio.css` is one stylesheet, written in parts: the files of `static/css/`, in the order of their names.
"""

import gzip
import hashlib
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Where the files are called.
PREFIX = "/studio/static/"
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "webp": "image/webp",
}
_STYLESHEET = "studio.css"


def _folder() -> Traversable:
    return files("itemforge.studio") / "static"


@lru_cache(maxsize=1)
def names() -> frozenset[str]:
    """The files there are."""
    return frozenset({each.name for each in _folder().iterdir() if each.is_file()} | {_STYLESHEET})


@lru_cache
def content(name: str) -> bytes:
    """A file of ours."""
    if name != _STYLESHEET:
        return (_folder() / name).read_bytes()
    parts = sorted((each for each in (_folder() / "css").iterdir()), key=lambda each: each.name)
    return b"\n".join(each.read_bytes() for each in parts)


@lru_cache
def _packed(name: str) -> bytes:
    return gzip.compress(content(name), mtime=0)


@lru_cache
def asset(name: str) -> str:
    """The address of a file of ours; another one whenever the file is."""
    return f"{PREFIX}{name}?{hashlib.sha256(content(name)).hexdigest()[:12]}"


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI app behind `PREFIX`."""
    name = scope["path"].removeprefix(PREFIX)
    if scope["method"] not in ("GET", "HEAD") or name not in names():
        await Response(status_code=404)(scope, receive, send)
        return
    kind = name.rpartition(".")[2]
    headers = {
        "Cache-Control": _FOREVER,
        "Vary": "Accept-Encoding",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    body = content(name)
    if kind in ("css", "js", "svg") and "gzip" in Headers(scope=scope).get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = _packed(name)
    await Response(body, headers=headers, media_type=_TYPES[kind])(scope, receive, send)
