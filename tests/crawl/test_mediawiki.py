"""A real MediaWiki 1.39 with 300 pictures: what the crawler brings is what was uploaded, whichever way it goes."""

import hashlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from mediawiki import USER, MediaWiki, missing

from itemforge.dataset.crawl.fetching import Limits
from itemforge.dataset.crawl.run import Report, crawl
from itemforge.dataset.crawl.visitor import Manners
from itemforge.dataset.store import Source, open_store
from polling import wait_until
from services.process import unavailable
from wiki_pictures import item_pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 300
#: Names with what addresses, titles and wikitext treat in their own ways.
ODD = (
    "Öl & Honig",
    'Smith\'s "Best" Hammer',
    "Who? What!",
    "茶碗",
    "100% Juice",
    "A+B=C",
    "Dotted.name v2",
    "iPotion",
    "Semi;colon, comma",
    "Tilde~ (old)",
)
#: How many pictures stand where on the page "Items": in its table, its gallery, in frames, in a list.
TABLE, GALLERY, FRAMES = range(140), range(140, 220), range(220, 260)
LIST = range(260, COUNT)
LICENCES = (
    "{{Licence|MIT}}",
    "== Licensing ==\n{{CC-BY-SA-4.0}}",
    "{{licence|1=[[Apache License|Apache-2.0]]}}",
)
LICENCES_READ = ("MIT", "CC-BY-SA-4.0", "Apache-2.0")


@dataclass(frozen=True)
class Thing:
    """A picture of the wiki. `title` is the file's, as the wiki writes it."""

    n: int
    name: str
    file: str
    sha1: str

    @property
    def title(self) -> str:
        return f"File:{self.file[:1].upper()}{self.file[1:]}"

    @property
    def of_file(self) -> str:
        """What it is called where only the file has a name."""
        return self.title.removeprefix("File:").rpartition(".")[0]


@dataclass(frozen=True)
class Full:
    """A wiki, and what was put into it."""

    wiki: MediaWiki
    things: list[Thing]

    @property
    def url(self) -> str:
        return self.wiki.url


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Full]:
    if why := missing():
        unavailable(f"no MediaWiki ({why}): run `sh scripts/test_services.sh --slow`")
    folder = tmp_path_factory.mktemp("mediawiki")
    wiki = MediaWiki(folder / "wiki")
    things = upload(wiki, folder)
    wiki.write(pages(things))
    wiki.start()
    try:
        yield Full(wiki, things)
    finally:
        wiki.stop()


