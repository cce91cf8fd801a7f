"""The captions' fields, who wrote them, and every change to them.

Two people may have the same picture open. A change names the version that it was made from; if that is not the
present one, it is refused, so nobody's words are lost unseen.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from itemforge.dataset.store import Store, now
from itemforge.errors import StaleEdit

CaptionState = Literal["auto", "edited", "approved", "rejected"]


@dataclass(frozen=True)
class Caption:
    """What is said of a picture. `provider` is the model or the person that said it; `version` counts changes from 1."""

    sha256: str
    fields: Mapping[str, Any]
    provider: str
    prompt_version: str
    state: CaptionState
    version: int
    updated_at: str


@dataclass(frozen=True)
class Change:
    """A line of the history. `before` is None for what was new, `after` for what was removed."""

    sha256: str
    who: str
    what: str
    at: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    id: int = 0
    deed: str = ""


@dataclass(frozen=True)
class Edit:
    """What a caption is to become: as `told` gives it, None for no caption. `seen` as in `save_caption`."""

    sha256: str
    after: Mapping[str, Any] | None
    seen: int


_CAPTION = "sha256, fields, provider, prompt_version, state, version, updated_at"


def caption(store: Store, sha256: str) -> Caption | None:
    row = store.db.execute(f"SELECT {_CAPTION} FROM captions WHERE sha256 = ?", (sha256,)).fetchone()  # noqa: S608 - a constant
    return None if row is None else _caption(row)


def captions(store: Store) -> list[Caption]:
    """All captions, in the order of the pictures' sha256."""
    return [_caption(row) for row in store.db.execute(f"SELECT {_CAPTION} FROM captions ORDER BY sha256")]  # noqa: S608 - a constant


def save_caption(
    store: Store,
    sha256: str,
    fields: Mapping[str, Any],
    *,
    provider: str,
    prompt_version: str,
    state: CaptionState,
    who: str,
    seen: int,
    what: str = "caption",
) -> int:
    """Write a caption, and the change into the history; its new version. `seen` is the version it was made from, 0: none.

    Raises:
        StaleEdit: the caption has changed since.
    """
    after = {"fields": fields, "provider": provider, "prompt_version": prompt_version, "state": state}
    with store.change() as db:
        version = _write(store, db, Edit(sha256, after, seen), (who, what, "", ""))
    if version is None:
        raise StaleEdit("the caption was changed meanwhile; look at it again, and repeat the change")
    return version


def save_captions(
    store: Store, edits: Iterable[Edit], *, who: str, what: str, deed: str, undoes: str = ""
) -> list[str]:
    """Write many captions in one transaction, as one deed; sha256 of those that have changed since, which stay."""
    with store.change() as db:
        return [edit.sha256 for edit in edits if _write(store, db, edit, (who, what, deed, undoes)) is None]


def _write(store: Store, db: sqlite3.Connection, edit: Edit, about: tuple[str, str, str, str]) -> int | None:
    """The new version; None if the caption is another than the one that was seen. `about`: who, what, deed, undoes."""
    before, at = caption(store, edit.sha256), now()
    if (before.version if before else 0) != edit.seen:
        return None
    # A caption that was removed and made anew has no version that it had before.
    (changes,) = db.execute("SELECT count(*) FROM history WHERE sha256 = ?", (edit.sha256,)).fetchone()
    version = max(edit.seen, int(changes)) + 1
    if edit.after is None:
        db.execute("DELETE FROM captions WHERE sha256 = ?", (edit.sha256,))
    else:
        after = edit.after
        db.execute(
            f"INSERT OR REPLACE INTO captions ({_CAPTION}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
            (
                edit.sha256,
                _text(after["fields"]),
                after["provider"],
                after["prompt_version"],
                after["state"],
                version,
                at,
            ),
        )
    texts = [each and _text(each) for each in (told(before) if before else None, edit.after)]
    who, what, deed, undoes = about
    db.execute(
        "INSERT INTO history (sha256, who, what, at, before, after, deed, undoes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (edit.sha256, who, what, at, *texts, deed, undoes),
    )
    return version


def history(store: Store, sha256: str) -> list[Change]:
    """What happened to a picture's caption, oldest first."""
    return _changes(store, "sha256 = ?", sha256)


def deed(store: Store, name: str) -> list[Change]:
    """All that one deed changed."""
    return _changes(store, "deed = ?", name)


def last_deed(store: Store, who: str) -> str | None:
    """What somebody did last, and has not taken back."""
    row = store.db.execute(
        """
        SELECT deed FROM history WHERE who = ? AND deed != '' AND undoes = ''
        AND deed NOT IN (SELECT undoes FROM history) ORDER BY id DESC LIMIT 1
        """,
        (who,),
    ).fetchone()
    return None if row is None else str(row[0])


def last_change(store: Store) -> int:
    """The id of the newest line of the history, 0 if there is none."""
    return int(store.db.execute("SELECT coalesce(max(id), 0) FROM history").fetchone()[0])


def changed_since(store: Store, number: int) -> dict[str, int]:
    """The present versions (0: none) of the captions that changed after the line of the history with this id."""
    rows = store.db.execute(
        """
        SELECT DISTINCT sha256, coalesce(version, 0) FROM history LEFT JOIN captions USING (sha256) WHERE id > ?
        """,
        (number,),
    )
    return {sha256: int(version) for sha256, version in rows}


def _changes(store: Store, where: str, value: str) -> list[Change]:
    rows = store.db.execute(
        f"SELECT sha256, who, what, at, before, after, id, deed FROM history WHERE {where} ORDER BY id",  # noqa: S608 - constants
        (value,),
    )
    return [
        Change(picture, who, what, at, _read(before), _read(after), number, deed)
        for picture, who, what, at, before, after, number, deed in rows
    ]


def told(caption: Caption) -> dict[str, Any]:
    """A caption as the history keeps it."""
    return {
        "fields": caption.fields,
        "provider": caption.provider,
        "prompt_version": caption.prompt_version,
        "state": caption.state,
    }


def _caption(row: tuple[Any, ...]) -> Caption:
    sha256, fields, *rest = row
    return Caption(sha256, json.loads(fields), *rest)


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _read(text: str | None) -> Mapping[str, Any] | None:
    return None if text is None else dict(json.loads(text))
