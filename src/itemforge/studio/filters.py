"""What the gallery shows, as it stands in its address: an address that says nonsense shows what can be understood."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from itemforge.contract import Status, StyleName
from itemforge.gateway.generations import words
from itemforge.gateway.keyring import Caller
from itemforge.jobs.finding import Filter

_style = TypeAdapter(StyleName)
#: Minutes that a place on earth is away from UTC, at most.
_MOST_MINUTES = 16 * 60


@dataclass(frozen=True)
class Look:
    """The fields of the filter bar, as text; empty where nothing is asked.

    `status` is a status, or `any`; else only what is finished is shown. `since` and `until` are days of a place
    that is `tz` minutes behind UTC, as browsers count it.
    """

    q: str = ""
    style: str = ""
    status: str = ""
    since: str = ""
    until: str = ""
    tz: str = ""
    collection: str = ""
    mine: str = ""
    favourite: str = ""
    deleted: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Look":
        """What can be understood of an address's query."""
        given = {each.name: asked.get(each.name, "").replace("\0", "").strip()[:200] for each in fields(cls)}
        look = cls(**given)
        return replace(
            look,
            style=look.style if _fits(_style, look.style) else "",
            status=look.status if look.status == "any" or look.status in set(Status) else "",
            since=look.since if _day(look.since) else "",
            until=look.until if _day(look.until) else "",
            tz=look.tz if _minutes(look.tz) is not None else "",
            collection=look.collection if _uuid(look.collection) else "",
        )

    def filter(self, caller: Caller) -> Filter:
        """For the database, within what the caller may see."""
        behind = timedelta(minutes=_minutes(self.tz) or 0)
        since, until = _day(self.since), _day(self.until)
        return Filter(
            status=None if self.status == "any" or self.deleted else Status(self.status or Status.COMPLETED),
            style=self.style or None,
            since=_midnight(since) + behind if since else None,
            until=_midnight(until) + behind + timedelta(days=1) if until else None,
            owner=caller.owner if self.mine else caller.sees,
            words=words(self.q),
            favourite_of=caller.owner if self.favourite else None,
            collection=_uuid(self.collection),
            deleted=bool(self.deleted),
        )

    def query(self, **changes: Any) -> str:
        """The same as the query of an address, changed so; without what is empty."""
        values = {each.name: getattr(self, each.name) for each in fields(self)} | changes
        return urlencode({name: str(value) for name, value in values.items() if value})

    @property
    def narrowed(self) -> bool:
        """Whether anything is asked that could be taken back."""
        return any(getattr(self, each.name) for each in fields(self) if each.name != "tz")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 1970 <= day.year <= 9000 else None


def _minutes(text: str) -> int | None:
    try:
        minutes = int(text)
    except ValueError:
        return None
    return minutes if abs(minutes) <= _MOST_MINUTES else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _fits(kind: TypeAdapter[Any], text: str) -> bool:
    try:
        kind.validate_python(text)
    except ValidationError:
        return False
    return True
