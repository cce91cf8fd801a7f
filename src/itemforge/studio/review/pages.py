"""From what is known to HTML. Everything is escaped by the templates; nothing is marked as safe."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from itemforge.dataset.captioning.rendering import Look
from itemforge.dataset.store import Store
from itemforge.dataset.store_captions import history, last_change, last_deed
from itemforge.studio.review.changes import words_of
from itemforge.studio.review.files import version_of
from itemforge.studio.review.items import ANY, DECIDED, STATES, Item, Listing
from itemforge.studio.review.words import FIELDS, LISTS, difference, show, typed

#: Cards that the grid gets at once; a group is never cut.
PAGE = 60
_STATE_NAMES = {"none": "no caption", "": "all", "open": "undecided"}
_PART_NAMES = {"set": "in the set", "copies": "copies left out", "aside": "set aside"}
_FIELD_HINTS = {
    "object": "or the whole description in your own words",
    "parts": "commas between them",
    "colours": "commas between them",
    "material": "such as iron",
    "view": "such as side view",
    "background": "only if it is not white",
    "text": "said in place of all other fields; leave it empty to write by fields",
}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("itemforge.studio.review"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "state_name": lambda state: _STATE_NAMES.get(state, state),
        "part_name": lambda part: _PART_NAMES.get(part, part),
        "thousands": lambda number: f"{number:,}",
        "web": web_address,
        "time": lambda at: at[:16].replace("T", " "),
    }
    env.globals |= {
        "difference": difference,
        "version_of": version_of,
        "hints": _FIELD_HINTS,
        "lists": LISTS,
        "fields": FIELDS,
        "any_flag": ANY,
        "asset": asset,
    }
    return env


@lru_cache
def asset(name: str) -> str:
    """The address of a file of ours; another one whenever the file is."""
    places = [files(package) / "static" / name for package in ("itemforge.studio.review", "itemforge.studio")]
    data = next(place for place in places if place.is_file()).read_bytes()
    return f"/static/{name}?{hashlib.sha256(data).hexdigest()[:12]}"


def web_address(url: str) -> str:
    """An address that a link may have, or nothing: `javascript:` and the like are shown as text only."""
    try:
        return url if urlsplit(url).scheme in ("http", "https") and url.isprintable() else ""
    except ValueError:
        return ""


def render(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    text = _environment().get_template(template).render(values)
    # Half a surrogate pair, which JSON can hold, is no UTF-8.
    return HTMLResponse(text.encode("utf-8", "replace"), status, headers=headers)


@dataclass(frozen=True)
class View:
    """One look at the dataset, and what every page shows of it."""

    store: Store
    listing: Listing
    style: Look
    who: str

    def frame(self) -> dict[str, Any]:
        """Filters with their counts, progress, and the last change that the page knows of."""
        listing = self.listing
        everything = [item for item in listing.items if item.part == "set"]
        decided = {state: sum(item.state == state for item in everything) for state in DECIDED}
        states = listing.counts("state", lambda item: item.state)
        states["open"] = sum(count for state, count in states.items() if state not in DECIDED)
        states[""] = states["open"] + sum(states[state] for state in DECIDED)
        flags = listing.counts("flag", lambda item: item.reason)
        return {
            "filters": listing.filters,
            "states": [(state, states[state]) for state in ("", "open", *STATES)],
            "flags": sorted((flag, count) for flag, count in flags.items() if flag),
            "flagged": sum(count for flag, count in flags.items() if flag),
            "parts": list(listing.counts("part", lambda item: item.part).items()),
            "near": listing.counts("near", lambda item: "1" if item.several else "")["1"],
            "total": len(everything),
            "decided": decided,
            "unprocessed": sum(item.processed is None for item in everything),
            "seen": last_change(self.store),
            "who": self.who,
            "can_undo": last_deed(self.store, self.who) is not None,
            "folder": self.store.folder.resolve().name,
        }

    def grid(self, after: str = "") -> dict[str, Any]:
        """A page of cards, from the one after a sha256."""
        found = self.listing.found
        item = self.listing.by_sha256.get(after)
        if item is not None:
            key = self.listing.filters.key(item)
            found = [each for each in found if self.listing.filters.key(each) > key]
        page = list(found[:PAGE])
        if self.listing.filters.near:
            page += [each for each in found[PAGE:] if page and each.group == page[-1].group]
        return {
            "groups": _groups(page) if self.listing.filters.near else [page],
            "more": len(found) > len(page),
            "last": page[-1].sha256 if page else "",
            "found": len(self.listing.found),
        }

    def one(self, item: Item) -> dict[str, Any]:
        """A picture with all that is known of it."""
        fields = item.caption.fields if item.caption else {}
        following, before = self.listing.after(item), self.listing.before(item)
        form = typed(fields)
        return {
            "item": item,
            "form": form,
            "free": not any(form[name] for name in FIELDS if name != "object"),
            "shown": show(fields, self.style),
            "place": self.listing.place(item),
            "found": len(self.listing.found),
            "next": following,
            "previous": before,
            "members": self.listing.members(item),
            "sources": self.store.sources(item.sha256),
            "limit": show({"object": "x"}, self.style).limit,
        }

    def history(self, item: Item) -> list[dict[str, Any]]:
        """What happened to a caption, the last first."""
        return [
            {
                "change": each,
                "parts": difference(words_of(each.before), words_of(each.after)),
                "states": _states(each.before, each.after),
            }
            for each in reversed(history(self.store, item.sha256))
        ]


def _states(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[str, str]:
    return (str(before["state"]) if before else "none", str(after["state"]) if after else "none")


def _groups(page: Sequence[Item]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in page:
        groups.setdefault(item.group, []).append(item)
    return list(groups.values())
