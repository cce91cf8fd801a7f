"""Crawl, process and caption, killed at ten random places and begun again: the same bytes as when nothing happens."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_wiki import FakeFile, FakeWiki

from chain import contents, killed, lived, steps
from wiki_pictures import item_pictures

#: Kills in each step: ten.
KILLS = {"crawl": 4, "process": 3, "caption": 3}


@pytest.fixture
def wiki() -> Iterator[FakeWiki]:
    served = FakeWiki()
    served.per_answer = 50
    yield served
    served.close()


def fill(wiki: FakeWiki, count: int, packages: Path | None) -> None:
    for picture in item_pictures(count, packages):
        wiki.add(picture.file, FakeFile(picture.data, picture.mime, licence="", text="{{Licence|MIT}}"))
    # A copy in another format and what is set aside take their part too.
    first = item_pictures(1, packages)[0]
    wiki.add("Copy of the first.png", FakeFile(first.data + b"after the end"))
    wiki.add("No picture at all.png", FakeFile(b"\x89PNG\r\n\x1a\n" + bytes(40)))


@pytest.mark.parametrize(
    ("count", "size"),
    [
        pytest.param(60, 64, marks=pytest.mark.timeout(600)),
        pytest.param(1028, 512, marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_ten_kills_change_no_byte(wiki: FakeWiki, tmp_path: Path, count: int, size: int) -> None:
    fill(wiki, count, None if count < 100 else tmp_path / "packages")
    whole, out, counted = tmp_path / "whole", tmp_path / "items", tmp_path / "count"
    for folder in (whole, out):
        folder.mkdir()
        (folder / "dataset.toml").write_text(f"size = {size}\n")
    done = {name: lived(command, counted) for name, command in steps(wiki.url, whole).items()}

    seed = random.randrange(10**6)
    print(f"random seed {seed}; things done by each step: {done}")
    chance = random.Random(seed)
    for name, command in steps(wiki.url, out).items():
        for _ in range(KILLS[name]):
            # A run does again what it had not finished, so it gets as far as this however far those before came.
            place = chance.randrange(1, max(2, int(0.9 * done[name] / KILLS[name])))
            assert killed(command, place, counted), f"{name} ended before place {place}"
        lived(command, counted)
    files, tables = contents(out)
    expected_files, expected_tables = contents(whole)
    assert files == expected_files
    assert tables == expected_tables
    assert len(tables["dataset.sqlite pictures"]) == count + 2
    assert len(tables["dataset.sqlite captions"]) >= 0.8 * count
    assert wiki.fetched("Copy of the first.png") <= 2 + KILLS["crawl"]
