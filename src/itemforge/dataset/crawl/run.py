"""A crawl from its address to its summary.

First all pictures are listed into the queue, then what is not here is fetched, one at a time. Both can be repeated as
often as one likes: what is known is not asked for again, and what failed is tried by the next run.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from itemforge.dataset.crawl.api import Listing
from itemforge.dataset.crawl.failures import NotFetched, Stopped
from itemforge.dataset.crawl.fetching import Limits, check_disk, fetch_picture, prepare
from itemforge.dataset.crawl.listing import Search, Way, list_pictures
from itemforge.dataset.crawl.visitor import Manners, Visitor
from itemforge.dataset.crawl.wiki import read_place
from itemforge.dataset.locks import only_one
from itemforge.dataset.manifest import open_manifest
from itemforge.dataset.store import LOCK, Store, open_store
from itemforge.dataset.store_queue import Entry, add_found, done, failed, left_out, open_entries

#: Pictures of one host that cannot be reached, in a row, after which the host is left alone for this run.
_STRIKES = 3
#: Pictures between two notes about how many are listed.
_EVERY = 500
#: Pictures that one run lists. A list without end would fill the disk by itself.
_MOST = 200_000


def _untold(name: str, done: int, of: int) -> None:
    return None


def _unsaid(text: str) -> None:
    return None


@dataclass(frozen=True)
class Means:
    """What a crawl touches the world with. `tell` hears progress, `note` what a person should know."""

    tell: Callable[[str, int, int], None] = _untold
    note: Callable[[str], None] = _unsaid
    pause: Callable[[float], None] = time.sleep
    ca_file: Path | None = None


@dataclass
class Report:
    """What a run did. `found` are pictures where they were seen, `fetched` those that are new to the dataset.

    `stopped` says why the run ended before its end.
    """

    way: str = ""
    found: int = 0
    fetched: int = 0
    pictures: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    stopped: str = ""


def crawl(
    url: str, out: Path, manners: Manners, limits: Limits, way: Way = "auto", means: Means | None = None
) -> Report:
    """Bring the pictures at an address into the dataset `out`.

    Raises:
        InvalidInput: the address is none.
        ConfigurationError: another crawl works on `out`; the address is private; the way does not work there.
        ObjectMissing: there is no such page.
        SourceUnavailable: the wiki cannot be reached.
    """
    means = means or Means()
    place, report = read_place(url), Report()
    with (
        open_store(out) as store,
        # Two crawls into one dataset would ask for everything twice, at twice the pace.
        only_one(out / LOCK, f"another crawl or import works on {out}; wait for it, or name another folder"),
        closing(Visitor(manners, means.ca_file, means.pause)) as visitor,
    ):
        open_manifest(out)
        prepare(store)
        search = Search(visitor, place, means.note, lambda listing: _remember(store, listing, report, means))
        before = len(store.pictures())
        try:
            report.way = list_pictures(search, way)
            if search.broken_off:
                report.stopped = (
                    f"the list of pictures is not complete ({search.broken_off}); repeat the command"
                )
            if search.skipped:
                report.failures["a page could not be read"] += search.skipped
            _fetch_all(visitor, store, limits, report, means)
        except Stopped as error:
            report.stopped = str(error)
        report.pictures = len(store.pictures())
        report.fetched = report.pictures - before
    return report


def _remember(store: Store, listing: Listing, report: Report, means: Means) -> None:
    check_disk(store)
    add_found(store, listing.found)
    for title, why in listing.missing.items():
        left_out(store, title, why)
        report.failures[why] += 1
    before, report.found = report.found, report.found + len(listing.found)
    if report.found > _MOST:
        raise Stopped(f"the wiki lists more than {_MOST} pictures; crawl its categories or pages instead")
    if report.found // _EVERY > before // _EVERY:
        means.note(f"{report.found} pictures listed so far")


def _fetch_all(visitor: Visitor, store: Store, limits: Limits, report: Report, means: Means) -> None:
    waiting = open_entries(store)
    strikes: Counter[str] = Counter()
    away: dict[str, str] = {}
    for n, entry in enumerate(waiting):
        host = urlsplit(entry.url).netloc
        if host in away:
            report.failures[away[host]] += 1
        elif (error := _fetch(visitor, store, entry, limits, report)) is None:
            strikes[host] = 0
        else:
            strikes[host] = strikes[host] + 1 if error.away else 0
            if strikes[host] >= _STRIKES or error.wait:
                away[host] = f"{host} is left alone: {error.reason}"
                means.note(f"{away[host]}" + (f" ({error.wait:.0f} s)" if error.wait else ""))
        means.tell("pictures", n + 1, len(waiting))


def _fetch(visitor: Visitor, store: Store, entry: Entry, limits: Limits, report: Report) -> NotFetched | None:
    try:
        picture = fetch_picture(visitor, store, entry, limits)
    except NotFetched as error:
        failed(store, entry.url, error.reason, error.wait)
        report.failures[error.reason] += 1
        return error
    done(store, entry.url, picture)
    return None
