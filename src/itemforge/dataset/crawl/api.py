"""MediaWiki's action API: what it lists, page after page, and the facts that it has of each file.

It is the way that wikis mean for programs, and it needs the fewest requests.
"""

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin

import httpx

from itemforge.dataset.crawl.failures import Again, NotFetched, Refused
from itemforge.dataset.crawl.licences import licence_of
from itemforge.dataset.crawl.originals import item_name, original
from itemforge.dataset.crawl.visitor import Visitor, read_all, wait_asked
from itemforge.dataset.crawl.wiki import CATEGORY, FILE, Place, clean
from itemforge.dataset.store_queue import Found

#: Bytes of one answer.
_LIMIT = 32 * 10**6
#: Answers to one question. A wiki that never ends is none.
_ANSWERS = 100_000
_PER_ANSWER = 50
#: Characters of a file's address.
_ADDRESS = 4000
#: Errors that go away: the database is behind or locked, or we are too fast.
_PASSING = {
    "maxlag",
    "ratelimited",
    "readonly",
    "internal_api_error_DBQueryError",
    "internal_api_error_DBConnectionError",
}
_FACTS = "url|size|mime|sha1|timestamp|user|canonicaltitle|extmetadata"
_LICENCE = ("LicenseShortName", "License", "UsageTerms")

Json = dict[str, Any]


@dataclass
class Listing:
    """What the API says of files. `missing` has the titles that came without an address, and why."""

    found: list[Found] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


class Api:
    """A wiki's API. `note` hears its warnings, each once."""

    def __init__(self, visitor: Visitor, url: str, note: Callable[[str], None]) -> None:
        self.url = url
        self._visitor = visitor
        self._note = note
        self._warned: set[str] = set()
        self.categories, self.files = CATEGORY, FILE

    def ask(self, **params: str) -> Json:
        """One answer.

        Raises:
            Refused: the API does not do this.
            NotFetched: it cannot be had.
        """
        query = urlencode({**params, "format": "json", "formatversion": "2", "maxlag": "5"})
        return self._visitor.fetch(f"{self.url}?{query}", self._take, "application/json")

    def _take(self, response: httpx.Response) -> Json:
        try:
            answer = json.loads(read_all(response, _LIMIT))
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise Refused(f"{self.url} is no MediaWiki API (HTTP {response.status_code})")
        if isinstance(error := answer.get("error"), dict):
            code = clean(error.get("code", "?"), 60)
            if code in _PASSING:
                wait = wait_asked(response)
                raise Again(f"the wiki is busy ({code})", wait)
            raise Refused(f"the wiki's API says {code}: {clean(error.get('info', ''), 200)}")
        if response.status_code != 200:
            raise Refused(f"the wiki's API says HTTP {response.status_code}")
        self._hear_warnings(answer.get("warnings"))
        return answer

    def _hear_warnings(self, warnings: object) -> None:
        for module, said in _dict(warnings).items():
            words = _dict(said)
            text = clean(words.get("warnings") or words.get("*") or said, 300)
            if text not in self._warned:
                self._warned.add(text)
                self._note(f"the wiki warns ({clean(module, 40)}): {text}")

    def answers(self, **params: str) -> Iterator[tuple[Json, bool]]:
        """All answers to a query, and whether all is said of what they have spoken of so far.

        The whole of `continue` goes into the next question.
        """
        more: dict[str, str] = {}
        seen: set[str] = set()
        for _ in range(_ANSWERS):
            answer = self.ask(action="query", **{**params, **more})
            yield _dict(answer.get("query")), answer.get("batchcomplete", False) is not False
            more = {str(key): str(value) for key, value in _dict(answer.get("continue")).items()}
            if not more:
                return
            mark = json.dumps(more, sort_keys=True)
            if mark in seen:
                raise Refused("the wiki's API goes round in circles")
            seen.add(mark)
        raise Refused("the wiki's API finds no end")

    def learn_names(self) -> None:
        """How this wiki calls its namespaces."""
        query = _dict(
            self.ask(action="query", meta="siteinfo", siprop="general|namespaces|namespacealiases").get(
                "query"
            )
        )
        entries = [*_dict(query.get("namespaces")).values(), *_list(query.get("namespacealiases"))]
        for entry in map(_dict, entries):
            names = {str(entry[key]).lower() for key in ("name", "*", "canonical", "alias") if entry.get(key)}
            if entry.get("id") == 14:
                self.categories |= names
            elif entry.get("id") == 6:
                self.files |= names

    def list_files(self, page: str, take: Callable[[Listing], None], **params: str) -> None:
        """Files that a generator gives, with their facts; `take` gets them as they come.

        `page` is where they stand; where it is empty, each stands on its own page.
        """
        waiting: dict[str, Json] = {}
        asked = {"prop": "imageinfo|revisions", "iiprop": _FACTS, "rvprop": "content", "rvslots": "main"}
        for query, whole in self.answers(**asked, **params):
            pages = query.get("pages")
            for each in map(_dict, pages.values() if isinstance(pages, dict) else _list(pages)):
                # What is known of a file may be spread over several answers.
                waiting.setdefault(clean(each.get("title", "")), {}).update(each)
            if whole:
                take(self._listing(waiting, page))
                waiting.clear()
        take(self._listing(waiting, page))

    def _listing(self, pages: dict[str, Json], page: str) -> Listing:
        listing = Listing()
        for title, each in pages.items():
            infos = _list(each.get("imageinfo"))
            found = self._found(title, _dict(infos[0]) if infos else {}, page or title, _text(each))
            if isinstance(found, Found):
                listing.found.append(found)
            elif title and title.partition(":")[0].lower() in self.files:
                listing.missing[title] = "the wiki has no such file" if "missing" in each else found
        return listing

    def list_all(self, take: Callable[[Listing], None]) -> None:
        """All files of the wiki."""
        self.list_files("", take, generator="allimages", gaisort="name", gailimit=str(_PER_ANSWER))

    def _found(self, title: str, info: Json, page: str, wikitext: str) -> Found | str:
        """A file, or why it is none. `wikitext` is that of its page."""
        if not info:
            return "the wiki says nothing of the file"
        if "filemissing" in info or "filehidden" in info:
            return "the wiki has lost the file" if "filemissing" in info else "the wiki hides the file"
        url = info.get("url")
        if not title or not isinstance(url, str) or not url:
            return "the wiki has no address for the file"
        try:
            url = original(urljoin(self.url, url))
            if len(url) > _ADDRESS:
                raise ValueError
        except ValueError:
            return "the wiki's address for the file is none"
        size, metadata = info.get("size"), _dict(info.get("extmetadata"))
        licence = next(
            (text for name in _LICENCE if (text := _plain(_dict(metadata.get(name)).get("value")))), ""
        )
        sha1 = str(info.get("sha1", "")).lower()
        return Found(
            clean(url, _ADDRESS),
            title,
            clean(item_name(title)),
            page,
            uploader=clean(info.get("user", "")),
            licence=licence or licence_of(wikitext),
            timestamp=clean(info.get("timestamp", ""), 40),
            sha1=sha1 if re.fullmatch("[0-9a-f]{40}", sha1) else "",
            mime=clean(info.get("mime", ""), 100).lower(),
            bytes=size if isinstance(size, int) and 0 <= size < 2**62 else None,
        )

    def page_html(self, title: str) -> str | None:
        """The page as HTML, for the names that stand beside its pictures; None where the API does not give it."""
        try:
            answer = self.ask(action="parse", page=title, prop="text", redirects="1", disablelimitreport="1")
        except (Refused, NotFetched):
            return None
        text = _dict(answer.get("parse")).get("text")
        text = text.get("*") if isinstance(text, dict) else text
        return text if isinstance(text, str) else None

    def page_titles(self, category: str) -> list[str]:
        """The pages in a category, but for its files and subcategories and the pages about the wiki itself."""
        titles: list[str] = []
        for query, _ in self.answers(
            list="categorymembers", cmtitle=category, cmtype="page", cmlimit=str(_PER_ANSWER)
        ):
            for each in map(_dict, _list(query.get("categorymembers"))):
                title, number = clean(each.get("title", "")), each.get("ns", 0)
                space = title.partition(":")[0].lower() if ":" in title else ""
                if title and number not in _ABOUT and space not in self.files | self.categories:
                    titles.append(title)
        return list(dict.fromkeys(titles))


