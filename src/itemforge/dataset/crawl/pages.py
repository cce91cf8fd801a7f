"""The pictures of a wiki's page, and what the page says of each: its item, its section, its file.

What is a picture's address: the page's own link to the original, then what lazy pages keep for later (`data-src`), the
largest of a `srcset`, and last `src`, which lazy pages fill with a point. Thumbnails lead back to their originals.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

from itemforge.dataset.crawl.originals import file_name, is_picture, item_name, original, without_ending
from itemforge.dataset.crawl.tables import Table, text_of
from itemforge.dataset.crawl.wiki import FILE, clean

_LAZY = ("data-src", "data-lazy-src", "data-original", "data-url")
_CONTENT = ("#mw-content-text", ".mw-parser-output", "main", "article")
_GALLERY = ("gallerybox", "wikia-gallery-item", "gallery-image-wrapper", "gallery-item", "thumb")
_CAPTION = ("gallerytext", "lightbox-caption", "gallery-image-caption", "thumbcaption", "caption")
_INFOBOX = ("portable-infobox", "infobox", "infoboxtable", "infobox-table")
_TITLE = ("pi-title", "infobox-title", "infobox-header", "infobox-above")
#: Words beyond this are no name but a story (characters).
_NAME = 120
#: Characters of an address.
_ADDRESS = 4000
_CHALLENGE = re.compile(
    r"_cf_chl_opt|/cdn-cgi/challenge-platform/|cf-browser-verification|<title>\s*(just a moment|attention required|"
    r"checking your browser|please wait|access denied|verify you are human)|enable javascript and cookies to continue|"
    r"g-recaptcha|h-captcha",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Seen:
    """A picture on a page. `title` is the file's, as far as the page tells."""

    url: str
    title: str
    item: str
    section: str


@dataclass
class Page:
    """What a page has. `members` and `more` are the links of a category or a list of files."""

    title: str
    pictures: list[Seen] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    more: str | None = None
    no_ai: bool = False


def is_challenge(text: str) -> bool:
    """Whether this is no page but a question whether one is a person."""
    return len(text) < 200_000 and bool(_CHALLENGE.search(text))


def read_page(text: str, url: str, title: str = "") -> Page:
    """A page of HTML that came from an address."""
    soup = BeautifulSoup(text, "html.parser")
    base = soup.find("base", href=True)
    if isinstance(base, Tag):
        url = urljoin(url, str(base["href"]))
    page = Page(title or _page_title(soup))
    robots = soup.find("meta", attrs={"name": re.compile("^(robots|itemforge)$", re.IGNORECASE)})
    page.no_ai = isinstance(robots, Tag) and "noai" in re.split(
        r"[\s,]+", str(robots.get("content", "")).lower()
    )
    page.pictures = list(dict.fromkeys(_pictures(_content(soup), url, page.title)))
    page.members = list(dict.fromkeys(_members(soup, url)))
    page.more = _more(soup, url)
    return page


def _page_title(soup: BeautifulSoup) -> str:
    for tag in (soup.find(id="firstHeading"), soup.find("h1")):
        if isinstance(tag, Tag) and (text := text_of(tag)):
            return clean(text)
    title = soup.find("title")
    return clean(re.split(r" [|–—-] ", text_of(title))[0]) if isinstance(title, Tag) else ""


def _content(soup: BeautifulSoup) -> Tag:
    for selector in _CONTENT:
        found = soup.select_one(selector)
        if found is not None:
            return found
    return soup.body or soup


