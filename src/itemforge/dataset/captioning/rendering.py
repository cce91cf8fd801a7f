"""The caption, written from fields: trigger, description, style tail, and never more than CLIP reads.

What does not fit is left out whole, the least important first: background, view, parts from the last, material,
colours from the last, then words of the object from the last; of a description that came whole, its phrases from the
last, then its words. The tail says what the whole set shares, so it gives way only where trigger and tail alone are too long.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from itemforge.dataset.captioning.fields import LOOSE, CaptionFields, one_line
from itemforge.dataset.captioning.tokens import MAX_TOKENS, count_tokens
from itemforge.errors import InvalidInput

TAIL = (
    "white background, thick outlines, pastel color, cartoon style, hand-drawn, 2D icon, game item, "
    "2D game style, minimalist"
)
_PLACE = re.compile(r"\{(trigger|description|tail)\}")
_WHITE_OR_NONE = re.compile(
    r"((white|off|pure|plain|solid|clean|simple|blank|empty|clear|transparent|none|no|neutral|isolated|background|backdrop|"
    r"a|an|the|on|and)\b[\s-]*)+"
)
_BARE_VIEWS = {"front", "side", "back", "top", "bottom", "isometric", "three-quarter", "frontal"}


@dataclass(frozen=True)
class Look:
    """What all captions of a style share.

    Raises:
        InvalidInput: a text has empty places between commas or control characters, or the template lacks a place.
    """

    trigger: str = "tsuki_advtr"
    template: str = "{trigger}, {description}, {tail}"
    tail: str = TAIL

    def __post_init__(self) -> None:
        for what, text in (("trigger", self.trigger), ("style tail", self.tail)):
            if text != one_line(text) or _PLACE.search(text):
                raise InvalidInput(
                    f"the {what} must be one line of words between commas, with nothing empty between them and no {{places}}: {text[:80]!r}"
                )
        if not self.trigger:
            raise InvalidInput("a trigger is needed: the word by which the style is called")
        if unknown := re.search(r"\{\w*\}|[{}]", _PLACE.sub("", self.template)):
            # Else the braces would be learnt.
            raise InvalidInput(
                f"{unknown[0]} is no part of a caption; the template's places are {{trigger}}, {{description}} and {{tail}}"
            )
        if "{trigger}" not in self.template or "{description}" not in self.template:
            raise InvalidInput(
                "the caption's template needs {trigger} and {description}, and may have {tail}"
            )


TSUKI = Look()


@dataclass(frozen=True)
class Rendered:
    """A caption, its CLIP tokens, and what was left out to fit."""

    text: str
    tokens: int
    dropped: tuple[str, ...] = ()


def render(fields: CaptionFields, look: Look = TSUKI, limit: int = MAX_TOKENS) -> Rendered:
    """The caption of a picture in a style.

    Raises:
        InvalidInput: the trigger alone, with what else the template says, has more tokens than the limit.
    """
    tail, cut = _fitting_tail(look, limit)
    for shorter, dropped in _shortened(fields):
        text = fill(look, describe(shorter) if shorter else "", tail)
        tokens = count_tokens(text)
        if tokens <= limit:
            return Rendered(text, tokens, (*dropped, *cut))
    raise AssertionError("the tail was chosen to fit with no description")  # pragma: no cover


def describe(fields: CaptionFields) -> str:
    """The description alone.

    >>> describe(CaptionFields(object="sword", parts=["leather grip"], colours=["grey", "red"], material="iron"))
    'grey and red sword with leather grip, made of iron'
    """
    if fields.text:
        return fields.text
    said = set(fields.object.split())
    colours = [colour for colour in fields.colours if not set(colour.split()) <= said]
    thing = " ".join([_joined(colours), fields.object]).strip()
    parts = [part for part in fields.parts if not set(part.split()) <= said]
    pieces = [f"{thing} with {_joined(parts)}" if parts else thing]
    if fields.material and not set(fields.material.split()) <= said:
        pieces.append(
            fields.material if fields.material.startswith("made of ") else f"made of {fields.material}"
        )
    if fields.view:
        pieces.append(f"{fields.view} view" if fields.view in _BARE_VIEWS else fields.view)
    if _is_worth_saying(fields.background):
        named = {"background", "backdrop"} & set(fields.background.split())
        pieces.append(fields.background if named else f"{fields.background} background")
    return ", ".join(pieces)


def _shortened(fields: CaptionFields) -> Iterator[tuple[CaptionFields | None, tuple[str, ...]]]:
    """The fields, then ever less of them, with the names of what is gone; at the end nothing."""
    gone: list[str] = []
    yield fields, ()
    for step, change in _steps(fields):
        fields = fields.model_copy(update=change)
        gone.append(step)
        yield fields, tuple(gone)
    yield None, (*gone, "object")


def _steps(fields: CaptionFields) -> Iterator[tuple[str, dict[str, object]]]:
    if fields.text:
        yield from _shorter_text(fields.text)
        return
    if fields.background:
        yield "background", {"background": ""}
    if fields.view:
        yield "view", {"view": ""}
    for count in range(len(fields.parts) - 1, -1, -1):
        yield f"part {fields.parts[count]}", {"parts": fields.parts[:count]}
    if fields.material:
        yield "material", {"material": ""}
    for count in range(len(fields.colours) - 1, -1, -1):
        yield f"colour {fields.colours[count]}", {"colours": fields.colours[:count]}
    words = fields.object.split()
    for count in range(len(words) - 1, 0, -1):
        if words[count - 1] not in LOOSE:
            yield f"word {' '.join(words[count:])}", {"object": " ".join(words[:count])}


def _shorter_text(text: str) -> Iterator[tuple[str, dict[str, object]]]:
    phrases = text.split(", ")
    for count in range(len(phrases) - 1, 0, -1):
        yield f"phrase {phrases[count]}", {"text": ", ".join(phrases[:count])}
    words = phrases[0].split()
    for count in range(len(words) - 1, 0, -1):
        if words[count - 1] not in LOOSE:
            yield f"word {words[count]}", {"text": " ".join(words[:count])}


def _fitting_tail(look: Look, limit: int) -> tuple[str, tuple[str, ...]]:
    """The tail, shorter by whole phrases where it does not fit even with no description; and what is cut."""
    phrases = look.tail.split(", ") if look.tail else []
    for count in range(len(phrases), -1, -1):
        tail = ", ".join(phrases[:count])
        if count_tokens(fill(look, "", tail)) <= limit:
            return tail, tuple(f"tail {phrase}" for phrase in phrases[count:])
    raise InvalidInput(
        f"the trigger and what the template says have more than {limit} CLIP tokens; shorten them"
    )


def fill(look: Look, description: str, tail: str) -> str:
    """The template with its places filled."""
    texts = {"trigger": look.trigger, "description": description, "tail": tail}
    return one_line(_PLACE.sub(lambda place: texts[place[1]], look.template))


def _is_worth_saying(background: str) -> bool:
    """Not when it says white or none, as the tail speaks of the ground."""
    return (
        bool(background) and not background.startswith("white") and not _WHITE_OR_NONE.fullmatch(background)
    )


def _joined(names: Sequence[str]) -> str:
    # No commas: trainers shuffle what stands between them.
    return " and ".join([" ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
