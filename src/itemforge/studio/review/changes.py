"""What people do to captions. Each deed is one transaction, made from the versions that were seen, and can be taken back."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from itemforge.dataset.store import Store
from itemforge.dataset.store_captions import (
    Caption,
    CaptionState,
    Change,
    Edit,
    caption,
    deed,
    history,
    last_deed,
    save_captions,
    told,
)
from itemforge.errors import InvalidInput, StaleEdit
from itemforge.studio.review.items import Item
from itemforge.studio.review.words import FIELDS, in_words, read, stored, typed

_STALE = "the caption was changed meanwhile; look at both, and choose"


@dataclass(frozen=True)
class Done:
    """What a deed did. `left`: sha256 of pictures that others had changed meanwhile, and that stay as they are."""

    what: str
    changed: int
    left: tuple[str, ...] = ()
    sha256: str = ""


def edit(store: Store, sha256: str, form: Mapping[str, Any], seen: int, who: str) -> int:
    """Save what was typed; the present version, which is a new one if anything changed.

    Raises:
        InvalidInput: it makes no caption.
        StaleEdit: somebody else changed it.
    """
    fields = stored(read({name: form.get(name, "") for name in FIELDS}))
    before = caption(store, sha256)
    if before is not None and before.version == seen and _cleaned(before.fields) == fields:
        return seen
    after = {"fields": fields, "provider": who, "prompt_version": "", "state": "edited"}
    return _one(store, Edit(sha256, after, seen), who, "edit")


def _cleaned(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return stored(read(fields))
    except InvalidInput:
        return fields


def decide(store: Store, sha256: str, state: CaptionState, seen: int, who: str) -> int:
    """Approve or reject; the present version.

    Raises:
        InvalidInput: there is no caption, or none that can be approved.
        StaleEdit: somebody else changed it.
    """
    before = caption(store, sha256)
    if before is None:
        raise InvalidInput("there is no caption yet; write one first")
    if before.version == seen and before.state == state:
        return seen
    if state == "approved":
        read(before.fields)
    return _one(store, Edit(sha256, told(before) | {"state": state}, seen), who, _DECISIONS[state])


_DECISIONS = {"approved": "approve", "rejected": "reject"}


def revert(store: Store, sha256: str, number: int, seen: int, who: str) -> int:
    """Make the caption what it was after a line of its history; the present version.

    Raises:
        InvalidInput: there is no such line.
        StaleEdit: somebody else changed it.
    """
    line = next((each for each in history(store, sha256) if each.id == number), None)
    if line is None or line.after is None:
        raise InvalidInput("there is no such line in the history; open the picture again")
    before = caption(store, sha256)
    if before is not None and before.version == seen and told(before) == line.after:
        return seen
    return _one(store, Edit(sha256, line.after, seen), who, f"revert to {line.at}")


def _one(store: Store, change: Edit, who: str, what: str) -> int:
    if save_captions(store, [change], who=who, what=what, deed=uuid4().hex):
        raise StaleEdit(_STALE)
    now = caption(store, change.sha256)
    return now.version if now else 0


def undo(store: Store, who: str) -> Done | None:
    """Take back what somebody did last, where nobody has changed it since; None when there is nothing."""
    name = last_deed(store, who)
    if name is None:
        return None
    lines = deed(store, name)
    edits, left = [], []
    for line in lines:
        now = caption(store, line.sha256)
        if _is(now, line):
            edits.append(Edit(line.sha256, line.before, now.version if now else 0))
        else:
            left.append(line.sha256)
    if not edits:  # else it would stay the last one for ever
        edits = [Edit(line.sha256, *_as_it_is(store, line.sha256)) for line in lines[:1]]
        save_captions(
            store, edits, who=who, what=f"undo of {lines[0].what}: too late", deed=uuid4().hex, undoes=name
        )
        return Done(lines[0].what, 0, tuple(left), lines[0].sha256)
    left += save_captions(
        store, edits, who=who, what=f"undo of {lines[0].what}", deed=uuid4().hex, undoes=name
    )
    return Done(
        lines[0].what, len(lines) - len(left), tuple(left), lines[0].sha256 if len(lines) == 1 else ""
    )


def _is(now: Caption | None, line: Change) -> bool:
    return (told(now) if now else None) == line.after


def _as_it_is(store: Store, sha256: str) -> tuple[Mapping[str, Any] | None, int]:
    now = caption(store, sha256)
    return (told(now), now.version) if now else (None, 0)


@dataclass(frozen=True)
class Planned:
    """One change of a bulk deed. `problem` says why it cannot be made."""

    item: Item
    before: str
    after: str
    fields: Mapping[str, Any] | None
    problem: str = ""


def plan_replace(items: Iterable[Item], find: str, by: str, whole: bool) -> list[Planned]:
    """What replacing a text in all fields would change.

    Raises:
        InvalidInput: there is nothing to find.
    """
    find = " ".join(find.lower().split())
    if not find:
        raise InvalidInput("write what to find")
    words = re.escape(find).replace(r"\ ", r"\s+")
    pattern = re.compile(rf"(?<!\w){words}(?!\w)" if whole else words)
    return list(_replaced(items, pattern, " ".join(by.lower().split())))


def _replaced(items: Iterable[Item], pattern: re.Pattern[str], by: str) -> Iterator[Planned]:
    for item in items:
        if item.caption is None:
            continue
        before = typed(item.caption.fields)
        after = {name: pattern.sub(lambda _: by, text.lower()) for name, text in before.items()}
        if not any(pattern.search(text.lower()) for text in before.values()):
            continue
        try:
            fields = stored(read(after))
        except InvalidInput as error:
            yield Planned(item, item.words, item.words, None, str(error))
            continue
        if fields != _cleaned(item.caption.fields):
            yield Planned(item, _spelt(before), _spelt(typed(fields)), fields)


def _spelt(fields: Mapping[str, str]) -> str:
    """All fields, so that a change in one that the caption does not say is seen too."""
    return " · ".join(f"{name}: {text}" for name, text in fields.items() if text)


def replace_all(store: Store, plan: Iterable[Planned], seen: Mapping[str, int], what: str, who: str) -> Done:
    """Make the planned changes that were seen, in one deed."""
    after = {each.item.sha256: each.fields for each in plan if each.fields is not None}
    about = {"provider": who, "prompt_version": "", "state": "edited"}
    edits = [
        Edit(sha256, {"fields": after[sha256], **about}, version)
        for sha256, version in seen.items()
        if sha256 in after
    ]
    gone = [sha256 for sha256 in seen if sha256 not in after]
    left = save_captions(store, edits, who=who, what=what, deed=uuid4().hex)
    return Done(what, len(edits) - len(left), (*left, *gone))


def can_become(item: Item, state: CaptionState) -> bool:
    """Whether a decision for many would change this one."""
    if item.caption is None or item.state == state:
        return False
    return state != "approved" or _is_caption(item.caption.fields)


def _is_caption(fields: Mapping[str, Any]) -> bool:
    try:
        read(fields)
    except InvalidInput:
        return False
    return True


def decide_all(store: Store, seen: Mapping[str, int], state: CaptionState, who: str) -> Done:
    """Approve or reject the captions that were seen, in one deed."""
    what = f"{_DECISIONS[state]} many"
    edits = []
    gone = []
    for sha256, version in seen.items():
        now = caption(store, sha256)
        if now is None:
            gone.append(sha256)
        else:
            edits.append(Edit(sha256, told(now) | {"state": state}, version))
    left = save_captions(store, edits, who=who, what=what, deed=uuid4().hex)
    return Done(what, len(edits) - len(left), (*left, *gone))


def words_of(change: Mapping[str, Any] | None) -> str:
    """What a side of a line of the history said."""
    return in_words(change["fields"]) if change else ""
