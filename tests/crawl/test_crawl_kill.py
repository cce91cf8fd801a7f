"""Killed at any moment and begun again, a crawl gives the same dataset; Ctrl-C ends it cleanly."""

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_wiki import FakeWiki, Mood, drawn

from itemforge.cli import run
from itemforge.dataset.crawl.fetching import Limits
from itemforge.dataset.crawl.run import crawl
from itemforge.dataset.crawl.visitor import Manners
from itemforge.dataset.store import open_store
from itemforge.errors import ConfigurationError
from polling import wait_until

ITEMS = 20


#: The command without the others, whose imports would take most of the time.
SCRIPT = "import typer; from itemforge.cli.crawl import crawl; typer.run(crawl)"


def command(wiki: FakeWiki, out: Path, *how: str) -> subprocess.Popen[str]:
    asked = [
        wiki.url,
        "--out",
        str(out),
        "--contact",
        "a@b.org",
        "--delay",
        "0",
        "--backoff",
        "0",
        "--allow-private",
    ]
    return subprocess.Popen(
        [sys.executable, *(how or ("-c", SCRIPT)), *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(wiki: FakeWiki, out: Path, *how: str) -> tuple[str, str]:
    """What a crawl that goes well says, on both streams."""
    running = command(wiki, out, *how)
    said, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    return said, errors


def contents(out: Path) -> dict[str, list[tuple[str, ...]]]:
    """What a dataset holds, but for when it came to be."""
    with open_store(out) as store:
        for each in store.pictures():
            assert store.path(each).stat().st_size == each.bytes
        return {
            each.sha256: [(s.item, s.page, s.url, s.title, s.sha1) for s in store.sources(each.sha256)]
            for each in store.pictures()
        }


@pytest.fixture
def full(wiki: FakeWiki) -> FakeWiki:
    for n in range(ITEMS):
        wiki.add(f"Item {n:02}.png", drawn(n, 200))
    wiki.per_answer = 10
    return wiki


def test_killed_crawls_give_the_same_dataset(full: FakeWiki, out: Path, tmp_path: Path, crawled) -> None:
    whole = tmp_path / "whole"
    manners = Manners("a@b.org", delay=0.0, allow_private=True)
    assert crawl(full.url, whole, manners, Limits(10**9, 10**9)).pictures == ITEMS
    seed = random.randrange(10**6)
    print(f"random seed {seed}")
    chance = random.Random(seed)
    for _ in range(3):
        full.log.clear()
        at = chance.randrange(1, ITEMS // 2)
        running = command(full, out)
        wait_until(
            lambda at=at, running=running: len(full.log) > at or running.poll() is not None,
            within=30,
            every=0.001,
        )
        running.kill()
        running.communicate()
    said, _ = finished(full, out)
    assert contents(out) == contents(whole)
    assert len(contents(out)) == ITEMS
    assert f"has {ITEMS}" in said
    files = sorted(path.name for path in (out / "raw").rglob("*") if path.is_file())
    assert files == sorted(path.name for path in (whole / "raw").rglob("*") if path.is_file())
    full.log.clear()
    assert crawled("/").pictures == ITEMS
    assert not full.pictures_asked()


def test_ctrl_c_ends_it_cleanly(full: FakeWiki, out: Path, crawled) -> None:
    release = threading.Event()
    full.mood_of("Item 05.png", lambda handler: release.wait(20))
    running = command(full, out)
    wait_until(lambda: full.fetched("Item 05.png"), within=20)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    release.set()
    assert running.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert len(contents(out)) == 5
    full.moods.clear()
    crawled("/")
    assert len(contents(out)) == ITEMS


def test_two_crawls_do_not_share_a_dataset(full: FakeWiki, out: Path, crawled) -> None:
    release = threading.Event()
    full.moods["/api.php"] = Mood(lambda handler: release.wait(20))
    first = command(full, out)
    wait_until(lambda: full.log, within=20)
    with pytest.raises(ConfigurationError, match="another crawl or import works on"):
        crawled("/")
    release.set()
    first.kill()
    first.communicate()


def test_what_the_command_says(full: FakeWiki, out: Path) -> None:
    full.mood_of("Item 00.png", lambda handler: handler.answer(404, b""))
    said, errors = finished(full, out, "-m", "itemforge", "data", "crawl", "--max-file", "1MB")
    assert "20 pictures found by api, 19 new" in said
    assert "not fetched, HTTP 404: 1" in said
    assert "step 20 of 20" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--contact", ""], "--contact"),
        (["--contact", "a@b.org", "--max-file", "much"], "--max-file much is no size"),
        (["--contact", "a@b.org"], "--allow-private"),
    ],
)
def test_what_the_command_refuses(
    wiki: FakeWiki, out: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", ["itemforge", "data", "crawl", wiki.url, "--out", str(out), *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 64
    assert said in capsys.readouterr().err
    assert not wiki.log