def _pictures(content: Tag, url: str, page: str) -> Iterator[Seen]:
    section = ""
    tables: dict[int, Table] = {}
    for tag in content.find_all(["h2", "h3", "h4", "h5", "h6", "img"]):
        if tag.name != "img":
            # An infobox has headings of its own, which divide its lines, not the page.
            section = section if _inside(tag, _INFOBOX) else clean(text_of(tag))
            continue
        if tag.find_parent(["header", "nav", "footer"]) or _is_point(tag):
            continue
        if (address := _address(tag, url)) is None:
            continue
        title = _file_title(tag, address)
        item = clean(_item(tag, title, page, tables))
        # Lists of files say no more than what they are called: "Cup.png 64 × 64; 2 KB".
        if item.lower().startswith(title.removeprefix("File:").lower()) and is_picture(title):
            item = clean(item_name(title))
        yield Seen(address, title, item, section)


def _is_point(image: Tag) -> bool:
    """What counts visitors or keeps a place free."""
    sizes = [str(image.get(name, "")).strip() for name in ("width", "height")]
    return any(size in ("0", "1", "2") for size in sizes)


def _address(image: Tag, base: str) -> str | None:
    """The address of the original, or of the best there is."""
    for candidate in _candidates(image):
        try:
            address = urljoin(base, candidate.strip())
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") and parts.hostname and len(address) < _ADDRESS:
                return original(address)
        except ValueError:
            continue
    return None


def _candidates(image: Tag) -> Iterator[str]:
    link = image.find_parent("a", href=True)
    if isinstance(link, Tag) and is_picture(str(link["href"])) and not _names_file(str(link["href"])):
        yield str(link["href"])
    for name in _LAZY:
        if image.get(name):
            yield str(image[name])
    parent = image.parent
    others = parent.find_all("source") if parent is not None and parent.name == "picture" else []
    for tag in (image, *others):
        for name in ("data-srcset", "srcset"):
            if tag.get(name) and (largest := _largest(str(tag[name]))) is not None:
                yield largest
    if image.get("src"):
        yield str(image["src"])


def _largest(srcset: str) -> str | None:
    found = re.findall(r"([^\s,]\S*[^\s,])(?:\s+([0-9.]+)[wx])?\s*(?:,|$)", srcset[:100_000])
    sized = [(_float(size), url) for url, size in found if not url.startswith("data:")]
    return max(sized, key=lambda each: each[0])[1] if sized else None


