"""One picture: streamed into a part, checked, and moved to its place.

A part is nothing to anybody: it is removed when it is not what was asked for, and at the next start if this process
was killed over it.
"""

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from itemforge.dataset.crawl.failures import Again, NotFetched, Stopped
from itemforge.dataset.crawl.kinds import NotWhole, kind, measure
from itemforge.dataset.crawl.originals import file_name
from itemforge.dataset.crawl.visitor import Visitor
from itemforge.dataset.store import EXTENSIONS, Picture, Store, keep_file, now
from itemforge.dataset.store_queue import Entry
from itemforge.errors import ConfigurationError

#: Bytes that stay free on the disk.
_RESERVE = 200 * 10**6
#: Seconds that one picture may take.
_LONGEST = 900.0
#: WebP only for what is called WebP: asked for it, Fandom sends it under the name of a PNG.
_ACCEPT = "image/png, image/jpeg, image/gif, image/bmp"
_PARTS = ".parts"
#: Endings of files that wikis have besides pictures that are taken.
_OTHERS = {
    "svg",
    "tif",
    "tiff",
    "ico",
    "avif",
    "ogg",
    "oga",
    "ogv",
    "opus",
    "mp3",
    "wav",
    "mp4",
    "webm",
    "pdf",
    "djvu",
}


@dataclass(frozen=True)
class Limits:
    """Bytes: of one picture, and of all of a dataset."""

    file: int
    total: int


def prepare(store: Store) -> Path:
    """The folder of parts, without those of a process that was killed."""
    folder = store.folder / "raw" / _PARTS
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made ({error.strerror})") from None
    return folder


def fetch_picture(visitor: Visitor, store: Store, entry: Entry, limits: Limits) -> Picture:
    """The picture that a line of the queue speaks of; it is in its place then.

    Raises:
        NotFetched: it cannot be had now.
        Stopped: the dataset is as large as it may be, or the disk is full.
    """
    if (other := _other_kind(entry)) is not None:
        raise NotFetched(f"not a kind of picture that is taken: {other}")
    if entry.sha1 and (known := store.picture_by_sha1(entry.sha1)) is not None:
        return known
    _check_size(store, entry.bytes or 0, limits)
    part = store.folder / "raw" / _PARTS / hashlib.sha256(entry.url.encode()).hexdigest()
    try:
        return visitor.fetch(
            entry.url, lambda response: _take(response, store, entry, limits, part), _accept(entry)
        )
    except OSError as error:
        raise Stopped(f"{part.parent} cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


def _other_kind(entry: Entry) -> str | None:
    """What a file is said to be that is not taken, so that nobody needs to ask for it."""
    if entry.mime:
        return None if entry.mime in EXTENSIONS else entry.mime
    ending = file_name(entry.url).lower().rpartition(".")[2]
    return ending if ending in _OTHERS else None


def _accept(entry: Entry) -> str:
    webp = entry.mime == "image/webp" or (not entry.mime and file_name(entry.url).lower().endswith(".webp"))
    return f"image/webp, {_ACCEPT}" if webp else _ACCEPT


def _check_size(store: Store, size: int, limits: Limits) -> None:
    if size > limits.file:
        raise NotFetched("larger than --max-file")
    if store.total_bytes() + size > limits.total:
        raise Stopped("the dataset is as large as --max-total permits")
    check_disk(store, size)


def check_disk(store: Store, size: int = 0) -> None:
    """Whether so many bytes more have a place.

    Raises:
        Stopped: they have none.
    """
    if shutil.disk_usage(store.folder).free < size + _RESERVE:
        raise Stopped("the disk is almost full")


def _take(response: httpx.Response, store: Store, entry: Entry, limits: Limits, part: Path) -> Picture:
    if response.status_code != 200:
        raise NotFetched(f"HTTP {response.status_code}")
    if {"noai", "noimageai"} & {
        word.strip() for word in response.headers.get("x-robots-tag", "").lower().split(",")
    }:
        raise NotFetched("the server asks that it is not used for AI (X-Robots-Tag)")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotFetched("sent in a packed form that was not asked for")
    length = response.headers.get("content-length", "")
    _check_size(store, int(length) if length.isdigit() and length.isascii() else 0, limits)
    sha256, sha1, size = _write(response, store, limits, part)
    with part.open("rb") as file:
        mime = kind(file.read(16))
    if entry.sha1 and sha1 != entry.sha1:
        substitute = mime == "image/webp" and entry.mime != mime
        raise NotFetched("WebP in place of the original" if substitute else "wrong sha1")
    return _keep(store, entry, part, mime, Picture(sha256, sha1, mime or "", 0, 0, size, now()))


def _write(response: httpx.Response, store: Store, limits: Limits, part: Path) -> tuple[str, str, int]:
    """Stream the body into the part, as far as it may go: sha256, sha1, bytes."""
    room = limits.total - store.total_bytes()
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    size, end = 0, time.monotonic() + _LONGEST
    with part.open("wb") as file:
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > limits.file:
                raise NotFetched("larger than --max-file")
            if size > room:
                raise Stopped("the dataset is as large as --max-total permits")
            if time.monotonic() > end:
                raise NotFetched("too slow")
            file.write(chunk)
            sha256.update(chunk)
            sha1.update(chunk)
    return sha256.hexdigest(), sha1.hexdigest(), size


def _keep(store: Store, entry: Entry, part: Path, mime: str | None, picture: Picture) -> Picture:
    if mime is None:
        raise NotFetched("no picture")
    if mime == "image/webp" and not entry.sha1 and not file_name(entry.url).lower().endswith(".webp"):
        raise NotFetched("WebP in place of the original")
    try:
        width, height = measure(part, mime)
    except NotWhole as error:
        if not entry.sha1:
            raise Again("cut off or damaged") from error
        width, height = 0, 0  # the wiki's own file is damaged; a later step puts it aside
    whole = Picture(picture.sha256, picture.sha1, mime, width, height, picture.bytes, picture.added_at)
    keep_file(store, part, whole)
    return whole
