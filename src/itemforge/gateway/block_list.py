"""Words that are not drawn: the operator's file, and whether a prompt has one of them.

One word or phrase a line; `#` begins a comment; a `*` at the end stands for any ending. A rule is found at word borders
only, so that `ass` does not forbid a class. Both sides are folded first: case, accents, width, digits and signs that stand
for letters, look-alikes of other alphabets, and letters that are spaced out. The fold is for people who try
to get around a list, not for people who mean another word; nothing of this sort is ever complete.
"""

import asyncio
import re
import time
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from itemforge.errors import ConfigurationError

log = structlog.get_logger(__name__)

MOST_BYTES = 1024 * 1024
#: Seconds after which the file is looked at again.
_LOOK = 2.0

#: Signs that stand for letters inside a word that has letters too. `1` is read as both that it may mean.
_LEET = str.maketrans("0345789@$€+", "oeastbgaset")
_ONES = ("1|!", ("i", "l"))
#: Letters of other alphabets that look like ours, in words that have some of ours.
_ALIKE = str.maketrans("абвеіїјкмнорѕстухԁһԛԝαβεικμνορτυχωı", "abbeiijkmhopsctyxdhqwabeikmvoptuxwi")
_LATIN = re.compile("[a-z]")
#: Written without spaces between words, so a rule is found anywhere.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"[\w@$€+|!]+")
#: Emphasis of prompts, and characters without width: they may stand inside a word and change nothing.
_NOTHING = re.compile("[()\\[\\]{}\\\\\u00ad\u200b-\u200f\u2060\ufeff]")


def fold(text: str) -> set[str]:
    """The ways in which a text may be read: its words in lower case between single spaces.

    >>> sorted(fold("N(u)dé"))
    [' nude ']
    """
    plain = unicodedata.normalize("NFKD", _NOTHING.sub("", text))
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign)).casefold()
    words = _WORD.findall(plain.replace("_", " "))
    return {_joined(_read(word, one) for word in words) for one in _ONES[1]} | {
        _joined(re.sub(r"[^\w]", " ", word) for word in words)
    }


def _read(word: str, one: str) -> str:
    core = word.strip("!|+")
    if not any(sign.isalpha() for sign in core):
        return core
    core = core.translate(_LEET)
    for sign in _ONES[0]:
        core = core.replace(sign, one)
    return core.translate(_ALIKE) if _LATIN.search(core) else core


def _joined(words: Iterable[str]) -> str:
    """With letters that stand alone, three or more in a row, drawn together."""
    text = " ".join(" ".join(words).split())
    spaced = re.sub(r"(?<!\S)\w(?: \w){2,}(?!\S)", lambda found: found[0].replace(" ", ""), text)
    return f" {spaced} "


class Rules:
    """What a file says."""

    def __init__(self, text: str) -> None:
        #: By the first word of each folded rule: what has to follow it, and the rule as it was written.
        self._by_word: dict[str, list[tuple[str, str]]] = {}
        self._anywhere: list[tuple[str, str]] = []
        for line in text.splitlines():
            if rule := line.partition("#")[0].strip():
                self._add(rule)

    def _add(self, rule: str) -> None:
        for folded in fold(rule.rstrip("*")):
            wanted = folded.rstrip() if rule.endswith("*") else folded
            first = folded.split()
            if not first:
                continue
            if _UNSPACED.search(folded):
                self._anywhere.append((folded.strip(), rule))
            elif rule.endswith("*") and len(first) == 1:
                self._anywhere.append((wanted, rule))
            else:
                self._by_word.setdefault(first[0], []).append((wanted, rule))

    def match(self, text: str) -> str | None:
        """The first rule that the text breaks, as it was written."""
        for reading in fold(text):
            for wanted, rule in self._anywhere:
                if wanted in reading:
                    return rule
            for word in dict.fromkeys(reading.split()):
                for wanted, rule in self._by_word.get(word, ()):
                    if wanted in reading:
                        return rule
        return None


class BlockList:
    """The rules of a file, read again soon after it changes; None for a gateway without one."""

    def __init__(self, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises:
        ConfigurationError: the file cannot be read; without it everything would be drawn.
        """
        self._file = file
        self._clock = clock
        self._rules = Rules("")
        self._seen: tuple[int, int] | None = None
        self._look_at = clock() + _LOOK
        if file is not None:
            try:
                self._read(file)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"ITEMFORGE_BLOCK_LIST: {file} cannot be read ({error}); write one word or phrase a line"
                ) from None

    async def refresh(self) -> None:
        """Read the file again if it has changed; one that cannot be read leaves the rules as they are."""
        if self._file is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK
        try:
            await asyncio.to_thread(self._read, self._file)
        except (OSError, ValueError) as error:
            log.warning("block_list_not_read", file=str(self._file), reason=str(error))

    def match(self, prompt: str) -> str | None:
        """The rule that a prompt breaks, or None."""
        return self._rules.match(prompt)

    def _read(self, file: Path) -> None:
        stat = file.stat()
        seen = (stat.st_mtime_ns, stat.st_size)
        if seen == self._seen:
            return
        if stat.st_size > MOST_BYTES or not file.is_file():
            raise ValueError(f"it must be a file of at most {MOST_BYTES} bytes")
        self._rules = Rules(file.read_text("utf-8-sig"))
        self._seen = seen
