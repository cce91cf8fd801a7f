"""The pictures of a dataset as the review sees them, and which of them somebody wants to see."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args
from urllib.parse import urlencode

from itemforge.dataset.processed import Processed, all_processed
from itemforge.dataset.store import Picture, Store
from itemforge.dataset.store_captions import Caption, captions
from itemforge.studio.review.words import in_words

#: `none` is a picture that nobody has captioned.
State = Literal["none", "auto", "edited", "approved", "rejected"]
STATES: tuple[str, ...] = get_args(State)
DECIDED = ("approved", "rejected")
#: What is in the dataset, copies that are left out, what processing set aside.
Part = Literal["set", "copies", "aside"]
PARTS: tuple[str, ...] = get_args(Part)
#: Any flag at all.
ANY = "*"


@dataclass(frozen=True)
class Item:
    """A picture with all that is known of it. `several`: others are near-duplicates of it."""

    picture: Picture
    name: str
    caption: Caption | None
    processed: Processed | None
    several: bool = False

    @property
    def sha256(self) -> str:
        return self.picture.sha256

    @property
    def state(self) -> str:
        return self.caption.state if self.caption else "none"

    @property
    def version(self) -> int:
        return self.caption.version if self.caption else 0

    @property
    def part(self) -> Part:
        if self.processed is None or self.processed.usable:
            return "set"
        return "aside" if self.processed.state == "aside" else "copies"

    @property
    def reason(self) -> str:
        """Why processing wants a person to look at it, or set it aside."""
        return "" if self.processed is None or self.processed.state == "ok" else self.processed.reason

    @property
    def group(self) -> str:
        return self.processed.group if self.processed else ""

    @cached_property
    def words(self) -> str:
        """What its caption says."""
        return in_words(self.caption.fields) if self.caption else ""


@dataclass(frozen=True)
class Filters:
    """Which pictures; what is empty lets all through. `near`: near-duplicates only, a group beside the other."""

    state: str = ""
    part: str = "set"
    flag: str = ""
    word: str = ""
    near: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filters":
        """From an address; what it cannot mean is left out."""
        state, part = query.get("state", ""), query.get("part", "set")
        return cls(
            state if state in STATES or state == "open" else "",
            part if part in PARTS else "set",
            query.get("flag", "")[:200],
            query.get("word", "")[:200].strip(),
            query.get("near") == "1",
        )

    @property
    def query(self) -> str:
        values = {"state": self.state, "flag": self.flag, "word": self.word, "near": "1" if self.near else ""}
        if self.part != "set":
            values["part"] = self.part
        return urlencode({name: value for name, value in values.items() if value})

    def matches(self, item: Item) -> bool:
        return (
            self._in_part(item)
            and (not self.state or item.state == self.state or (self.state == "open" and not _decided(item)))
            and (not self.flag or item.reason == self.flag or (self.flag == ANY and item.reason != ""))
            and (not self.word or _says(item, self.word.lower()))
            and (not self.near or item.several)
        )

    def _in_part(self, item: Item) -> bool:
        # Beside one another copies make sense too.
        return item.part == self.part or (self.near and self.part == "set" and item.part == "copies")

    def key(self, item: Item) -> tuple[object, ...]:
        """Where an item stands."""
        by_name = (item.name.casefold(), item.sha256)
        return (item.group, item.part != "set", *by_name) if self.near else by_name


def _decided(item: Item) -> bool:
    return item.state in DECIDED


def _says(item: Item, word: str) -> bool:
    return word in item.words.lower() or word in item.name.lower()


def load(store: Store) -> list[Item]:
    """All pictures of the dataset, by name."""
    names: dict[str, str] = {}
    for sha256, item, title in store.db.execute(
        "SELECT sha256, item, title FROM sources WHERE sha256 IS NOT NULL ORDER BY id"
    ):
        names.setdefault(sha256, item or title)
    said = {each.sha256: each for each in captions(store)}
    processed = all_processed(store)
    members = Counter(each.group for each in processed.values() if each.group and each.state != "aside")
    items = []
    for picture in store.pictures():
        sha256 = picture.sha256
        made = processed.get(sha256)
        several = made is not None and made.state != "aside" and members[made.group] > 1
        name = names.get(sha256) or sha256[:12]
        items.append(Item(picture, name, said.get(sha256), made, several))
    return sorted(items, key=Filters().key)


@dataclass(frozen=True)
class Listing:
    """What one look at the dataset gives."""

    items: Sequence[Item]
    filters: Filters

    @cached_property
    def found(self) -> list[Item]:
        """What the filters let through, in their order."""
        return sorted(filter(self.filters.matches, self.items), key=self.filters.key)

    @cached_property
    def by_sha256(self) -> dict[str, Item]:
        return {item.sha256: item for item in self.items}

    def place(self, item: Item) -> int | None:
        """Its number among the found, from 1; None if it is not among them."""
        key = self.filters.key(item)
        return next((n for n, each in enumerate(self.found, 1) if self.filters.key(each) == key), None)

    def after(self, item: Item) -> Item | None:
        """The next one; the item itself need not be among the found, for a decision may have moved it out."""
        key = self.filters.key(item)
        return next((each for each in self.found if self.filters.key(each) > key), None)

    def before(self, item: Item) -> Item | None:
        key = self.filters.key(item)
        return next((each for each in reversed(self.found) if self.filters.key(each) < key), None)

    def members(self, item: Item) -> list[Item]:
        """The item and its near-duplicates, the kept ones first."""
        near = Filters(near=True)
        found = [each for each in self.items if each.several and each.group == item.group]
        return sorted(found, key=near.key) if item.several else []

    def counts(self, field: str, of: Callable[[Item], str]) -> Counter[str]:
        """How many there would be with each value of one filter, the others as they are."""
        rest = replace(self.filters, **{field: Filters.__dataclass_fields__[field].default})  # type: ignore[arg-type]
        if field != "part":
            return Counter(of(item) for item in self.items if rest.matches(item))
        found: Counter[str] = Counter()
        for part in PARTS:
            found[part] = sum(map(replace(rest, part=part).matches, self.items))
        return found
