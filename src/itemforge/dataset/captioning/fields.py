"""What a caption is made of, as a provider answers it: short names of what is to be seen, cleaned and checked.

The check is ours although a schema was agreed: models have written their thinking into fields, with image input
above all (googleapis/python-genai#2775).
"""

import re
import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

#: More words than this are a sentence, no name of a thing.
MAX_WORDS = 16
MAX_LETTERS = 160
MAX_LISTED = 6
#: Letters of a description that came whole.
MAX_TEXT = 2000
#: Words that cannot end a name.
LOOSE = {"a", "an", "the", "of", "with", "and", "in", "on", "for", "from", "to", "by"}
#: Types of the errors that `CaptionFields` raises besides pydantic's own.
TALK, REFUSAL, UNNAMED = "talk", "refusal", "unnamed"

#: Marks that mean something to prompts and tokenizers, and separate what a caption joins by itself.
_MARKS = re.compile(r"[<>|{}\[\]()\"“”„\\*_#`~^=,;/]+")
_WHITE = re.compile(
    r"\s*\b(isolated )?(on|against|over|with|in front of)( an?| the)?( plain| pure| solid| clean| simple| blank)*"
    r" white (background|backdrop)\b"
)
_UNKNOWN = {
    "",
    "-",
    "?",
    "n a",
    "na",
    "none",
    "unknown",
    "unclear",
    "null",
    "not applicable",
    "not visible",
    "unspecified",
}
_REFUSAL = re.compile(
    r"\b(sorry|i (cannot|can't|can not|am unable|won't)|i'm (unable|not able)|unable to (describe|identify|process))\b",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"</?think|\bthoughts?\s*:|\bthinking\s*:|\breasoning\b|\blet me\b|\blet's\b|^\s*(okay|ok|hmm|wait|alright|well|so)\s*[,.:!]"
    r"|^\s*(this|it|that) (is|looks|appears|seems)\b|\b(appears|seems) to be\b|\bi (need|should|will|think|see|am|must|would|could|have to)\b|\bi'(m|ll|ve|d)\b|\bthe (user|prompt|json|schema)\b"
    r"|\bthe (image|picture) (shows|is|depicts|contains)\b|\bas an ai\b|\bstep \d+\s*:|\n\s*\n|\"\s*:\s*[\"\[{]",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether somebody declines to answer."""
    return _REFUSAL.search(text) is not None


def clean(text: str) -> str:
    """One line in lower case, without control characters, marks, and what is said of a white background.

    >>> clean("  A Golden  Key, on a white background. ")
    'a golden key'
    """
    text = unicodedata.normalize("NFC", text.replace("’", "'").replace("3/4", "three-quarter"))
    plain = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in text)
    words = " ".join(_MARKS.sub(" ", plain).lower().split())
    return " ".join(_WHITE.sub("", words).split()).strip(" .:!?-'+&")


def _phrase(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if is_refusal(value):
        raise PydanticCustomError(REFUSAL, "is a refusal")
    if _TALK.search(value):
        raise PydanticCustomError(TALK, "is thinking, no description")
    text = clean(value)
    if len(text.split()) > MAX_WORDS or len(text) > MAX_LETTERS:
        raise PydanticCustomError(TALK, "is longer than any description")
    return "" if text in _UNKNOWN else text


def _name(value: Any) -> str:
    name = re.sub(r"^(an?|the) ", "", _phrase(value))
    if not any(letter.isalpha() for letter in name):
        raise PydanticCustomError(UNNAMED, "names no thing")
    return name


def _phrases(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    listed = re.split(r"[,;]", value) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        raise ValueError("must be a list of texts")
    phrases = dict.fromkeys(_phrase(each) for each in listed)
    return tuple(phrase for phrase in phrases if phrase)[:MAX_LISTED]


def one_line(text: str) -> str:
    """Without control characters, and with nothing empty between commas."""
    plain = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in text)
    pieces = (" ".join(piece.split()) for piece in plain.split(","))
    return ", ".join(piece for piece in pieces if piece)


def _whole(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return one_line(value)


Phrase = Annotated[str, BeforeValidator(_phrase)]
Phrases = Annotated[tuple[str, ...], BeforeValidator(_phrases)]


class CaptionFields(BaseModel):
    """What a picture shows. What is not known is empty; only the object must be there.

    `text` is a description that came whole, as captions do that somebody else wrote: it is said in place of the rest.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    object: Annotated[str, BeforeValidator(_name)]
    parts: Phrases = ()
    colours: Phrases = ()
    material: Phrase = ""
    view: Phrase = ""
    background: Phrase = ""
    text: Annotated[str, Field(max_length=MAX_TEXT), BeforeValidator(_whole)] = ""


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _texts(description: str, most: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "maxItems": most, "description": description}


#: The same as a JSON schema, as it is sent; only keywords that Gemini takes.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "object": _text("the thing itself in one to six words, such as: curved iron sword"),
        "parts": _texts("parts that stand out, such as: leather grip", 4),
        "colours": _texts("main colours of the thing, plain words, most important first", 3),
        "material": _text("what it is made of, in one or two words; empty when it cannot be seen"),
        "view": _text("front view, side view, top view, three-quarter view or isometric view"),
        "background": _text("what is behind the thing: white, none, or a few words"),
    },
    "required": ["object", "parts", "colours", "material", "view", "background"],
}
