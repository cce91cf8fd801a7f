"""Captions from what a wiki calls its files: nothing is asked, nothing is downloaded.

The weakest provider, and the one that always works: a file's name says what the thing is, and nothing of how it looks.
"""

import re
from urllib.parse import unquote

from itemforge.dataset.captioning.face import Answer, Captioned, Failed, Key, Picture, Reason
from itemforge.dataset.captioning.fields import LOOSE, MAX_WORDS, CaptionFields, clean

#: Goes up with every change of what `plain_name` gives.
VERSION = "name-2"
_SUFFIX = re.compile(r"\.(png|jpe?g|gif|webp|svg|bmp|tiff?|avif|ico)$", re.IGNORECASE)
_SPACE_NAME = re.compile(r"^\s*(file|image|datei|fichier|archivo|файл|ファイル)\s*:", re.IGNORECASE)
_SIZE = re.compile(r"\b\d+\s*(x\s*\d+)?\s*px\b|\b\d+\s*x\s*\d+\b", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
#: What says how a picture came to be, not what is on it.
_VARIANTS = re.compile(
    r"icons?|sprites?|renders?|image|img|pic|thumb(nail)?|texture|png|inventory|infobox|artwork|asset|final|hd|sd|"
    r"transparent|nobg|new|old|alt|alternate|copy|variant|v|ver|version|lv|lvl|level|mk|no|nr|tier|rank|"
    r"(v|ver|version|lv|lvl|level|mk|no|nr|tier|rank|#)?\.?\d+(\.\d+)*[a-z]?|ii|iii|iv|vi|vii|viii|ix"
)
_PREFIXES = re.compile(r"icons?|ico|sprite|spr|render|image|img|item|inventory|ui|tex|t|\d+")
_HYPHENED = re.compile(rf"-(?=({_VARIANTS.pattern})(\W|$))", re.IGNORECASE)
_BRACKETS = re.compile(r"[(\[][^)\]]*[)\]]")


class NameCaptioner:
    """The item's name as the caption's object."""

    model = "name"

    def key(self, picture: Picture) -> Key:
        # The answer comes of the name: a picture under another name is another question.
        return Key(picture.sha256, f"{VERSION} {picture.name}", self.model)

    def caption(self, picture: Picture) -> Answer:
        name = plain_name(picture.name)
        if not name:
            return Failed(
                Reason.NO_NAME, f"{picture.name[:80]!r} names no thing; caption it by hand, or with a model"
            )
        try:
            return Captioned(CaptionFields(object=" ".join(name.split()[:MAX_WORDS])))
        except ValueError:  # pydantic's error is one
            return Failed(Reason.NO_NAME, f"{picture.name[:80]!r} reads as a sentence; caption it by hand")


def plain_name(name: str) -> str:
    """What a file's or page's name calls the thing; empty when it calls nothing.

    >>> plain_name("File:Iron_Sword_Icon_v2.png")
    'iron sword'
    """
    text = _SPACE_NAME.sub("", unquote(name))
    while _SUFFIX.search(text):
        text = _SUFFIX.sub("", text)
    text = _HYPHENED.sub(" ", _SIZE.sub(" ", _CAMEL.sub(" ", re.sub(r"[_+]", " ", text))))
    # A name that is all in brackets says more than nothing.
    return _without_variants(_BRACKETS.sub(" ", text)) or _without_variants(text)


def _without_variants(text: str) -> str:
    words = [word for word in (word.strip("-–—.:'") for word in clean(text).split()) if word]
    while words and _VARIANTS.fullmatch(words[-1]) and (len(words) < 2 or words[-2] not in LOOSE):
        words.pop()
    while words and _PREFIXES.fullmatch(words[0]):
        words = words[1:]
    # A digit at a word's end counts pictures: Sword2.
    kept = re.sub(r"(?<=[^\W\d])\d+$", "", " ".join(words))
    return kept if any(letter.isalpha() for letter in kept) else ""