#: Talk, users, the project, files, messages, templates, help, categories, modules.
_ABOUT = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 828, 829}


def find_api(visitor: Visitor, place: Place, note: Callable[[str], None]) -> Api:
    """The API of the wiki that an address belongs to.

    Raises:
        Refused: there is none, or it is not for us.
        NotFetched: the wiki cannot be reached.
    """
    said = "no API is where MediaWiki has it"
    prefix = place.prefix.removesuffix("/w")
    paths = (
        f"{prefix}/api.php",
        f"{prefix}/w/api.php",
        "/api.php",
        "/w/api.php",
        f"{prefix}/mediawiki/api.php",
    )
    for path in dict.fromkeys(paths):
        api = Api(visitor, place.site + path, note)
        try:
            api.learn_names()
        except Refused as error:
            if "API says" not in str(error):
                said = str(error)
                continue
        except NotFetched as error:
            if error.away or error.reason == "address not allowed":
                raise
            said = f"{api.url}: {error}"
            continue
        return api
    raise Refused(said)


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []


def _text(page: Json) -> str:
    """The wikitext of a page, where the wiki gives it; before 1.32 it has no slots."""
    for revision in map(_dict, _list(page.get("revisions"))):
        main = _dict(_dict(revision.get("slots")).get("main"))
        found = main.get("content") or main.get("*") or revision.get("content") or revision.get("*")
        return found if isinstance(found, str) else ""
    return ""


def _plain(value: object) -> str:
    """A text that may be HTML."""
    return clean(html.unescape(re.sub(r"<[^<>]*>", " ", value)), 200) if isinstance(value, str) else ""
