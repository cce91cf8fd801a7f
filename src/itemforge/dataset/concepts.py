"""The things that the icons show: their names, and the words that people use for them.

From emojibase-data: a label, keywords, and the short names of chat programs. Words that several things share
("animal", "fruit") cannot tell which is meant and are no names; of the others some are kept from training, so
that an evaluation can ask for a thing by a word that the model never saw it under.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from itemforge.dataset.icon_sets import code_points
from itemforge.dataset.packages import Archive

#: Animals and nature, food and drink, travel and places, activities, objects.
_GROUPS = {3: "nature", 4: "food", 5: "travel", 6: "activities", 7: "objects"}
#: Two dozen clock faces, the phases of the moon and the faces on moon and sun, playing-card suits, and signs.
_LEFT_OUT = re.compile(
    r"o’clock|-thirty|moon|sun with face|\bsuit\b|\bbutton\b|globe showing|globe with|with slash|"
    r"mobile phone off|antenna bars|vibration mode|no mobile|high voltage|cyclone|bullseye|flower playing cards|"
    r"map of|mahjong|clamp\b|heavy dollar|currency|wheel$"
)
_SHORT_NAMES = ("github", "cldr", "joypixels", "emojibase", "iamcal")
#: Of the words that name one thing alone, one in this many is kept from training.
HELD_OUT_ONE_IN = 4


@dataclass(frozen=True)
class Concept:
    """One thing. `synonyms` may be trained on; `held_out` are words for it that training never sees."""

    code: str
    label: str
    group: str
    synonyms: tuple[str, ...]
    held_out: tuple[str, ...]


def read_concepts(archive: Archive) -> list[Concept]:
    """All things, in the order of their code points.

    Raises:
        InvalidInput: the package is not emojibase-data.
    """
    emoji = [each for each in archive.json("en/data.json") if _is_a_thing(each)]
    short: dict[str, set[str]] = {}
    for kind in _SHORT_NAMES:
        for code, names in archive.json(f"en/shortcodes/{kind}.json").items():
            short.setdefault(code, set()).update(_spoken([names] if isinstance(names, str) else names))
    words = {each["hexcode"]: set(_spoken(each.get("tags", []))) | short[each["hexcode"]] for each in emoji}
    uses = Counter(word for found in words.values() for word in found)
    labels = {_plain(each["label"]) for each in emoji}
    made = []
    for each in sorted(emoji, key=lambda each: str(each["hexcode"])):
        label = _plain(each["label"])
        own = sorted(
            word for word in words[each["hexcode"]] if uses[word] == 1 and _is_a_name(word, label, labels)
        )
        held_out = tuple(word for word in own if _draw(each["hexcode"], word) % HELD_OUT_ONE_IN == 0)
        trained = tuple(word for word in own if word not in held_out)
        made.append(Concept(code_points(each["hexcode"]), label, _GROUPS[each["group"]], trained, held_out))
    return made


def _is_a_thing(emoji: dict[str, object]) -> bool:
    return emoji.get("group") in _GROUPS and not _LEFT_OUT.search(str(emoji["label"]))


def _spoken(names: Iterable[str]) -> list[str]:
    return [_plain(re.sub(r"[_-]", " ", name)) for name in names]


def _plain(text: str) -> str:
    text = text.lower().replace("’", "'").replace(" & ", " and ")
    return " ".join(text.replace("“", "").replace("”", "").split())


def _is_a_name(word: str, label: str, labels: set[str]) -> bool:
    """Whether a keyword can stand for the thing: letters, and not the label once more in other spelling."""
    letters = re.sub(r"[^a-z]", "", word)
    if len(letters) < 3 or not re.fullmatch(r"[a-z' ]+", word) or (word in labels and word != label):
        return False
    return letters.rstrip("s") != re.sub(r"[^a-z]", "", label).rstrip("s")


def _draw(code: str, word: str) -> int:
    """A number of the pair's own: the split does not change when other things come or go."""
    return int.from_bytes(hashlib.sha256(f"{code} {word}".encode()).digest()[:4], "big")
