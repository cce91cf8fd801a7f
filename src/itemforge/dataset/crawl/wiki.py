"""What an address of a wiki means: its root, a category, or a page; and names as a wiki writes them."""

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

from itemforge.errors import InvalidInput

#: "Category" in the languages of most wikis, for when nobody tells how this one calls them.
CATEGORY = frozenset(
    {"category", "kategorie", "catégorie", "categoria", "categoría", "categorie", "kategoria", "kategori"}
    | {
        "kategória",
        "luokka",
        "thể loại",
        "категория",
        "категорія",
        "分类",
        "分類",
        "カテゴリ",
        "분류",
        "หมวดหมู่",
    }
)
FILE = frozenset(
    {
        "file",
        "image",
        "datei",
        "bild",
        "fichier",
        "archivo",
        "immagine",
        "ficheiro",
        "imagem",
        "bestand",
        "plik",
    }
    | {
        "fil",
        "tiedosto",
        "soubor",
        "tập tin",
        "файл",
        "изображение",
        "文件",
        "ファイル",
        "画像",
        "파일",
        "그림",
    }
)
#: Pages that list all files of a wiki.
_ALL = re.compile(r"^\w+:(listfiles|allimages|newfiles|newimages|imagelist|filelist|images)$", re.IGNORECASE)
_ROOT = re.compile(
    r"^(?P<prefix>(?:/[a-z]{2,3}(?:-[a-z]+)?)?)/?(?:wiki/?|w/?|index\.php|api\.php|w/api\.php|w/index\.php)?$"
)
_PAGE = re.compile(r"^(?P<prefix>.*?)(?:/wiki|/index\.php)/(?P<title>.+)$")


@dataclass(frozen=True)
class Place:
    """Where a crawl begins. `prefix` comes before `/wiki/` or `/api.php`; `title` is None for all of the wiki."""

    url: str
    site: str
    prefix: str
    title: str | None

    @property
    def namespace(self) -> str:
        """What stands before the title's colon, in small letters."""
        head, colon, _ = (self.title or "").partition(":")
        return head.strip().lower() if colon else ""

    def page_url(self, title: str) -> str:
        return f"{self.site}{self.prefix}/wiki/{quote(title.replace(' ', '_'), safe='/:!$()*,;@~')}"


def read_place(url: str) -> Place:
    """What the address of a crawl means.

    Raises:
        InvalidInput: it is none of the web.
    """
    if "://" not in url:
        url = f"https://{url}"
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise InvalidInput(
            f"{clean(url, 200)} is no address of a wiki; give one such as https://NAME.fandom.com/wiki/Category:Items"
        ) from None
    if parts.username or parts.password:
        raise InvalidInput(
            "the address has a name or a password in it; a crawl reads only what everybody may read"
        )
    site, path = f"{parts.scheme}://{parts.netloc}", parts.path
    titles = parse_qs(parts.query).get("title")
    title: str | None
    if titles:
        prefix = re.sub(r"/(wiki|index\.php)?/?$", "", path.removesuffix("/index.php"))
        title = titles[0]
    elif found := _ROOT.match(path):
        prefix, title = found["prefix"], None
    elif found := _PAGE.match(path):
        prefix, title = found["prefix"], unquote(found["title"])
    else:
        prefix, _, last = path.rstrip("/").rpartition("/")
        title = unquote(last)
    if title is not None:
        title = clean(title.replace("_", " "))
        if _ALL.match(title.replace(" ", "")):
            title = None
    return Place(url.partition("#")[0], site, prefix, title)


def clean(text: object, most: int = 500) -> str:
    """A stranger's text as one line: no control characters, nothing that UTF-8 cannot write, no novels.

    Characters that only turn the direction of writing go too, for what is shown must be what is there.
    """
    plain = str(text).encode("utf-8", "replace").decode()
    plain = "".join(
        " "
        if unicodedata.category(c) in ("Cc", "Zl", "Zp")
        else ""
        if unicodedata.bidirectional(c) in _TURNS
        else c
        for c in plain
    )
    return " ".join(plain.split())[:most].strip()


_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def title_key(title: str) -> str:
    """What is equal for two spellings of a file's title, with or without namespace."""
    head, colon, tail = title.replace("_", " ").strip().partition(":")
    name = tail.strip() if colon and head.strip().lower() in FILE else title.replace("_", " ").strip()
    return name[:1].upper() + name[1:]
