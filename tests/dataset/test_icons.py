"""The starter's training set: which pictures, which captions, what is kept from training."""

import json
from pathlib import Path

import numpy as np
import pytest
from icon_packages import pack, webp, write_packages
from PIL import Image

from itemforge.dataset.colours import dominant_colour
from itemforge.dataset.icon_sets import SETS
from itemforge.dataset.icons import build_icons, on_white
from itemforge.errors import InvalidInput


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    return write_packages(tmp_path / "packages")


def _lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_a_set_is_joined_by_code_point_and_what_is_no_thing_is_left_out(
    packages: Path, tmp_path: Path
) -> None:
    built = build_icons(tmp_path / "out", packages, 64)
    lines = _lines(tmp_path / "out/base")
    assert {line["label"] for line in lines} == {"red apple", "old key"}
    assert {line["set"] for line in lines} == {s.id for s in SETS if s.use == "base"}
    assert built.pictures == {"base": len(lines), "styles/openmoji": 2, "styles/cel": 2}
    assert built.failed == []
    for line in lines:
        with Image.open(tmp_path / "out/base" / str(line["file_name"])) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
            assert np.asarray(picture)[[0, -1]].min() == 255, "white ground, and a margin"


def test_copies_have_the_colour_that_their_captions_say_and_never_a_held_out_one(
    packages: Path, tmp_path: Path
) -> None:
    build_icons(tmp_path, packages, 64)
    concepts = {each["code"]: each for each in json.loads((tmp_path / "concepts.json").read_text())}
    copies = [line for line in _lines(tmp_path / "base") if line["colour"]]
    assert copies, "the apple is red in two sets at least"
    for line in copies:
        with Image.open(tmp_path / "base" / str(line["file_name"])) as picture:
            assert dominant_colour(np.asarray(picture)) == line["colour"]
        assert all(str(line["colour"]) in caption for caption in line["captions"])  # type: ignore[attr-defined]
        assert line["colour"] not in concepts[line["concept"]]["held_out_colours"]
        assert line["colour"] != line["natural"] and line["natural"] in concepts[line["concept"]]["natural"]


def test_words_of_one_thing_alone_name_it_and_some_are_never_trained_on(
    packages: Path, tmp_path: Path
) -> None:
    build_icons(tmp_path, packages, 32)
    (apple,) = (e for e in json.loads((tmp_path / "concepts.json").read_text()) if e["label"] == "red apple")
    words = {*apple["synonyms"], *apple["held_out"]}
    assert words == {"orchard", "cider", "pomme"}, "`fruit` is the key's word too"
    trained = " ".join(
        caption
        for line in _lines(tmp_path / "base")
        for caption in line["captions"]  # type: ignore[attr-defined]
    )
    assert not any(word in trained for word in apple["held_out"])


def test_the_same_packages_give_the_same_files_and_a_second_run_makes_none(
    packages: Path, tmp_path: Path
) -> None:
    build_icons(tmp_path / "a", packages, 32)
    build_icons(tmp_path / "b", packages, 32)
    first = {
        p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()
    }
    second = {
        p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()
    }
    assert first == second
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.png")}
    next(iter(times)).write_bytes(b"half a pict")
    broken = next(iter(times))
    build_icons(tmp_path / "a", packages, 32)
    assert broken.read_bytes() == first[broken.relative_to(tmp_path / "a")], "what was cut off is made again"
    assert all(p.stat().st_mtime_ns == time for p, time in times.items() if p != broken)


def test_captions_of_a_style_begin_with_its_trigger(packages: Path, tmp_path: Path) -> None:
    build_icons(tmp_path, packages, 32)
    for style, trigger in (("openmoji", "emoji"), ("cel", "2d art")):
        lines = _lines(tmp_path / "styles" / style)
        assert lines and all(c.startswith(f"{trigger}, ") for line in lines for c in line["captions"])  # type: ignore[attr-defined]
    base = _lines(tmp_path / "base")
    assert not any(c.startswith(("emoji, ", "2d art, ")) for line in base for c in line["captions"])  # type: ignore[attr-defined]


def test_another_size_in_the_same_folder_is_refused(packages: Path, tmp_path: Path) -> None:
    build_icons(tmp_path, packages, 32)
    with pytest.raises(InvalidInput, match="32 pixels, not 64"):
        build_icons(tmp_path, packages, 64)


def test_the_attribution_names_every_package_author_and_licence(packages: Path, tmp_path: Path) -> None:
    build_icons(tmp_path, packages, 32)
    text = (tmp_path / "ATTRIBUTION.md").read_text()
    for icon_set in SETS:
        assert f"`{icon_set.package.name}` {icon_set.package.version}" in text
        assert f"{icon_set.author}, {icon_set.licence}" in text
    assert "must be passed on under CC-BY-SA-4.0" in text


def test_an_icon_that_cannot_be_read_is_left_out_and_told(packages: Path, tmp_path: Path) -> None:
    package = SETS[0].package
    pack(
        packages / package.file_name,
        {"assets/1f34e.webp": b"RIFF....WEBPno", "assets/1f5dd.webp": webp("#808080")},
    )
    built = build_icons(tmp_path / "out", packages, 32)
    told = [each.split(":")[0] for each in built.failed]
    assert told == ["fluent-3d red apple", "cel red apple"], "two sets are made of the one package"


def test_what_is_hidden_under_transparency_does_not_show() -> None:
    pixels = on_white(webp("#ffffff"), 64)
    assert pixels.min() > 250, "no dark fringe of the black under the corners"
