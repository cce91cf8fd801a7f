"""The API way: everything that a wiki lists is here, with what it says of it."""

import contextlib
import hashlib
import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from fake_wiki import FakeFile, FakeWiki, Mood, drawn

from itemforge.dataset.crawl.licences import licence_of
from itemforge.dataset.store import open_store
from itemforge.errors import ConfigurationError


def test_all_files_of_a_wiki_come_as_originals_with_their_facts(wiki: FakeWiki, out: Path, crawled) -> None:
    for n in range(8):
        wiki.add(f"Item {n}.png", drawn(n))
    report = crawled("/")
    assert (report.way, report.found, report.fetched, report.pictures) == ("api", 8, 8, 8)
    with open_store(out) as store:
        for picture in store.pictures():
            data = store.path(picture).read_bytes()
            assert hashlib.sha256(data).hexdigest() == picture.sha256
            assert (picture.mime, picture.width, picture.height) == ("image/png", 64, 64)
            (source,) = store.sources(picture.sha256)
            assert data == wiki.files[source.title.removeprefix("File:")].data
            assert source.item == source.title.removeprefix("File:").removesuffix(".png")
            assert (source.uploader, source.licence) == ("Uploader", "CC BY-SA 3.0")
            assert source.url == wiki.file_url(source.title.removeprefix("File:")) + "&format=original"
            assert source.sha1 == picture.sha1 == hashlib.sha1(data).hexdigest()


def test_a_second_run_downloads_nothing(wiki: FakeWiki, crawled) -> None:
    for n in range(4):
        wiki.add(f"Item {n}.png", drawn(n))
    crawled("/")
    wiki.log.clear()
    report = crawled("/")
    assert (report.fetched, report.pictures, report.failures) == (0, 4, {})
    assert not wiki.pictures_asked()


def test_what_a_page_says_of_its_pictures_is_kept(wiki: FakeWiki, out: Path, crawled) -> None:
    for n, title in enumerate(("Iron Sword.png", "ui 7.png", "Other.png", "Lost.png")):
        wiki.add(title, drawn(n), page="Weapons")
    wiki.files["Lost.png"].facts["silent"] = True
    wiki.pages["Weapons"] = (
        "<h2>Swords<span class='mw-editsection'>[edit]</span></h2><table><tr><th>Icon</th><th>Name</th></tr>"
        f"<tr><td>{wiki.lazy('Iron Sword.png')}</td><td>Sword of <b>Iron</b></td></tr>"
        f"<tr><td>{wiki.lazy('ui 7.png')}</td><td>Club</td></tr></table>"
    )
    report = crawled("/wiki/Weapons")
    with open_store(out) as store:
        seen = {
            s.title: (s.item, s.page, s.section) for p in store.pictures() for s in store.sources(p.sha256)
        }
    assert seen == {
        "File:Iron Sword.png": ("Sword of Iron", "Weapons", "Swords"),
        "File:ui 7.png": ("Club", "Weapons", "Swords"),
        "File:Other.png": ("Other", "Weapons", ""),
    }
    assert report.failures == {"the wiki says nothing of the file": 1}


def test_a_category_gives_its_files_and_those_of_its_pages(wiki: FakeWiki, out: Path, crawled) -> None:
    for n in range(7):
        wiki.add(f"F{n}.png", drawn(n), category="Category:Items")
    wiki.members["Category:Items"] += ["Bow", "Axe"]
    wiki.add("Bow.png", drawn(10), page="Bow")
    wiki.has_parse = False
    report = crawled("/wiki/Category:Items")
    assert (report.found, report.pictures) == (8, 8)


def test_a_wiki_whose_pages_are_closed_to_programs_is_read_by_its_api(wiki: FakeWiki, crawled) -> None:
    """Fandom answers HTML with a challenge, and its API does not."""
    for n in range(5):
        wiki.add(f"Item {n}.png", drawn(n), page="Items", category="Category:Items")
    wiki.challenge = True
    for path in ("/", "/wiki/Items", "/wiki/Category:Items"):
        report = crawled(path)
        assert (report.way, report.found, report.pictures, report.failures) == ("api", 5, 5, {})


