"""The page about all pictures: nothing outside it is needed, and nothing in it can be run."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from item_pictures import data, item, on, thing
from PIL import Image

from itemforge.dataset.process.arranging import arrange
from itemforge.dataset.process.recipe import Recipe
from itemforge.dataset.process.report import write_report
from itemforge.dataset.process.run import process_all


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def _report(tmp_path: Path, most: int = 400) -> _Tags:
    folder = tmp_path / "sources"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    scene = Image.fromarray(noise).resize((300, 260), Image.Resampling.BICUBIC)
    files = {
        "<script>alert(1)<": data(item()),
        "'\"&onload=x.png": data(scene),
        "grey.jpg": data(on(thing(2), (140, 140, 140)), "JPEG"),
        "thing 2.png": data(thing(2)),
        "mirrored.png": data(thing(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "tiny.png": data(item(10)),
        "text.png": b"no picture",
    }
    for name, bytes_ in files.items():
        (folder / name).write_bytes(bytes_)
    # A name that is no UTF-8.
    (folder / "caf\udce9.png").write_bytes(data(thing(9)))
    outcomes = process_all(sorted(folder.iterdir()), tmp_path / "out", Recipe(size=128), 0)
    write_report(tmp_path / "report.html", outcomes, arrange(outcomes), most)
    tags = _Tags()
    tags.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    return tags


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = _report(tmp_path)
    assert not {"script", "link", "iframe", "object", "base", "form", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value or "" for name, value in page.attributes if name == "src"]
    assert len(sources) > 10 and all(value.startswith("data:image/webp;base64,") for value in sources)
    assert "<script>alert(1)<" in page.text and "'\"&onload=x.png" in page.text, "names are shown as they are"


def test_it_shows_counts_flagged_ones_first_and_groups(tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", _report(tmp_path).text)
    order = [
        text.index(title)
        for title in ("Flagged", "Copies and variants (groups: 1)", "Set aside (2)", "Fine (5)")
    ]
    assert order == sorted(order)
    for words in (
        "a background that is not plain",
        "too small",
        "no PNG, JPEG, WebP or GIF",
        "copy of thing 2.png",
    ):
        assert words in text, words
    assert "5 pictures are kept" in text and "1 more are copies" in text


def test_it_says_how_many_it_leaves_out(tmp_path: Path) -> None:
    assert "and 4 more pictures" in _report(tmp_path, most=1).text
