"""Which pictures there are at an address: by the wiki's API, by its pages, or by its pages in a browser."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import httpx

from itemforge.dataset.crawl.api import Api, Listing, find_api
from itemforge.dataset.crawl.browser import browser_running
from itemforge.dataset.crawl.failures import NotFetched, Refused
from itemforge.dataset.crawl.pages import Page, Seen, is_challenge, read_page
from itemforge.dataset.crawl.visitor import NOT_ALLOWED, Visitor, read_all
from itemforge.dataset.crawl.wiki import CATEGORY, Place, clean, title_key
from itemforge.dataset.store_queue import Found
from itemforge.errors import ConfigurationError, ItemForgeError, ObjectMissing, SourceUnavailable

Way = Literal["auto", "api", "html", "browser"]
Take = Callable[[Listing], None]
#: A page and its address, from an address.
Load = Callable[[str], tuple[str, str]]

#: Bytes of a page.
_LIMIT = 20 * 10**6
_PAGES = 50_000
_GONE = ("HTTP 404", "HTTP 410")


@dataclass
class Search:
    """One look for pictures. `note` hears what a person should know, `take` gets what is found as it is found.

    `skipped` counts the pages that could not be read, `broken_off` says why the list has no end.
    """

    visitor: Visitor
    place: Place
    note: Callable[[str], None]
    take: Take
    found: int = 0
    skipped: int = 0
    broken_off: str = ""

    def leave_out(self, page: str, why: Exception | str) -> None:
        self.skipped += 1
        self.note(f"{clean(page, 300)} is left out: {why}")

    def give(self, listing: Listing) -> None:
        self.found += len(listing.found)
        self.take(listing)


def list_pictures(search: Search, way: Way) -> str:
    """Find the pictures; the way that gave them.

    Raises:
        ConfigurationError: the way that was asked for does not work here, or the address is a private one.
        ObjectMissing: there is no such page.
        SourceUnavailable: the wiki cannot be reached.
    """
    ways = {"api": _by_api, "html": _by_html, "browser": _by_browser}
    names = list(ways) if way == "auto" else [way]
    why: Exception | None = None
    for name in names:
        try:
            ways[name](search)
        except (Refused, NotFetched) as error:
            search.note(f"{name}: {error}")
            if search.found:
                search.broken_off = str(error)
            elif isinstance(error, NotFetched) and _is_final(error, name):
                raise _told(error, search) from error
            # A missing browser explains less than what made one necessary.
            why = why if why and name == "browser" and isinstance(error, NotFetched) else error
        if search.found:
            return name
    if why is not None:
        raise _told(why, search) from why
    return names[-1]


def _is_final(error: NotFetched, way: str) -> bool:
    """Whether another way would meet the same."""
    page_is_not_for_us = way != "api" and error.reason in (*_GONE, NOT_ALLOWED)
    return error.away or error.reason == "address not allowed" or page_is_not_for_us


def _told(error: Exception, search: Search) -> ItemForgeError:
    url = clean(search.place.url, 300)
    if isinstance(error, Refused):
        return ConfigurationError(f"{url} cannot be read: {error}; try another --way")
    assert isinstance(error, NotFetched)  # noqa: S101 - the two kinds that list_pictures catches
    if error.reason == "address not allowed":
        return ConfigurationError(
            f"{url}: {error}; --allow-private lets a crawl reach this machine and private networks"
        )
    if error.reason == NOT_ALLOWED:
        return ConfigurationError(f"{url}: {error}; ask the wiki's operators")
    if error.reason in _GONE:
        return ObjectMissing(f"there is no page at {url}; check the address")
    return SourceUnavailable(f"{url}: {error}; repeat the command later, what was found is kept")


def _by_api(search: Search) -> None:
    api, title = find_api(search.visitor, search.place, search.note), search.place.title
    if title is None:
        api.list_all(search.give)
    elif search.place.namespace in api.categories:
        api.list_files(
            title, search.give, generator="categorymembers", gcmtitle=title, gcmtype="file", gcmlimit="50"
        )
        _member_pages(api, search, title)
    elif search.place.namespace in api.files:
        api.list_files(title, search.give, titles=title, redirects="1")
    else:
        _page_by_api(api, search, title)


def _member_pages(api: Api, search: Search, category: str) -> None:
    try:
        titles = api.page_titles(category)
    except Refused as error:
        search.leave_out(f"what {category} has besides files", error)
        return
    for title in titles:
        try:
            _page_by_api(api, search, title)
        except (Refused, NotFetched) as error:
            search.leave_out(title, error)


def _page_by_api(api: Api, search: Search, title: str) -> None:
    """The files of a page, each under the names that the page has for it."""
    text = api.page_html(title)
    page = read_page(text, search.place.page_url(title), title) if text else Page(title)
    names: dict[str, list[Seen]] = {}
    for each in page.pictures:
        names.setdefault(title_key(each.title), []).append(each)

    def give(listing: Listing) -> None:
        named = [each for found in listing.found for each in _named(found, names)]
        search.give(Listing(named, listing.missing))

    api.list_files(title, give, generator="images", titles=title, gimlimit="50", redirects="1")


def _named(found: Found, names: dict[str, list[Seen]]) -> list[Found]:
    seen = names.get(title_key(found.title), [])
    return [replace(found, item=each.item or found.item, section=each.section) for each in seen] or [found]


def _by_html(search: Search) -> None:
    _by_pages(search, lambda url: _load(search.visitor, url))


def _by_browser(search: Search) -> None:
    with browser_running(search.visitor) as browser:
        _by_pages(search, browser.load)


def _by_pages(search: Search, load: Load) -> None:
    place = search.place
    waiting, seen = [place.url], {place.url}
    many = place.title is None or place.namespace in CATEGORY
    if place.title is None and (listed := _file_list(search, load)) is not None:
        _give(search, listed)
        waiting, many = [listed.more] if listed.more else [], True
    first = bool(waiting) and not search.found
    while waiting and len(seen) < _PAGES:
        url = waiting.pop(0)
        try:
            page = read_page(*load(url))
        except (NotFetched, Refused) as error:
            if first:
                raise
            search.leave_out(url, error)
            continue
        finally:
            first = False
        _give(search, page)
        following = [*page.members, page.more] if many else []
        for link in following:
            if link is not None and link not in seen:
                seen.add(link)
                waiting.append(link)


def _file_list(search: Search, load: Load) -> Page | None:
    """The wiki's own list of its files, for a crawl of all of it."""
    place = search.place
    try:
        page = read_page(*load(f"{place.page_url('Special:ListFiles')}?limit=500"))
    except (NotFetched, Refused) as error:
        search.note(f"no list of files ({error}); the pictures of the first page are taken")
        return None
    return page if page.pictures else None


def _give(search: Search, page: Page) -> None:
    if page.no_ai:
        search.leave_out(page.title, "it asks that it is not used for AI (meta robots)")
        return
    search.give(
        Listing([Found(each.url, each.title, each.item, page.title, each.section) for each in page.pictures])
    )


def _load(visitor: Visitor, url: str) -> tuple[str, str]:
    def take(response: httpx.Response) -> tuple[str, str]:
        body = read_all(response, _LIMIT)
        try:
            text = body.decode(response.charset_encoding or "utf-8", "replace")
        except LookupError:
            text = body.decode("utf-8", "replace")
        if "cf-mitigated" in response.headers or is_challenge(text):
            raise Refused("the wiki asks whether a person is there")
        if response.status_code in (401, 403):
            raise Refused(f"the page is refused (HTTP {response.status_code})")
        if response.status_code != 200:
            raise NotFetched(f"HTTP {response.status_code}")
        return text, str(response.url)

    return visitor.fetch(url, take, "text/html, application/xhtml+xml")
