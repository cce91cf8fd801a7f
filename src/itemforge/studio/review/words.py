"""What people type, as a caption's fields, and what becomes of it."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from itemforge.dataset.captioning.fields import MAX_LETTERS, MAX_LISTED, MAX_TEXT, MAX_WORDS, CaptionFields
from itemforge.dataset.captioning.rendering import Look, describe, render
from itemforge.dataset.captioning.tokens import MAX_TOKENS
from itemforge.errors import InvalidInput

FIELDS = tuple(CaptionFields.model_fields)
LISTS = ("parts", "colours")


@dataclass(frozen=True)
class Shown:
    """A caption as it will be learnt. `problem` says why there is none; `text` is empty then."""

    text: str = ""
    tokens: int = 0
    dropped: tuple[str, ...] = ()
    problem: str = ""
    limit: int = MAX_TOKENS


def show(fields: Mapping[str, Any], look: Look) -> Shown:
    try:
        rendered = render(read(fields), look)
    except InvalidInput as error:
        return Shown(problem=str(error))
    return Shown(rendered.text, rendered.tokens, rendered.dropped)


def read(fields: Mapping[str, Any]) -> CaptionFields:
    """Fields as they are stored or typed; in typed lists commas separate.

    Raises:
        InvalidInput: they make no caption; the text names the field.
    """
    for name in FIELDS:
        _check_length(name, fields.get(name))
    try:
        return CaptionFields.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "fields"
        said = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{name}: {said}") from None


def _check_length(name: str, value: Any) -> None:
    if name == "text":
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise InvalidInput(f"{name}: at most {MAX_TEXT} letters")
        return
    listed = pieces(value) if name in LISTS else [value]
    if len(listed) > MAX_LISTED:
        raise InvalidInput(f"{name}: at most {MAX_LISTED}, and there are {len(listed)}")
    for each in listed:
        if isinstance(each, str) and (len(each.split()) > MAX_WORDS or len(each) > MAX_LETTERS):
            raise InvalidInput(f"{name}: at most {MAX_WORDS} words and {MAX_LETTERS} letters")


def pieces(value: Any) -> list[Any]:
    """What a list holds, be it typed or stored."""
    if isinstance(value, str):
        return [each for each in value.replace(";", ",").split(",") if each.strip()]
    return list(value) if isinstance(value, (list, tuple)) else []


def typed(fields: Mapping[str, Any]) -> dict[str, str]:
    """Stored fields as they stand in the form, also those that are no caption."""
    return {name: _typed(fields.get(name)) for name in FIELDS}


def _typed(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(each) for each in value)
    return "" if value is None else str(value)


def stored(fields: CaptionFields) -> dict[str, Any]:
    """As the dataset keeps them."""
    return fields.model_dump(mode="json")


def in_words(fields: Mapping[str, Any]) -> str:
    """All that the fields say, in one line: what is searched, and shown where things are compared."""
    try:
        return describe(read(fields))
    except InvalidInput:
        return "; ".join(value for value in typed(fields).values() if value)


Kind = Literal["same", "gone", "new"]


def difference(before: str, after: str) -> list[tuple[Kind, str]]:
    """Both texts in one, by words."""
    a, b = before.split(), after.split()
    parts: list[tuple[Kind, str]] = []
    for what, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if what == "equal":
            parts.append(("same", " ".join(a[a0:a1])))
            continue
        if a1 > a0:
            parts.append(("gone", " ".join(a[a0:a1])))
        if b1 > b0:
            parts.append(("new", " ".join(b[b0:b1])))
    return parts
