"""From a written caption back to its fields: the inverse of `rendering`, for captions that came from elsewhere."""

from collections.abc import Iterable, Sequence

from itemforge.dataset.captioning.fields import MAX_TEXT, MAX_WORDS, CaptionFields, clean, one_line
from itemforge.dataset.captioning.rendering import TSUKI, Look, describe, fill
from itemforge.errors import InvalidInput

#: Stands for the description while a template is taken apart.
_MARK = "description-goes-here"
#: Fewer captions than this may begin or end alike by chance.
_ENOUGH = 3


def description_of(caption: str, look: Look) -> str:
    """What a caption says besides trigger and tail; all that it says where it has neither.

    >>> description_of("tsuki_advtr, a red key, white background", Look(tail="white background"))
    'a red key'
    """
    text = one_line(caption)
    before, _, _ = fill(look, _MARK, "").partition(_MARK)
    if text.startswith(before):
        text = text.removeprefix(before)
    elif text == before.rstrip(", "):
        return ""
    phrases = look.tail.split(", ") if look.tail else []
    # Where a caption did not fit, the tail may have given way from its end.
    for count in range(len(phrases), 0, -1):
        _, _, after = fill(look, _MARK, ", ".join(phrases[:count])).partition(_MARK)
        if text == after.lstrip(", "):
            return ""
        if text.endswith(after):
            return text.removesuffix(after)
    return text


def fields_of(description: str) -> CaptionFields | None:
    """The fields that are written as this description; where none are, it is kept whole. None when it says nothing."""
    text = one_line(description)[:MAX_TEXT].rstrip(", ")
    if not text:
        return None
    try:
        fields = _taken_apart(text)
    except ValueError:  # pydantic's error is one: too long for a name, or written as talk
        fields = None
    if fields is not None and describe(fields) == text:
        return fields
    return CaptionFields(object=_short(text), text=text)


def _taken_apart(text: str) -> CaptionFields | None:
    thing, *rest = text.split(", ")
    name, _, parts = thing.partition(" with ")
    said: dict[str, str] = {}
    for piece in rest:
        if piece.startswith("made of "):
            said["material"] = piece.removeprefix("made of ")
        elif piece.endswith(" view"):
            said["view"] = piece
        elif piece.endswith((" background", " backdrop")):
            said["background"] = piece
        else:
            return None
    return CaptionFields(object=name, parts=(parts,) if parts else (), **said)


def _short(text: str) -> str:
    """A name for lists; the description itself is what is said."""
    name = " ".join(clean(text.split(", ")[0]).split()[:MAX_WORDS])
    try:
        return CaptionFields(object=name).object
    except ValueError:
        return "item"


def look_of(captions: Sequence[str], ours: Look) -> Look:
    """What captions from elsewhere have in common: ours, if most have it, else what all of them begin and end with."""
    said = [one_line(caption) for caption in captions]
    phrases = [text.split(", ") for text in said]
    begin = _most(text.startswith(ours.trigger) for text in said)
    end = not ours.tail or _most(text.endswith(ours.tail) for text in said)
    trigger, tail = (ours.trigger if begin else _first(phrases)), (ours.tail if end else _last(phrases))
    if trigger is None or (begin and not tail) or (begin and end):
        return ours
    try:
        return Look(trigger, ours.template if begin and end else TSUKI.template, tail)
    except InvalidInput:  # what they share has braces
        return ours


def _most(true: Iterable[bool]) -> bool:
    said = list(true)
    return 2 * sum(said) > len(said)


def _first(phrases: list[list[str]]) -> str | None:
    shared = len(phrases) >= _ENOUGH and len({each[0] for each in phrases}) == 1
    return phrases[0][0] if shared and min(map(len, phrases)) > 1 else None


def _last(phrases: list[list[str]]) -> str:
    """The end that all share, which leaves each of them a beginning and a description."""
    most = min(map(len, phrases)) - 2 if len(phrases) >= _ENOUGH else 0
    count = next((n for n in range(most, 0, -1) if len({tuple(each[-n:]) for each in phrases}) == 1), 0)
    return ", ".join(phrases[0][-count:]) if count else ""
