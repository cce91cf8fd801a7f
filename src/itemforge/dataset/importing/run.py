"""Imports folders, archives and single pictures: pictures into `raw`, captions as fields, each checked by itself."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from itemforge.dataset.captioning.fields import CaptionFields
from itemforge.dataset.captioning.reading import description_of, fields_of, look_of
from itemforge.dataset.captioning.rendering import Look
from itemforge.dataset.crawl.kinds import NotWhole, kind, measure
from itemforge.dataset.importing.finding import PICTURES, FoundPicture, Layout, find_pictures
from itemforge.dataset.importing.unpacking import MOST_BYTES, unpacked
from itemforge.dataset.layouts import sample_of
from itemforge.dataset.locks import only_one
from itemforge.dataset.manifest import MANIFEST, open_manifest
from itemforge.dataset.ready import fields_of as read_fields
from itemforge.dataset.steps.processing import GIVEN, Tell
from itemforge.dataset.store import LOCK, Picture, Store, add_picture, is_dataset, keep_file, now
from itemforge.dataset.store_captions import Caption, CaptionState, caption, save_caption
from itemforge.dataset.store_queue import Found
from itemforge.dataset.store_results import save_result
from itemforge.errors import InvalidInput, StaleEdit

#: Who wrote what comes with an import.
WHO = "import"
_SUFFIX = ".zip"
_ADDRESSES = ("https://", "http://", "import:")


@dataclass
class Summary:
    """What an import did. `left` counts by reason what was not taken; `kept` captions of persons that were there before."""

    layouts: list[str] = field(default_factory=list)
    pictures: int = 0
    new: int = 0
    captions: int = 0
    kept: int = 0
    silent: int = 0
    more_lines: int = 0
    masks: int = 0
    left: Counter[str] = field(default_factory=Counter)
    look: Look | None = None


def import_all(
    store: Store,
    places: Sequence[Path],
    *,
    layout: Layout | None = None,
    state: CaptionState = "approved",
    licence: str = "",
    tell: Tell = lambda stage, done, of: None,
) -> Summary:
    """Take all pictures and captions of the places; what is here already stays as it is.

    A dataset that has no settings yet gets those of what it imports: its own, if it is an export, else what all captions
    have in common. `tell` hears how far it is.

    Raises:
        InvalidInput: a place is no set of pictures; nothing of any place was taken then.
        ConfigurationError: the dataset's settings are wrong, or another process fills it.
        OSError: the disk is full.
    """
    summary, folder = Summary(), store.folder
    busy = f"another crawl or import works on {folder}; wait for it"
    with only_one(folder / LOCK, busy), ExitStack() as stack:
        _sweep(folder)
        found: list[tuple[Path, FoundPicture, Look | None]] = []
        for place in places:
            kind_of, pictures, look = stack.enter_context(_opened(place, folder, layout))
            summary.layouts.append(kind_of)
            found += [(place, each, look) for each in pictures]
        look = _look(store, found, summary)
        for done, (place, each, own) in enumerate(found, 1):
            _take(store, place, each, own or look, summary, state, licence)
            tell("pictures", done, len(found))
    return summary


def _sweep(folder: Path) -> None:
    """What killed imports left."""
    for left in folder.glob(".import-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def _opened(
    place: Path, folder: Path, layout: Layout | None
) -> Iterator[tuple[str, list[FoundPicture], Look | None]]:
    if not place.exists():
        raise InvalidInput(f"there is no {place}")
    if is_dataset(place):
        raise InvalidInput(f"{place} is a dataset of its own; import what `itemforge data export` made of it")
    if place.is_file() and place.suffix.lower() in PICTURES:
        one = sample_of(place)
        yield "picture", [FoundPicture(place, place.name, one.captions, masked=one.mask is not None)], None
    elif place.is_file():
        if place.suffix.lower() != _SUFFIX and layout is not Layout.zip:
            raise InvalidInput(f"{place} is neither a picture nor a zip archive")
        with unpacked(place, folder) as inside:
            chosen, pictures = find_pictures(inside, None if layout is Layout.zip else layout)
            yield f"zip of {chosen}", pictures, _own_look(inside)
    elif layout is Layout.zip:
        raise InvalidInput(f"{place} is no zip archive")
    else:
        chosen, pictures = find_pictures(place, layout)
        yield chosen.value, pictures, _own_look(place)


def _own_look(folder: Path) -> Look | None:
    """The settings that an export has with it."""
    return open_manifest(folder).look() if (folder / MANIFEST).is_file() else None


def _look(store: Store, found: Sequence[tuple[Path, FoundPicture, Look | None]], summary: Summary) -> Look:
    """How captions that come without settings are written."""
    is_new = not (store.folder / MANIFEST).is_file()
    own = next((look for _, _, look in found if look is not None), None)
    loose = [each.captions[0] for _, each, look in found if look is None and each.captions]
    ours = open_manifest(store.folder, own).look() if is_new and own else None
    if ours is None and is_new and loose and (guess := look_of(loose, Look())) != Look():
        ours = open_manifest(store.folder, guess).look()
    if ours is not None:
        summary.look = ours
        return ours
    return look_of(loose, open_manifest(store.folder).look())


def _take(
    store: Store,
    place: Path,
    found: FoundPicture,
    look: Look,
    summary: Summary,
    state: CaptionState,
    licence: str,
) -> None:
    summary.pictures += 1
    picture = _picture(store, found, summary)
    if picture is None:
        return
    with store.change() as db:
        summary.new += store.picture(picture.sha256) is None
        add_picture(db, picture)
        _add_source(store, picture, _source(place, found, licence))
    if found.held_out is not None:
        save_result(store, picture.sha256, GIVEN, GIVEN, "ok", {"held_out": found.held_out})
    summary.masks += found.masked
    if found.captions:
        summary.more_lines += len(found.captions) > 1
        _caption(store, picture, found.captions[0], look, state, summary)


def _picture(store: Store, found: FoundPicture, summary: Summary) -> Picture | None:
    """The picture, its file in its place; None, and counted, where it is none."""
    part = store.folder / f".import-{uuid4().hex}"
    try:
        size = found.path.stat().st_size
        if size > MOST_BYTES:
            raise NotWhole(f"larger than {MOST_BYTES // 1024**2} MiB")
        shutil.copyfile(found.path, part)
        data = part.read_bytes()
        mime = kind(data[:16])
        if mime is None:
            raise NotWhole("no PNG, JPEG, GIF, WebP or BMP")
        width, height = measure(part, mime)
    except NotWhole as error:
        summary.left[str(error)] += 1
    except FileNotFoundError:
        summary.left["named, but not there"] += 1
    except IsADirectoryError:
        summary.left["a folder"] += 1
    else:
        sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        digest = hashlib.sha256(data).hexdigest()
        picture = Picture(digest, sha1, mime, width, height, len(data), now())
        keep_file(store, part, picture)
        return picture
    finally:
        part.unlink(missing_ok=True)
    return None


def _source(place: Path, found: FoundPicture, licence: str) -> Found:
    """Where it came from: what the import says of it, else its file, without folders of this machine."""
    about, name = found.about, found.name
    source = about.get("source", "")
    return Found(
        # Of an address in somebody's file a page might make a link.
        url=source if source.startswith(_ADDRESSES) else f"import:{place.name}/{name}",
        title=Path(name).name,
        item=about.get("item", ""),
        page=about.get("page", ""),
        uploader=about.get("uploader", ""),
        licence=about.get("licence") or licence,
    )


def _add_source(store: Store, picture: Picture, found: Found) -> None:
    facts: dict[str, Any] = {
        "sha256": picture.sha256,
        "item": found.item,
        "page": found.page,
        "section": found.section,
        "url": found.url,
        "title": found.title,
        "uploader": found.uploader,
        "licence": found.licence,
        "timestamp": found.timestamp,
        "sha1": picture.sha1,
        "first_seen": now(),
    }
    names, marks = ", ".join(facts), ", ".join("?" for _ in facts)
    store.db.execute(
        f"INSERT OR IGNORE INTO sources ({names}) VALUES ({marks})",  # noqa: S608 - constants
        tuple(facts.values()),
    )


def _caption(
    store: Store, picture: Picture, text: str, look: Look, state: CaptionState, summary: Summary
) -> None:
    fields = fields_of(description_of(text, look))
    if fields is None:
        summary.silent += 1
        return
    said = fields.model_dump(mode="json")
    before = caption(store, picture.sha256)
    if before is not None and before.state != "auto":
        summary.kept += _read(before) != fields
        return
    try:
        save_caption(
            store,
            picture.sha256,
            said,
            provider=WHO,
            prompt_version=WHO,
            state=state,
            who=WHO,
            seen=before.version if before else 0,
            what=WHO,
        )
        summary.captions += 1
    except StaleEdit:
        summary.kept += 1


def _read(before: Caption) -> CaptionFields | None:
    try:
        return read_fields(before)
    except InvalidInput:
        return None