def _float(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 1.0


def _names_file(href: str) -> str | None:
    """The title, if a link leads to a file's page."""
    try:
        path = unquote(urlsplit(href).path)
    except ValueError:
        return None
    title = path.partition("/wiki/")[2] or path.rpartition("/")[2]
    head, colon, tail = title.partition(":")
    return f"File:{tail.replace('_', ' ')}" if colon and head.lower() in FILE else None


def _file_title(image: Tag, address: str) -> str:
    link = image.find_parent("a", href=True)
    linked = _names_file(str(link["href"])) if isinstance(link, Tag) else None
    name = unquote(str(image.get("data-image-name") or image.get("data-image-key") or ""))
    return clean(f"File:{name.replace('_', ' ')}" if name else linked or f"File:{file_name(address)}")


def _item(image: Tag, title: str, page: str, tables: dict[int, Table]) -> str:
    """What a picture shows, by where it stands."""
    if (box := _inside(image, _INFOBOX)) is not None:
        # What leads to another page is that page's: what it is made of, a coin.
        return _linked(image) or _infobox_title(box) or page or item_name(title)
    named = _caption(image) or _tabled(image, tables) or _linked(image) or _listed(image)
    return named or _alternative(image) or item_name(title)


def _tabled(image: Tag, tables: dict[int, Table]) -> str:
    """The name that a table has for a picture, or the table in whose cell that table stands."""
    cell, inner = image.find_parent(["td", "th"]), True
    while isinstance(cell, Tag) and isinstance(table := cell.find_parent("table"), Tag):
        if id(table) not in tables:
            tables[id(table)] = Table(table)
        name = tables[id(table)].name_at(cell) if inner else tables[id(table)].headed(cell)
        if 0 < len(name) <= _NAME:
            # Of the pictures in a row the first is the row's; others that lead to a page of their own are ingredients.
            return name if _is_first(image, cell) else _linked(image) or name
        cell, inner = table.find_parent(["td", "th"]), False
    return ""


def _is_first(image: Tag, cell: Tag) -> bool:
    row = cell.find_parent("tr")
    first = row.find("img") if isinstance(row, Tag) else None
    if not isinstance(first, Tag) or first is image:
        return True
    link = image.find_parent("a")
    return link is not None and first.find_parent("a") is link  # its twin for those without scripts


def _inside(tag: Tag, classes: tuple[str, ...]) -> Tag | None:
    return next((each for each in tag.parents if set(each.get_attribute_list("class")) & set(classes)), None)


def _infobox_title(box: Tag) -> str:
    for name in _TITLE:
        found = box.find(class_=name)
        if isinstance(found, Tag) and (text := text_of(found)):
            return text
    for found in (
        box.find(True, attrs={"data-source": re.compile("^(title|name)[0-9]*$")}),
        box.find("caption"),
        box.find("th"),
    ):
        if isinstance(found, Tag) and 0 < len(text := text_of(found)) <= _NAME:
            return text
    return ""


def _caption(image: Tag) -> str:
    """The words under a picture of a gallery or a frame."""
    for frame in image.parents:
        if frame.name != "figure" and not set(frame.get_attribute_list("class")) & set(_GALLERY):
            continue
        found = next((tag for name in _CAPTION if isinstance(tag := frame.find(class_=name), Tag)), None)
        found = found or frame.find("figcaption")
        if isinstance(found, Tag) and (text := _short(found)):
            return text
    return ""


def _short(caption: Tag) -> str:
    """A caption, or the first thing that a long one speaks of."""
    text = text_of(caption)
    if len(text) > _NAME:
        link = caption.find(["a", "b"])
        text = text_of(link) if isinstance(link, Tag) else ""
    return text if len(text) <= _NAME and not is_picture(text) else ""


def _linked(image: Tag) -> str:
    """The page that a picture leads to."""
    link = image.find_parent("a", href=True)
    if not isinstance(link, Tag) or is_picture(str(link["href"])) or _names_file(str(link["href"])):
        return ""
    title = str(link.get("title") or "")
    if "new" in link.get_attribute_list("class"):  # "Carrot (page does not exist)", in the wiki's language
        title = re.sub(r"\s*[(（][^()（）]*[)）]$", "", title)
    return title[:_NAME]


def _listed(image: Tag) -> str:
    """The words beside the only picture of a line."""
    line = image.find_parent("li")
    if not isinstance(line, Tag):
        return ""
    others = [each for each in line.find_all("img") if each is not image and not each.find_parent("noscript")]
    text = text_of(line)
    return text if len(text) <= _NAME and (not others or image.find_parent("noscript")) else ""


def _alternative(image: Tag) -> str:
    text = str(image.get("alt") or "").strip()
    return without_ending(text) if len(text) <= _NAME else ""


def _members(soup: BeautifulSoup, url: str) -> Iterator[str]:
    """The pages of a category."""
    for link in soup.select("#mw-pages li a[href], a.category-page__member-link[href]"):
        address = _link(link, url)
        if address is not None and urlsplit(address).netloc == urlsplit(url).netloc:
            yield address


def _more(soup: BeautifulSoup, url: str) -> str | None:
    link = soup.select_one(
        "a.mw-nextlink[href], a.category-page__pagination-next[href], .TablePager-button-next a[href]"
    )
    if link is None:
        links = soup.select("#mw-pages > a[href], #mw-category-media > a[href]")
        link = next((each for each in links if re.search("pagefrom|filefrom", str(each["href"]))), None)
    return _link(link, url)


def _link(tag: object, url: str) -> str | None:
    if not isinstance(tag, Tag) or not tag.get("href"):
        return None
    try:
        address = urljoin(url, str(tag["href"])).partition("#")[0]
        return address if urlsplit(address).scheme in ("http", "https") else None
    except ValueError:
        return None
