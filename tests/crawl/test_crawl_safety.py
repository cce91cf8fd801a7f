"""What hostile wikis try: private addresses, endless pictures, names that are paths."""

import ipaddress
import itertools
import json
import shutil
import socket
import threading
from pathlib import Path

import httpx
import pytest
from fake_wiki import FakeFile, FakeWiki, Mood, drawn

from itemforge.dataset.crawl import addresses
from itemforge.dataset.crawl.failures import AddressRefused
from itemforge.dataset.crawl.fetching import Limits
from itemforge.dataset.crawl.listing import Search, list_pictures
from itemforge.dataset.crawl.proxy import proxy_running
from itemforge.dataset.crawl.robots import read_robots
from itemforge.dataset.crawl.visitor import Manners, Visitor, check_contact
from itemforge.dataset.crawl.wiki import clean, read_place
from itemforge.dataset.store import open_store
from itemforge.dataset.store_queue import open_entries
from itemforge.errors import ConfigurationError, InvalidInput, ObjectMissing


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:a00:1",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001:0:0:0:0:0:80ff:fffe",
        "2001:db8::1",
        "240.0.0.1",
    ],
)
def test_addresses_that_are_nobody_elses_are_refused(address: str) -> None:
    assert not addresses.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_let_through(address: str) -> None:
    assert addresses.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0"]
)
def test_a_crawl_does_not_begin_at_this_machine(wiki: FakeWiki, crawled, out: Path, host: str) -> None:
    wiki.url = wiki.url.replace("127.0.0.1", host)
    with pytest.raises(ConfigurationError, match="--allow-private"):
        crawled("/", allow_private=False)
    assert not wiki.log


