"""`itemforge data process`: all pictures, once, whatever stopped it before."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from item_pictures import data, thing
from small_set import USABLE, refused, said, write_things

from itemforge.dataset.processed import Processed, all_processed
from itemforge.dataset.store import open_store
from polling import wait_until


def _known(items: Path) -> dict[str, Processed]:
    with open_store(items) as store:
        return all_processed(store)


def _bytes(items: Path) -> dict[str, bytes]:
    files = (path for path in (items / "processed").rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(items).as_posix(): path.read_bytes() for path in files}


def _named(items: Path, title: str) -> Processed:
    with open_store(items) as store:
        return next(
            made for sha, made in all_processed(store).items() if store.sources(sha)[0].title == title
        )


def test_every_picture_ends_made_flagged_or_aside_with_its_reason(items: Path) -> None:
    known = _known(items)
    assert len(known) == USABLE + 2
    copy = _named(items, "Iron Sword again.jpg")
    assert (copy.kept, copy.state) == (False, "ok") and not copy.usable
    apple, green = _named(items, "Red Apple.png"), _named(items, "Green Apple.png")
    assert apple.group == green.group and apple.kept and green.kept
    assert apple.held_out == green.held_out
    tiny = _named(items, "speck.png")
    assert (tiny.state, tiny.reason, tiny.picture, tiny.group) == ("aside", "too small", "", "")
    busy = _named(items, "busy.png")
    assert (busy.state, busy.reason) == ("flagged", "a background that is not plain")
    for made in known.values():
        for path in filter(None, (made.picture, made.cutout, made.mask, made.before)):
            assert (items / path).is_file()


def test_a_second_run_does_nothing_and_says_the_same(items: Path) -> None:
    with open_store(items) as store:
        times = store.db.execute("SELECT sha256, at FROM results").fetchall()
    before = {path: path.stat().st_mtime_ns for path in items.rglob("*.png")}
    told = said("data", "process", items)
    assert f"0 of {USABLE + 2} pictures were new" in told
    for line in ("set aside, too small: 1", "made, but flagged, a background that is not plain: 1"):
        assert line in told
    assert f"{USABLE} are for training and validation" in told and "1 of them variants" in told
    assert "1 more are copies" in told
    assert before == {path: path.stat().st_mtime_ns for path in items.rglob("*.png")}
    with open_store(items) as store:
        assert times == store.db.execute("SELECT sha256, at FROM results").fetchall()


def test_a_newcomer_is_grouped_with_what_is_there(items: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/key.png").write_bytes(data(thing(1, 300)))
    said("data", "import", items, tmp_path / "more")
    assert f"1 of {USABLE + 3} pictures were new" in said("data", "process", items)
    assert _named(items, "key.png").group == _named(items, "Golden Key.png").group
    assert [_named(items, name).kept for name in ("key.png", "Golden Key.png")] == [True, False], "the larger"


def test_settings_make_the_work_again_and_wrong_ones_are_told(items: Path) -> None:
    manifest = items / "dataset.toml"
    text = manifest.read_text()
    manifest.write_text(
        text.replace("size = 64", "size = 96").replace("validation = 0.1", "validation = 0.9")
    )
    assert f"{USABLE + 2} of {USABLE + 2}" in said("data", "process", items)
    from PIL import Image

    known = _known(items)
    with Image.open(items / next(each.picture for each in known.values() if each.usable)) as picture:
        assert picture.size == (96, 96)
    assert sum(each.held_out for each in known.values()) > USABLE / 2
    manifest.write_text(text.replace("margin = 0.0625", "margin = 0.7"))
    assert "margin is 0.7" in refused("data", "process", items)


def test_what_is_deleted_is_made_again(items: Path) -> None:
    before = _bytes(items)
    for path in list((items / "processed/pictures").iterdir())[:3]:
        path.unlink()
    assert f"3 of {USABLE + 2}" in said("data", "process", items)
    assert _bytes(items) == before


def test_an_original_that_changed_on_the_disk_is_set_aside(items: Path, tmp_path: Path) -> None:
    with open_store(items) as store:
        picture = next(p for p in store.pictures() if store.sources(p.sha256)[0].title == "Bell.png")
    made = _named(items, "Bell.png")
    (items / picture.file).write_bytes(data(thing(40)))
    (items / made.picture).unlink()
    said("data", "process", items)
    assert (_named(items, "Bell.png").state, _named(items, "Bell.png").reason) == ("aside", "damaged")


def test_the_report_names_the_items(items: Path) -> None:
    told = said("data", "process", items, "--report")
    page = (items / "processed/report.html").read_text()
    assert "report.html" in told and "Golden Key" in page and "Iron Sword again" in page


def test_a_folder_without_a_dataset_is_told_so_and_left_alone(tmp_path: Path) -> None:
    assert "there is no dataset in" in refused("data", "process", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    write_things(tmp_path / "things")
    said("data", "import", tmp_path / "fresh", tmp_path / "things")
    manifest = tmp_path / "fresh/dataset.toml"
    manifest.write_text(manifest.read_text().replace("size = 512", "size = 64"))
    yield tmp_path / "fresh"


@pytest.mark.parametrize("made", [1, 6, 15])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(fresh: Path, items: Path, made: int) -> None:
    command = [sys.executable, "-m", "itemforge", "data", "process", str(fresh), "--processes", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    records = fresh / "processed/records"
    try:
        wait_until(
            lambda: (
                process.poll() is not None or (records.is_dir() and len(list(records.glob("*.json"))) >= made)
            ),
            60,
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    said("data", "process", fresh, "--processes", "1")
    assert _bytes(fresh) == _bytes(items)
    assert _known(fresh) == _known(items)
