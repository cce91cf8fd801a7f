"""What items are called, and what files that are named after them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from itemforge.dataset.captioning.by_name import plain_name
from itemforge.dataset.crawl.originals import item_name as name_of_file
from itemforge.dataset.crawl.wiki import clean
from itemforge.dataset.store import Source

#: Letters of a file's name, without its ending; with what is added to it, every file system takes it.
_LONGEST = 80
#: Names that Windows has for devices.
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)


def item_name(sources: Sequence[Source]) -> str:
    """What a picture's item is called, by where it was seen; empty where nothing says it.

    A name that is not the file's own comes first: somebody wrote it on a page. Of several the one that most pages have.
    """
    return clean(_name(sources))  # of a file's name in somebody's archive anything may be a part


def _name(sources: Sequence[Source]) -> str:
    named = [each for each in sources if each.item]
    written = [each.item for each in named if plain_name(each.item) != plain_name(each.title)]
    if names := written or [each.item for each in named]:
        return Counter(names).most_common(1)[0][0]
    return next((name_of_file(each.title) for each in sources if each.title), "")


def file_names(items: Mapping[str, str]) -> dict[str, str]:
    """A file's name for each sha256, from its item's: ASCII letters that all file systems take, each name once.

    >>> file_names({"a" * 64: "Fée: key?", "b" * 64: "sword", "c" * 64: "Sword"})["b" * 64]
    'sword-bbbbbbbb'
    """
    plain = {sha256: file_name(item) or sha256[:16] for sha256, item in items.items()}
    often = Counter(plain.values())
    names = {sha256: f"{name}-{sha256[:8]}" if often[name] > 1 else name for sha256, name in plain.items()}
    often = Counter(names.values())
    return {sha256: f"{name}-{sha256}" if often[name] > 1 else name for sha256, name in names.items()}


def file_name(text: str) -> str:
    """Lower case, digits and hyphens; empty where the text has no letter of the Latin alphabet and no digit."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", letters)[:_LONGEST].strip("-")
    # The mask of another picture would have this end.
    return f"{name}-item" if _DEVICES.fullmatch(name) or name.endswith("masklabel") else name