def test_no_redirect_and_no_picture_leads_to_this_machine(
    wiki: FakeWiki, crawled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wiki's own host is let through here, as a public one would be; what it leads to is checked."""
    wiki.add("A.png", drawn(1))
    port = int(wiki.url.rpartition(":")[2])
    real = addresses.permitted
    monkeypatch.setattr(
        "itemforge.dataset.crawl.transport.permitted",
        lambda host, at, private: ["127.0.0.1"] if host == "wiki.test" else real(host, at, private),
    )
    wiki.url = f"http://wiki.test:{port}"
    wiki.moods["/away.png"] = Mood(lambda h: h.answer(302, b"", Location=wiki.file_url("A.png")))
    wiki.add("B.png", FakeFile(drawn(2), facts={"url": f"{wiki.url}/away.png"}))
    report = crawled("/", allow_private=False)
    assert report.failures == {"address not allowed": 2}
    assert not wiki.pictures_asked()


def test_a_name_that_means_this_machine_is_refused(
    wiki: FakeWiki, crawled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is looked at after the look-up: the name itself looks like any other."""
    _answer_for(monkeypatch, "wiki.example.org")
    wiki.add("A.png", drawn(1))
    wiki.url = wiki.url.replace("127.0.0.1", "wiki.example.org")
    with pytest.raises(ConfigurationError, match="--allow-private"):
        crawled("/", allow_private=False)
    assert not wiki.log
    assert crawled("/").pictures == 1, "the name leads there"


def _answer_for(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Names that a wiki's owner lets lead to loopback."""
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *args: object, **more: object) -> object:
        return real("127.0.0.1" if host in names else host, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_a_name_that_changes_its_meaning_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [("93.184.216.34", 0), ("127.0.0.1", 0)]
    asked: list[str] = []

    def lookup(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answers[len(asked) - 1])]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert addresses.permitted("rebinding.test", 80, False) == ["93.184.216.34"]
    with pytest.raises(AddressRefused):
        addresses.permitted("rebinding.test", 80, False)


def test_names_never_become_paths(wiki: FakeWiki, crawled, out: Path, tmp_path: Path) -> None:
    titles = [
        "../../evil.png",
        "/etc/passwd.png",
        "nul\0l.png",
        "x" * 300 + ".png",
        "CON.png",
        "a.png",
        "A.png",
        "..png",
    ]
    titles += ["-rf.png", "\ud800.png", "\u202egnp.exe.png", "new\nline.png"]
    for n, title in enumerate(titles):
        wiki.add(title, FakeFile(drawn(n), facts={"url": f"{wiki.static}/p/{n}.png?format=original"}))
        wiki.files[f"{n}.png"] = wiki.files[title]
        wiki.page_files.setdefault("P", []).append(title)
    before = {path for path in tmp_path.rglob("*") if out not in path.parents and path != out}
    wiki.has_parse = False
    report = crawled("/wiki/P")
    assert report.pictures == len(titles)
    assert {path for path in tmp_path.rglob("*") if out not in path.parents and path != out} == before
    names = {path.name for path in out.rglob("*") if path.is_file()}
    with open_store(out) as store:
        pictures = {each.file.rpartition("/")[2] for each in store.pictures()}
    assert names - pictures - {
        "dataset.toml",
        "dataset.sqlite",
        "dataset.sqlite-wal",
        "dataset.sqlite-shm",
    } == {"crawl.lock"}


def test_texts_of_strangers_are_one_line() -> None:
    assert clean("a\0b\x1b[2J\nc\u202ed\ud800") == "a b [2J cd?"
    assert len(clean("x" * 10_000)) == 500


def endless(handler) -> None:
    """200 MB that nobody keeps."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"\x89PNG\r\n\x1a\n" + bytes(10**6)
    for _ in range(200):
        handler.wfile.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def test_a_picture_is_left_when_it_is_too_large(wiki: FakeWiki, crawled, out: Path) -> None:
    wiki.has_api = False
    wiki.add("Big.png", drawn(1))
    wiki.add("Told.png", drawn(2))
    wiki.add("Small.png", drawn(3))
    wiki.pages["P"] = "".join(wiki.lazy(title) for title in wiki.files)
    wiki.mood_of("Big.png", endless)

    def told(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**12))
        handler.end_headers()

    wiki.mood_of("Told.png", told)
    report = crawled("/wiki/P", limits=Limits(3 * 10**6, 10**9))
    assert report.failures == {"larger than --max-file": 2}
    assert report.pictures == 1
    assert not list((out / "raw" / ".parts").iterdir())


def test_what_the_wiki_tells_to_be_too_large_is_not_asked_for(wiki: FakeWiki, crawled) -> None:
    wiki.add("A.png", drawn(1))
    assert crawled("/", limits=Limits(100, 10**9)).failures == {"larger than --max-file": 1}
    assert not wiki.pictures_asked()
    assert crawled("/").pictures == 1


def test_a_dataset_ends_at_its_largest_size(wiki: FakeWiki, crawled) -> None:
    for n in range(4):
        wiki.add(f"{n}.png", drawn(n))
    total = sum(len(wiki.files[f"{n}.png"].data) for n in range(2))
    report = crawled("/", limits=Limits(10**6, total))
    assert "--max-total" in report.stopped
    assert report.pictures == 2
    assert crawled("/").pictures == 4


def test_a_stream_ends_at_the_datasets_largest_size(wiki: FakeWiki, crawled, out: Path) -> None:
    """Nobody said how large it would be."""
    wiki.has_api = False
    wiki.add("Small.png", drawn(1))
    wiki.add("Big.png", drawn(2))
    wiki.pages["P"] = wiki.lazy("Small.png") + wiki.lazy("Big.png")
    wiki.mood_of("Big.png", endless)
    report = crawled("/wiki/P", limits=Limits(10**9, 2 * 10**6))
    assert "--max-total" in report.stopped
    assert report.pictures == 1
    assert not list((out / "raw" / ".parts").iterdir())


def test_a_disk_that_is_almost_full_ends_the_run(
    wiki: FakeWiki, crawled, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiki.add("A.png", drawn(1))
    usage = shutil.disk_usage("/")._replace(free=200 * 10**6)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        report = crawled("/")
    assert "almost full" in report.stopped
    assert not wiki.pictures_asked()
    assert crawled("/").pictures == 1


def test_a_list_without_end_fills_no_disk(
    wiki: FakeWiki, crawled, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    monkeypatch.setattr("itemforge.dataset.crawl.run._MOST", 100)
    answers = itertools.count()

    def endless_list(handler) -> None:
        n = next(answers)
        pages = [
            {"title": f"File:{n}-{k}.png", "imageinfo": [{"url": f"{wiki.static}/{n}-{k}.png"}]}
            for k in range(50)
        ]
        more = {"continue": "gaicontinue||", "gaicontinue": str(n)}
        answer = {"batchcomplete": True, "query": {"pages": pages}, "continue": more}
        handler.answer(200, json.dumps(answer).encode(), "application/json")

    wiki.moods["/api.php"] = Mood(endless_list)
    report = crawled("/")
    assert "more than 100 pictures" in report.stopped
    assert next(answers) < 10
    with open_store(out) as store:
        assert len(open_entries(store)) <= 150


def test_a_bomb_is_not_opened(wiki: FakeWiki, crawled, out: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x06\0\0\0\0\0\0\0"
    wiki.add("Bomb.png", header + b"\0\0\0\0IEND\xaeB`\x82")
    assert crawled("/").pictures == 1
    with open_store(out) as store:
        assert [(each.width, each.height) for each in store.pictures()] == [(60_000, 60_000)]


def test_pages_are_no_pictures(wiki: FakeWiki, crawled) -> None:
    wiki.has_api = False
    wiki.add("A.png", b"<html>sorry</html>")
    wiki.add("B.png", drawn(1)[:-30])
    wiki.pages["P"] = wiki.lazy("A.png") + wiki.lazy("B.png")
    assert crawled("/wiki/P").failures == {"no picture": 1, "cut off or damaged": 1}


def test_who_crawls_must_say_so(wiki: FakeWiki, crawled) -> None:
    for wrong in (None, "", "  ", "a\nb", "ä@b.c", "x) Googlebot ("):
        with pytest.raises(ConfigurationError, match="--contact"):
            check_contact(wrong)
    wiki.add("A.png", drawn(1))
    crawled("/")
    for each in wiki.log:
        assert each.headers["user-agent"].startswith("ItemForge/")
        assert each.headers["user-agent"].endswith(" (tests@example.org)")


def test_requests_keep_their_distance(wiki: FakeWiki, crawled, waits: list[float]) -> None:
    wiki.add("A.png", drawn(1))
    crawled("/", delay=5.0)
    assert len(waits) == len(wiki.log) - 1
    assert all(4.0 < wait <= 5.0 for wait in waits)


def test_robots_rules_as_the_rfc_reads_them() -> None:
    rules = read_robots(
        "User-agent: other\nUser-agent: *\nDisallow: /a\nAllow: /a/b$\nDisallow: /*?action=\nDisallow:\nCrawl-delay: 2\n"
        "Disallow: /c*d$\n"
    )
    allowed = {
        path: rules.allows(f"https://w.org{path}")
        for path in ("/a/b", "/a/bc", "/x?action=edit", "/x", "/cxd", "/cxdx")
    }
    assert allowed == {
        "/a/b": True,
        "/a/bc": False,
        "/x?action=edit": False,
        "/x": True,
        "/cxd": False,
        "/cxdx": True,
    }
    assert rules.delay == 2
    assert not read_robots("user-agent: ItemForge/1.0\ndisallow: /%41\nuser-agent: *\nallow: /").allows(
        "https://w/A"
    )


def test_addresses_that_are_none() -> None:
    for wrong in (
        "ftp://w.org/",
        "file:///etc/passwd",
        "https://",
        "https://w.org:99999/",
        "https://u:p@w.org/",
    ):
        with pytest.raises(InvalidInput):
            read_place(wrong)
    assert read_place("https://w.org/de/wiki/Kategorie:Waffen").prefix == "/de"
    assert read_place("https://w.org/de/").title is None
    assert read_place("https://w.org/w/index.php?title=A_B").title == "A B"
    assert read_place("https://w.org/wiki/Special:ListFiles").title is None


def test_a_page_that_is_not_there(wiki: FakeWiki, crawled) -> None:
    with pytest.raises(ObjectMissing, match="no page"):
        crawled("/wiki/Nothing", way="html")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"])
def test_the_browsers_proxy_refuses_private_addresses(wiki: FakeWiki, host: str) -> None:
    target = f"{host}:{wiki.url.rpartition(':')[2]}"
    with proxy_running(False) as (port, proxy):
        for line in (f"CONNECT {target} HTTP/1.1", f"GET http://{target}/ HTTP/1.1"):
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(f"{line}\r\nHost: {target}\r\n\r\n".encode())
                assert client.recv(100).startswith(b"HTTP/1.1 403 ")
        assert len(proxy.refused) == 2
    assert not wiki.log


def test_the_browsers_proxy_passes_on_what_is_permitted(wiki: FakeWiki) -> None:
    wiki.pages["P"] = "hello"
    with (
        proxy_running(True) as (port, _),
        httpx.Client(proxy=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        assert "hello" in client.get(f"{wiki.url}/wiki/P").text
        assert client.get("http://unknown.invalid/").status_code == 502
    (asked,) = wiki.log
    assert "proxy-connection" not in asked.headers


def test_a_proxy_outlives_a_client_that_goes_away(wiki: FakeWiki) -> None:
    with proxy_running(True) as (port, _):
        for rubbish in (b"", b"GET", b"\0\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"A" * 100_000):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(rubbish)
        wiki.pages["P"] = "hello"
        with httpx.Client(proxy=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get(f"{wiki.url}/wiki/P").status_code == 200
    assert not [thread for thread in threading.enumerate() if thread.name == "proxy"]


def test_a_wiki_that_goes_round_in_circles(wiki: FakeWiki) -> None:
    loop = b'{"query": {"allimages": []}, "continue": {"continue": "-||", "aicontinue": "A"}}'
    wiki.moods["/api.php"] = Mood(lambda h: h.answer(200, loop, "application/json"))
    visitor = Visitor(Manners("tests@example.org", 0.0, backoff=0.0, allow_private=True))
    search = Search(visitor, read_place(wiki.url), lambda _: None, lambda _: None)
    with pytest.raises(ConfigurationError, match="circles"):
        list_pictures(search, "api")
    visitor.close()