def test_the_licence_is_read_from_the_files_page_where_the_api_knows_none(
    wiki: FakeWiki, out: Path, crawled
) -> None:
    said = {
        "A.png": "A cup. {{Licence|1=[[MIT License|MIT]]}}\n[[Category:Items]]",
        "B.png": "== Licensing ==\n{{CC-BY-SA-4.0}}",
        "C.png": "== Summary ==\nA {{hat}}.\n== Licensing ==\n{{Odd template|from the game}}",
        "D.png": "{{mithril}} <!-- {{Licence|hidden}} -->",
        "E.png": "== Licence ==\nAll rights [[Law|reserved]]",
        "F.png": "{{self|cc-by-3.0}}",
    }
    for n, (title, text) in enumerate(said.items()):
        wiki.add(title, FakeFile(drawn(n), licence="", text=text))
    wiki.add("G.png", FakeFile(drawn(9), licence="CC0", text="{{Licence|MIT}}"))
    crawled("/")
    with open_store(out) as store:
        read = {s.title[5:]: s.licence for p in store.pictures() for s in store.sources(p.sha256)}
    assert read == {
        "A.png": "MIT",
        "B.png": "CC-BY-SA-4.0",
        "C.png": "Odd template from the game",
        "D.png": "",
        "E.png": "All rights reserved",
        "F.png": "cc-by-3.0",
        "G.png": "CC0",
    }


@pytest.mark.parametrize(
    "text", ["{{" * 50_000, "<!--" * 25_000, "[[" * 50_000, "=" * 99_999, "{{Licence|" * 9999]
)
def test_wikitext_that_is_made_to_take_for_ever_takes_no_time(text: str) -> None:
    assert licence_of(text) == ""


def test_an_api_elsewhere_is_found(wiki: FakeWiki, crawled) -> None:
    wiki.api_path = "/w/api.php"
    wiki.add("A.png", drawn(1))
    assert crawled("/").pictures == 1


def test_one_bad_picture_stops_nothing_and_is_tried_again(wiki: FakeWiki, crawled) -> None:
    for n in range(4):
        wiki.add(f"Item {n}.png", drawn(n))
    wiki.mood_of("Item 1.png", lambda h: h.answer(500, b"oops"))
    wiki.add("Item 2.png", FakeFile(drawn(2), facts={"sha1": "0" * 40}))
    wiki.files["Item 3.png"].lost = True
    report = crawled("/")
    assert report.pictures == 1
    assert report.failures == {"HTTP 500": 1, "wrong sha1": 1, "the wiki has lost the file": 1}
    wiki.moods.clear()
    wiki.files["Item 2.png"].facts.clear()
    wiki.files["Item 3.png"].lost = False
    assert crawled("/").pictures == 4
    assert wiki.fetched("Item 0.png") == 1


def test_a_body_that_breaks_off_is_fetched_again(wiki: FakeWiki, crawled) -> None:
    data = wiki.add("A.png", drawn(1)).data

    def cut(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:50])
        handler.close_connection = True

    wiki.mood_of("A.png", cut, times=2)
    assert crawled("/").pictures == 1
    assert wiki.fetched("A.png") == 3


def test_the_wiki_is_left_alone_as_long_as_it_asks(wiki: FakeWiki, crawled, waits: list[float]) -> None:
    wiki.add("A.png", drawn(1))
    wiki.mood_of("A.png", lambda h: h.answer(429, b"", Retry_After="7"), times=1)
    lag = b'{"error": {"code": "maxlag", "info": "Waiting", "lag": 6}}'
    wiki.moods["/api.php"] = Mood(lambda h: h.answer(200, lag, "application/json", Retry_After="5"), times=1)
    assert crawled("/").pictures == 1
    assert waits == [5.0, 7.0]
    assert all(each.query["maxlag"] == "5" for each in wiki.log if each.path == "/api.php")


def test_a_host_that_asks_for_hours_is_asked_once(wiki: FakeWiki, crawled) -> None:
    for n in range(3):
        wiki.add(f"Item {n}.png", drawn(n))
    wiki.moods["static:*"] = Mood(lambda h: h.answer(429, b"", Retry_After="7200"))
    wiki.moods["/robots.txt"] = Mood(lambda h: h.answer(404, b""))
    report = crawled("/")
    assert report.pictures == 0
    assert sum(report.failures.values()) == 3
    assert len(wiki.pictures_asked()) == 1
    wiki.moods.clear()
    assert crawled("/").pictures == 3