def upload(wiki: MediaWiki, folder: Path) -> list[Thing]:
    uploads, things = folder / "uploads", []
    uploads.mkdir()
    for n, picture in enumerate(item_pictures(COUNT, folder / "packages")):
        name = ODD[n // 7] if n % 7 == 0 and n // 7 < len(ODD) else picture.name
        # A third is uploaded under names that say nothing.
        file = (f"ui {n:03}" if n % 3 == 2 else name) + "." + picture.file.rpartition(".")[2]
        (uploads / file).write_bytes(picture.data)
        text = f"{LICENCES[n % 3]}\n[[Category:Item pictures]]"
        (uploads / f"{file.rpartition('.')[0]}.txt").write_text(text, encoding="utf-8")
        things.append(Thing(n, name, file, hashlib.sha1(picture.data).hexdigest()))
    wiki.upload(uploads, USER)
    return things


def pages(things: list[Thing]) -> dict[str, str]:
    rows = [
        "{| class=wikitable",
        "! colspan=4 | All that can be found",
        "|-",
        "! Shelf !! Icon !! Name !! Price",
    ]
    for n in TABLE:
        shelf = f"| rowspan=4 | Shelf {n // 4}\n" if n % 4 == 0 else ""
        rows += ["|-", f"{shelf}| [[File:{things[n].file}|48px]] || [[{things[n].name}]] || {n} coins"]
    gallery = [f"File:{things[n].file}|{things[n].name}" for n in GALLERY]
    frames = [f"[[File:{things[n].file}|thumb|120px|{things[n].name}]]" for n in FRAMES]
    lines = [f"* [[File:{things[n].file}|32px|link=]] [[{things[n].name}]]" for n in LIST]
    items = [
        "__NOTOC__ What one finds, and where.",
        "== Shelves ==", *rows, "|}",
        "== Walls ==", "<gallery>", *gallery, "</gallery>",
        "== Frames ==", *frames,
        "== Corners ==", *lines,
        "[[Category:Places]]",
    ]  # fmt: skip
    box = '{{| class="infobox"\n! colspan=2 | {name}\n|-\n| colspan=2 | [[File:{file}|200px]]\n|-\n! Kind\n| Curiosity\n|}}'
    own = {
        things[
            n
        ].name: f"{box.format(name=things[n].name, file=things[n].file)}\nA thing.\n[[Category:Curiosities]]"
        for n in LIST
    }
    return {
        "Items": "\n".join(items),
        "Template:Licence": "This file is under {{{1}}}.",
        "Template:CC-BY-SA-4.0": "Share it alike.",
        "Category:Curiosities": "Things with a page of their own.",
        **own,
    }


def crawled(full: Full, path: str, out: Path, way: str) -> Report:
    manners = Manners("tests@example.org", delay=0.0, backoff=0.0, allow_private=True)
    return crawl(full.url + path, out, manners, Limits(10**7, 10**9), way)  # type: ignore[arg-type]


def sources(out: Path) -> dict[str, list[Source]]:
    """Where each picture was seen, by the file's title; every file is what its name says."""
    found: dict[str, list[Source]] = {}
    with open_store(out) as store:
        for picture in store.pictures():
            data = store.path(picture).read_bytes()
            assert hashlib.sha256(data).hexdigest() == picture.sha256
            for source in store.sources(picture.sha256):
                assert hashlib.sha1(data).hexdigest() == picture.sha1
                found.setdefault(source.title, []).append(source)
    return found


def check_whole(full: Full, out: Path) -> None:
    """The pictures are those that were uploaded, byte for byte."""
    with open_store(out) as store:
        assert {each.sha1 for each in store.pictures()} == {each.sha1 for each in full.things}


def section(n: int) -> str:
    return next(
        name
        for name, where in (("Shelves", TABLE), ("Walls", GALLERY), ("Frames", FRAMES), ("Corners", LIST))
        if n in where
    )


@pytest.mark.parametrize("way", ["api", "html", "browser"])
def test_a_page_gives_its_pictures_under_their_names(full: Full, tmp_path: Path, way: str) -> None:
    out = tmp_path / "items"
    report = crawled(full, "/wiki/Items", out, way)
    assert (report.way, report.found, report.pictures, report.failures) == (way, COUNT, COUNT, {})
    check_whole(full, out)
    found = sources(out)
    named = {title: [(s.item, s.page, s.section) for s in each] for title, each in found.items()}
    assert named == {each.title: [(each.name, "Items", section(each.n))] for each in full.things}
    if way == "api":
        check_facts(full, found)
    before = full.wiki.pictures_asked()
    assert before >= COUNT
    again = crawled(full, "/wiki/Items", out, way)
    assert (again.found, again.fetched, again.pictures) == (COUNT, 0, COUNT)
    assert full.wiki.pictures_asked() == before


def check_facts(full: Full, found: dict[str, list[Source]]) -> None:
    """What the API alone knows of a file."""
    for each in full.things:
        (source, *_) = found[each.title]
        assert (source.uploader, source.sha1) == (USER, each.sha1)
        assert source.licence == LICENCES_READ[each.n % 3], each.title
        assert source.timestamp.startswith("20") and source.url.startswith(f"{full.url}/images/")


@pytest.mark.parametrize(
    "path", ["/", "/wiki/Category:Item_pictures", "/w/index.php?title=Special:ListFiles"]
)
@pytest.mark.parametrize("way", ["api", "html"])
def test_all_files_and_those_of_a_category(full: Full, tmp_path: Path, path: str, way: str) -> None:
    out = tmp_path / "items"
    report = crawled(full, path, out, way)
    assert (report.way, report.pictures, report.failures, report.stopped) == (way, COUNT, {}, "")
    check_whole(full, out)
    found = sources(out)
    assert {title: {s.item for s in each} for title, each in found.items()} == {
        each.title: {each.of_file} for each in full.things
    }
    if way == "api":
        check_facts(full, found)


@pytest.mark.parametrize("way", ["api", "html"])
def test_a_category_of_pages(full: Full, tmp_path: Path, way: str) -> None:
    out = tmp_path / "items"
    report = crawled(full, "/wiki/Category:Curiosities", out, way)
    assert (report.way, report.pictures, report.failures) == (way, len(LIST), {})
    named = {title: {(s.item, s.page) for s in each} for title, each in sources(out).items()}
    things = [full.things[n] for n in LIST]
    assert named == {each.title: {(each.name, each.name)} for each in things}


def test_a_wiki_without_an_api_for_us_is_read_by_its_pages(full: Full, tmp_path: Path) -> None:
    """The way is chosen by itself: the API where there is one."""
    assert crawled(full, "/wiki/Items", tmp_path / "items", "auto").way == "api"


def test_a_killed_crawl_goes_on_to_the_same_dataset(full: Full, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "items"
    crawled(full, "/wiki/Items", whole, "api")
    script = "import typer; from itemforge.cli.crawl import crawl; typer.run(crawl)"
    asked = [f"{full.url}/wiki/Items", "--out", str(out), "--contact", "tests@example.org"]
    command = [sys.executable, "-c", script, *asked, "--delay", "0", "--allow-private", "--way", "api"]
    seed = random.randrange(10**6)
    print(f"random seed {seed}")
    chance = random.Random(seed)
    start = full.wiki.pictures_asked()
    for kill in range(1, 4):
        at = start + kill * 60 + chance.randrange(-20, 20)
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(
            lambda at=at, running=running: full.wiki.pictures_asked() > at or running.poll() is not None,
            within=300,
            every=0.005,
        )
        running.send_signal(signal.SIGKILL)
        assert running.wait(10) == -signal.SIGKILL
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=600).returncode == 0
    assert _contents(out) == _contents(whole)
    # At each kill one picture at most was under way.
    assert full.wiki.pictures_asked() - start <= COUNT + 3


def _contents(out: Path) -> tuple[list[object], ...]:
    times = ("added_at", "first_seen")
    with open_store(out) as store:
        pictures = [each for each in store.pictures()]
        seen = [vars(s) for each in pictures for s in store.sources(each.sha256)]
        kept = [{key: value for key, value in row.items() if key not in times} for row in map(vars, pictures)]
        files = sorted(
            path.relative_to(out).as_posix() for path in (out / "raw").rglob("*") if path.is_file()
        )
    return kept, [{k: v for k, v in row.items() if k not in times} for row in seen], files


def test_the_wiki_is_the_version_that_is_spoken_of(full: Full) -> None:
    said = httpx.get(f"{full.url}/w/api.php?action=query&meta=siteinfo&format=json", trust_env=False).json()
    assert said["query"]["general"]["generator"].startswith("MediaWiki 1.39")
