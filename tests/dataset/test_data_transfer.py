"""`itemforge data import` and `export`: every layout out and in again, and nothing that harms either side."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from item_pictures import data, on, thing
from small_set import USABLE, refused, said, set_captions, states

from itemforge.dataset.naming import file_names
from itemforge.dataset.processed import all_processed
from itemforge.dataset.store import open_store
from itemforge.dataset.store_captions import captions, save_caption
from itemforge.training.captioned import read_samples

FORMATS = ("imagefolder", "sidecar", "kohya", "onetrainer", "seed-csv", "zip")
TEXTS = (
    "Tsuki's old lamp, made of brass, glowing, Side view",
    "a samoyed dog smiling",
    "red sword with leather grip, made of iron, front view",
    "this is a drum, with two sticks",
)


@pytest.fixture(scope="module")
def _ready(_processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = tmp_path_factory.mktemp("ready") / "items"
    shutil.copytree(_processed, items)
    manifest = items / "dataset.toml"
    manifest.write_text(manifest.read_text().replace("validation = 0.1", "validation = 0.3"))
    said("data", "process", items)
    said("data", "caption", items)
    set_captions(items)
    with open_store(items) as store:
        for text, one in zip(TEXTS, captions(store), strict=False):
            save_caption(
                store, one.sha256, {"object": "thing", "text": text}, provider="person", prompt_version="",
                state="approved", who="me", seen=one.version,
            )  # fmt: skip
    return items


@pytest.fixture
def ready(_ready: Path, tmp_path: Path) -> Path:
    """All approved, some with words that are no fields, some held out."""
    shutil.copytree(_ready, tmp_path / "items")
    return tmp_path / "items"


def _texts(folder: Path, layout: str, scratch: Path) -> set[str]:
    """All captions of an export, read without our own reader."""
    if layout == "zip":
        with zipfile.ZipFile(folder) as opened:
            opened.extractall(scratch)
        return _texts(scratch, "imagefolder", scratch)
    if layout == "imagefolder":
        lines = [line for path in folder.glob("*/metadata.jsonl") for line in path.read_text().splitlines()]
        return {json.loads(line)["text"] for line in lines}
    if layout == "seed-csv":
        with (folder / "metadata.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert all((folder / row["image_path"]).is_file() for row in rows)
        return {row["prompt"] for row in rows}
    return {path.read_text() for path in folder.rglob("*.txt")}


@pytest.mark.parametrize("layout", FORMATS)
def test_out_in_and_out_again_gives_the_same_captions(ready: Path, tmp_path: Path, layout: str) -> None:
    manifest = ready / "dataset.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("tsuki_advtr", "ink style"))
    said("data", "process", ready)
    ending = ".zip" if layout == "zip" else ""
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    told = said("data", "export", ready, "--out", first, "--format", layout)
    assert "pictures for training" in told and "left out, a copy of another: 1" in told
    before = _texts(first, layout, tmp_path / "a")
    assert len(before) == USABLE
    assert all(each.startswith("ink style, ") and each.endswith(", minimalist") for each in before)
    assert any("Tsuki's old lamp, made of brass, glowing, Side view" in each for each in before)

    brought = said("data", "import", tmp_path / "other", first)
    assert f"{USABLE} captions taken, approved" in brought and "trigger 'ink style'" in brought
    said("data", "process", tmp_path / "other")
    assert {state for state, _ in states(tmp_path / "other").values()} == {"approved"}
    said("data", "export", tmp_path / "other", "--out", second, "--format", layout)
    assert _texts(second, layout, tmp_path / "b") == before
    assert _sides(first, tmp_path / "a2") == _sides(second, tmp_path / "b2"), (
        "the split and the names are kept"
    )


def _sides(place: Path, scratch: Path) -> dict[str, str]:
    """Split by file name."""
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as opened:
            opened.extractall(scratch)
        place = scratch
    pictures = [path for path in place.rglob("*.png") if not path.stem.endswith("-masklabel")]
    found = {path.name: path.relative_to(place).parts[0] for path in pictures}
    assert set(found.values()) == {"train", "validation"}
    # A thing without a Latin letter is called by its sha256, which is another one after the way round.
    return {name: side for name, side in found.items() if "-" in name or not re.match("[0-9a-f]{16}", name)}


def test_a_foreign_set_tells_its_own_trigger_and_tail(tmp_path: Path) -> None:
    folder = tmp_path / "kohya/img/5_pastel"
    folder.mkdir(parents=True)
    for number, name in enumerate(("key", "Sword, old", "lamp", "drum")):
        (folder / f"{number}.png").write_bytes(data(thing(number)))
        (folder / f"{number}.caption").write_text(f"pstl, {name}, white background, flat\nanother line")
    told = said("data", "import", tmp_path / "new", tmp_path / "kohya", "--licence", "CC0")
    assert "(kohya)" in told and "trigger 'pstl', tail 'white background, flat'" in told
    assert "4 have more captions; the first one is taken" in told
    said("data", "process", tmp_path / "new")
    said("data", "export", tmp_path / "new", "--out", tmp_path / "out", "--format", "kohya", "--repeats", 3)
    folders = {
        path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")
    }
    assert folders <= {"train/3_pstl", "validation/1_pstl"}
    assert _texts(tmp_path / "out", "kohya", tmp_path) == {
        f"pstl, {name}, white background, flat" for name in ("key", "Sword, old", "lamp", "drum")
    }
    with (tmp_path / "out/ATTRIBUTION.csv").open(newline="") as file:
        assert {row["licence"] for row in csv.DictReader(file)} == {"CC0"}


def test_a_dataset_with_settings_keeps_them_and_persons_words_stay(ready: Path, tmp_path: Path) -> None:
    said("data", "export", ready, "--out", tmp_path / "out", "--format", "sidecar")
    with open_store(ready) as store:
        one = next(s for s, made in all_processed(store).items() if made.usable)
        picture = store.picture(one)
        assert picture is not None
        raw = store.path(picture)
        words = {each.sha256: each.fields for each in captions(store)}
    (tmp_path / "more").mkdir()
    shutil.copy(raw, tmp_path / "more/x.png")
    (tmp_path / "more/x.txt").write_text("pstl, another thing")
    told = said("data", "import", ready, tmp_path / "more")
    assert "0 new" in told and "1 have another caption by a person" in told
    with open_store(ready) as store:
        assert words == {each.sha256: each.fields for each in captions(store)}


def test_only_what_is_approved_goes_out_unless_it_is_said(items: Path, tmp_path: Path) -> None:
    assert "approve captions, or say --state" in refused("data", "export", items, "--out", tmp_path / "o")
    said("data", "caption", items)
    assert not (tmp_path / "o").exists()
    with open_store(items) as store:
        some = captions(store)[:4]
        for one, state in zip(some, ("approved", "approved", "edited", "rejected"), strict=True):
            save_caption(
                store,
                one.sha256,
                one.fields,
                provider="",
                prompt_version="",
                state=state,
                who="me",
                seen=one.version,
            )
    counts = []
    for number, state in enumerate(("approved", "approved,edited", "all", "rejected")):
        told = said("data", "export", items, "--out", tmp_path / str(number), "--state", state)
        counts.append(len([p for p in (tmp_path / str(number)).rglob("*.png")]))
        if state == "approved":
            assert f"left out, caption auto: {USABLE - 4}" in told and "left out, caption rejected: 1" in told
    assert counts == [2, 3, USABLE - 1, 1]
    assert "none of auto, edited" in refused(
        "data", "export", items, "--out", tmp_path / "x", "--state", "good"
    )


def test_names_are_safe_and_unique_and_masks_go_along(ready: Path, tmp_path: Path) -> None:
    said("data", "export", ready, "--out", tmp_path / "o", "--format", "onetrainer")
    names = {path.stem for path in (tmp_path / "o").rglob("*.txt")}
    assert {"iron-sword", "golden-key", "fee", "con-item"} <= names and len(names) == USABLE
    assert all(name.isascii() and name == name.lower() and " " not in name for name in names)
    masks = list((tmp_path / "o").rglob("*-masklabel.png"))
    assert len(masks) == USABLE
    items = {
        "a" * 64: "../../etc/passwd",
        "b" * 64: "COM1",
        "c" * 64: "x" * 300,
        "d" * 64: "ETC passwd",
        "e" * 64: "\0",
    }
    made = file_names(items)
    assert made["a" * 64] == "etc-passwd-aaaaaaaa" and made["d" * 64] == "etc-passwd-dddddddd"
    assert made["b" * 64] == "com1-item" and len(made["c" * 64]) == 80 and made["e" * 64] == "e" * 16


@pytest.mark.parametrize("layout", ["imagefolder", "sidecar", "seed-csv", "kohya"])
def test_masks_never_lie_among_pictures(ready: Path, tmp_path: Path, layout: str) -> None:
    said("data", "export", ready, "--out", tmp_path / "o", "--format", layout, "--masks")
    files = list((tmp_path / "o").rglob("*.png"))
    masks = [path for path in files if path.parent.name == "masks"]
    assert len(masks) == USABLE and len(files) == 2 * USABLE
    assert all((path.parents[1] / path.name).is_file() for path in masks)
    told = said("data", "import", tmp_path / "back", tmp_path / "o")
    assert f"{USABLE} pictures found ({layout})" in told and f"{USABLE} have a mask" in told


@pytest.mark.parametrize("layout", ["imagefolder", "sidecar", "seed-csv", "onetrainer"])
def test_training_reads_what_was_exported(ready: Path, tmp_path: Path, layout: str) -> None:
    said("data", "export", ready, "--out", tmp_path / "o", "--format", layout, "--masks")
    samples = read_samples(tmp_path / "o")
    assert len(samples) == USABLE and all(each.mask and each.captions for each in samples)
    own = {each.captions: each.held_out for each in read_samples(ready)}
    assert {each.captions: each.held_out for each in samples} == own


@pytest.mark.parametrize("masks", [False, True])
def test_huggingface_datasets_loads_it(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    said("data", "export", ready, "--out", tmp_path / "o", *(["--masks"] if masks else []))
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "o"), cache_dir=str(tmp_path / "hf")
    )
    assert set(loaded) == {"train", "validation"}
    rows = [row for split in loaded.values() for row in split]
    assert len(rows) == USABLE and {row["text"] for row in rows} == _texts(
        tmp_path / "o", "imagefolder", tmp_path
    )
    assert all(row["image"].size == (64, 64) and row["image"].mode == "RGB" for row in rows)
    if masks:
        assert all(row["mask"].size == (64, 64) for row in rows)


def test_an_export_replaces_itself_and_nothing_else(ready: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    said("data", "export", ready, "--out", out, "--format", "sidecar")
    for kind in ("writing", "old"):  # of a process that was killed
        (tmp_path / f".o.{'0' * 32}.{kind}").mkdir()
    said("data", "export", ready, "--out", out, "--format", "kohya")
    assert not list(out.glob("train/*.png")) and list(out.glob("train/10_tsuki_advtr/*.png"))
    (out / "notes.txt").write_text("mine")
    assert "notes.txt in" in refused("data", "export", ready, "--out", out)
    (out / "notes.txt").unlink()
    caption = next(out.rglob("*.txt"))
    caption.write_text("edited by hand")
    assert "not as the export made it" in refused("data", "export", ready, "--out", out)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "x").write_text("mine")
    assert "no export made it" in refused("data", "export", ready, "--out", foreign)
    assert "no export made it" in refused("data", "export", ready, "--out", ready)
    (tmp_path / "f.zip").write_text("mine")
    assert "no archive" in refused("data", "export", ready, "--out", tmp_path / "f.zip", "--format", "zip")
    assert (foreign / "x").read_text() == (tmp_path / "f.zip").read_text() == "mine"
    assert caption.read_text() == "edited by hand"
    assert {path.name for path in tmp_path.iterdir()} == {"items", "o", "foreign", "f.zip", ".home"}


def test_the_same_set_gives_the_same_archive(ready: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b"):
        said("data", "export", ready, "--out", tmp_path / name, "--format", "zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_export_that_fails_leaves_the_old_one(ready: Path, tmp_path: Path) -> None:
    said("data", "export", ready, "--out", tmp_path / "o")
    before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}
    next((ready / "processed/pictures").iterdir()).unlink()
    for path in list((ready / "processed/pictures").iterdir())[1:]:
        path.unlink()
    assert "is missing; `itemforge data process" in refused("data", "export", ready, "--out", tmp_path / "o")
    assert before == {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}


def test_attribution_says_whose_it_is_and_no_spreadsheet_runs_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [
        {"file": "a.png", "item": "=HYPERLINK(1)", "source": "https://w.example/a", "uploader": "Ann", "licence": "CC BY"},
        {"file": "b.png", "item": "'quoted", "source": "javascript:alert(1)", "uploader": "@bob", "licence": ""},
    ]  # fmt: skip
    with (folder / "ATTRIBUTION.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "item", "source", "uploader", "licence"])
        writer.writeheader()
        writer.writerows(rows)
    for number, name in enumerate(("a.png", "b.png")):
        (folder / name).write_bytes(data(thing(number)))
    said("data", "import", tmp_path / "d", folder)
    said("data", "process", tmp_path / "d")
    set_captions(tmp_path / "d")
    said("data", "export", tmp_path / "d", "--out", tmp_path / "o")
    with (tmp_path / "o/ATTRIBUTION.csv").open(newline="") as file:
        told = {row["item"]: row for row in csv.DictReader(file)}
    assert set(told) == {"'=HYPERLINK(1)", "''quoted"}
    assert told["'=HYPERLINK(1)"]["source"] == "https://w.example/a"
    assert told["''quoted"]["source"] == "import:set/b.png" and told["''quoted"]["uploader"] == "'@bob"


def _zip(path: Path, members: dict[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(member, content)
    return path


PNG = data(thing(1))


@pytest.mark.parametrize(
    ("members", "mode", "why"),
    [
        ({"../evil.png": PNG}, 0o100644, "leads elsewhere"),
        ({"a/../../evil.png": PNG}, 0o100644, "leads elsewhere"),
        ({"/evil.png": PNG}, 0o100644, "leads elsewhere"),
        ({"..\\evil.png": PNG}, 0o100644, "leads elsewhere"),
        ({"C:\\evil.png": PNG}, 0o100644, "leads elsewhere"),
        ({"link.png": b"/etc/passwd"}, 0o120777, "leads elsewhere"),
        ({"x" * 300 + ".png": PNG}, 0o100644, "too long"),
        ({"bomb.png": b"\0" * (65 * 1024**2)}, 0o100644, "more than is allowed"),
        (
            {"train/metadata.jsonl": b'{"file_name": "../../../dataset.toml", "text": "x"}'},
            0o100644,
            "outside",
        ),
        ({"readme.md": b"x"}, 0o100644, "no pictures"),
    ],
    ids=["dots", "dots within", "root", "backslash", "drive", "link", "name", "bomb", "metadata", "nothing"],
)
def test_a_harmful_archive_changes_nothing(
    items: Path, tmp_path: Path, members: dict[str, bytes], mode: int, why: str
) -> None:
    before = {path for path in tmp_path.rglob("*") if "dataset.sqlite" not in path.name}
    archive = _zip(tmp_path / "evil.zip", members, mode)
    assert why in refused("data", "import", items, archive)
    archive.unlink()
    assert {path for path in tmp_path.rglob("*") if "dataset.sqlite" not in path.name} == before


def test_archives_that_are_none_or_damaged_are_told(items: Path, tmp_path: Path) -> None:
    whole = _zip(tmp_path / "w.zip", {"set/a.png": PNG, "set/a.txt": b"tsuki_advtr, a key"})
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-60])
    assert "cannot be unpacked" in refused("data", "import", items, tmp_path / "cut.zip")
    (tmp_path / "t.bin").write_text("x")
    assert "neither a picture nor a zip" in refused("data", "import", items, tmp_path / "t.bin")
    assert "there is no" in refused("data", "import", items, tmp_path / "none")
    assert "1 captions taken" in said("data", "import", items, whole)
    said("data", "import", items, _zip(tmp_path / "e.zip", {"\x1b[31mred.png": data(thing(60))}))
    assert "\x1b" not in (text := refused("data", "doctor", items)) and "red" in text
    assert "can be read as kohya" in refused("data", "import", items, whole, "--format", "kohya")


def test_single_pictures_are_taken_with_what_lies_beside(items: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"new{number}.png").write_bytes(data(on(thing(50 + number), (255, 255, 255))))
    (tmp_path / "new1.txt").write_text("tsuki_advtr, a map, white background")
    told = said("data", "import", items, tmp_path / "new1.png", tmp_path / "new2.png", "--state", "auto")
    assert "2 pictures found (picture), 2 new" in told and "1 captions taken, auto" in told
    assert [state for state, _ in states(items).values()] == ["auto"]


def test_pictures_of_one_name_and_bad_files_do_not_disturb_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number, side in enumerate(("a", "b")):
        (folder / side).mkdir(parents=True)
        (folder / side / "x.png").write_bytes(data(thing(number)))
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes(PNG[: len(PNG) // 2])
    (folder / "huge.png").write_bytes(PNG[:100] + b"\0" * (65 * 1024**2))
    told = said("data", "import", tmp_path / "d", folder)
    assert "5 pictures found" in told and "2 new" in told
    assert "not taken, larger than 64 MiB: 1" in told and "not taken, no PNG" in told
    assert not list((tmp_path / "d").glob(".import*"))