def test_a_replaced_file_comes_as_another_picture(wiki: FakeWiki, out: Path, crawled) -> None:
    wiki.add("A.png", drawn(1))
    crawled("/")
    wiki.add("A.png", drawn(2))
    assert crawled("/").pictures == 2
    with open_store(out) as store:
        assert all(len(store.sources(each.sha256)) == 1 for each in store.pictures())


def test_warnings_are_told_once_and_sounds_are_left(wiki: FakeWiki, crawled, notes: list[str]) -> None:
    wiki.add("A.png", drawn(1))
    wiki.add("Roar.ogg", FakeFile(b"OggS", "application/ogg"))
    wiki.warning, wiki.per_answer = "Unrecognized parameter: foo", 1
    report = crawled("/")
    assert report.failures == {"not a kind of picture that is taken: application/ogg": 1}
    assert not wiki.fetched("Roar.ogg")
    assert notes == ["the wiki warns (main): Unrecognized parameter: foo"]


def test_a_redirect_to_another_host_is_followed_with_its_robots(wiki: FakeWiki, crawled) -> None:
    data = wiki.add("A.png", drawn(1)).data
    wiki.mood_of("A.png", lambda h: h.answer(302, b"", Location=f"{wiki.url}/moved.png"))
    wiki.moods["/moved.png"] = Mood(lambda h: h.answer(200, data, "image/png"))
    wiki.robots = "User-agent: *\nDisallow: /moved.png"
    assert crawled("/").failures == {"robots.txt does not allow it": 1}
    wiki.robots = ""
    assert crawled("/").pictures == 1


def test_a_list_that_breaks_off_is_no_whole_list(wiki: FakeWiki, crawled) -> None:
    for n in range(8):
        wiki.add(f"Item {n}.png", drawn(n))
    answered: list[int] = []

    def tired(handler) -> None:
        answered.append(1)
        if len(answered) < 4:  # the names of the namespaces, and two of three answers
            query = dict(parse_qsl(urlsplit(handler.path).query))
            handler.answer(200, json.dumps(handler._api(query)).encode(), "application/json")
        else:
            handler.answer(503, b"")

    wiki.moods["/api.php"] = Mood(tired)
    report = crawled("/")
    assert report.pictures == 6
    assert "not complete" in report.stopped
    wiki.moods.clear()
    assert crawled("/").pictures == 8


def test_facts_that_come_later_and_answers_of_the_old_format(wiki: FakeWiki, crawled) -> None:
    data = wiki.add("A.png", drawn(1)).data
    info = {"url": wiki.file_url("A.png"), "sha1": hashlib.sha1(data).hexdigest(), "extmetadata": []}
    first = {
        "continue": {"iicontinue": "A", "continue": "||"},
        "query": {"pages": {"5": {"title": "File:A.png"}}},
    }
    later = {
        "query": {
            "pages": {
                "5": {"title": "File:A.png", "imageinfo": [info]},
                "-1": {"title": "File:B.png", "missing": ""},
            }
        }
    }

    def old(handler) -> None:
        query = dict(parse_qsl(urlsplit(handler.path).query))
        answer = {} if "generator" not in query else later if "iicontinue" in query else first
        handler.answer(200, json.dumps(answer).encode(), "application/json")

    wiki.moods["/api.php"] = Mood(old)
    report = crawled("/wiki/P")
    assert (report.pictures, report.failures) == (1, {"the wiki has no such file": 1})


def test_answers_that_make_no_sense_end_nothing_badly(wiki: FakeWiki, crawled) -> None:
    answers = [
        "[]",
        "null",
        "[" * 100_000,
        '{"query": 7}',
        '{"query": {"allimages": [1, null, {"url": 5}, {"name": []}]}}',
    ]
    answers += [
        '{"query": {"allimages": [{"name": "A", "url": "http://[", "size": -1}]}}',
        '{"error": []}',
        "9" * 10_000,
    ]
    wiki.pages["Special:ListFiles"] = "nothing"
    for answer in answers:
        wiki.moods["/api.php"] = Mood(
            lambda h, answer=answer: h.answer(200, answer.encode(), "application/json")
        )
        wiki.moods["/"] = Mood(lambda h: h.answer(404, b""))
        with contextlib.suppress(ConfigurationError):
            assert crawled("/", way="api").pictures == 0
