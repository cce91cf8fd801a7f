"""The store by itself: two processes, stale edits, recipes, and a manifest in which every key counts."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from itemforge.dataset import store_captions, store_results
from itemforge.dataset.manifest import open_manifest
from itemforge.dataset.store import DATABASE, Picture, add_picture, now, open_store
from itemforge.dataset.store_queue import Found, add_found, done, entries, failed, open_entries
from itemforge.errors import ConfigurationError, InvalidInput, StaleEdit


def picture(digit: str) -> Picture:
    return Picture(digit * 64, digit * 40, "image/png", 3, 2, 10, now())


def test_a_change_made_from_an_old_version_is_refused(out: Path) -> None:
    with open_store(out) as store:
        with store.change() as db:
            add_picture(db, picture("a"))
        told = {"provider": "model", "prompt_version": "1"}
        save = store_captions.save_caption
        assert save(store, "a" * 64, {"object": "sword"}, **told, state="auto", who="model", seen=0) == 1
        assert save(store, "a" * 64, {"object": "axe"}, **told, state="edited", who="ann", seen=1) == 2
        with pytest.raises(StaleEdit):
            save(store, "a" * 64, {"object": "bow"}, **told, state="edited", who="bob", seen=1)
        kept = store_captions.caption(store, "a" * 64)
        assert kept is not None
        assert (kept.fields, kept.state, kept.version) == ({"object": "axe"}, "edited", 2)
        changes = store_captions.history(store, "a" * 64)
    assert [(each.who, each.before and each.before["fields"]) for each in changes] == [
        ("model", None),
        ("ann", {"object": "sword"}),
    ]


def test_another_recipe_makes_the_work_again(out: Path) -> None:
    with open_store(out) as store:
        with store.change() as db:
            add_picture(db, picture("a"))
            add_picture(db, picture("b"))
        store_results.save_result(store, "a" * 64, "process", "v1", "aside", {"n": 1}, "too small")
        assert store_results.without_result(store, "process", "v1") == ["b" * 64]
        assert store_results.without_result(store, "process", "v2") == ["a" * 64, "b" * 64]
        (result,) = store_results.results(store, "process")
        assert (result.state, result.reason, result.output) == ("aside", "too small", {"n": 1})


def test_a_picture_seen_twice_is_one_entry_with_two_sources(out: Path) -> None:
    found = [Found("http://w/a.png", "File:A.png", item, "P") for item in ("Axe", "Bow", "Axe")]
    with open_store(out) as store:
        add_found(store, found)
        (entry,) = open_entries(store)
        failed(store, entry.url, "HTTP 500")
        (entry,) = open_entries(store)
        assert (entry.state, entry.reason, entry.attempts) == ("failed", "HTTP 500", 1)
        path = store.path(picture("a"))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a")
        done(store, entry.url, picture("a"))
        add_found(store, [Found("http://w/a.png", "File:A.png", "Cup", "Q")])
        assert [source.item for source in store.sources("a" * 64)] == ["Axe", "Bow", "Cup"]


def test_processes_that_begin_and_write_at_once(out: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom itemforge.dataset.store import open_store\n"
        "from itemforge.dataset.store_queue import Found, add_found\n"
        "with open_store(Path(sys.argv[1])) as store:\n"
        "    for n in range(100):\n"
        "        add_found(store, [Found(f'http://w/{sys.argv[2]}/{n}', 'T', 'I', 'P')])\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(out), str(n)]) for n in range(3)]
    assert [each.wait(30) for each in running] == [0, 0, 0]
    with open_store(out) as store:
        assert len(entries(store, "waiting")) == 300


def test_a_dataset_of_a_newer_version_and_a_damaged_one_are_refused(out: Path, tmp_path: Path) -> None:
    with open_store(out) as store:
        store.db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer ItemForge"), open_store(out):
        pass
    (tmp_path / DATABASE).write_bytes(b"no database at all" * 100)
    with pytest.raises(InvalidInput, match="damaged"), open_store(tmp_path):
        pass


def test_a_change_that_fails_leaves_nothing(out: Path) -> None:
    with open_store(out) as store:
        with pytest.raises(sqlite3.IntegrityError), store.change() as db:
            add_picture(db, picture("a"))
            db.execute("INSERT INTO captions VALUES ('x', '{}', '', '', 'odd', 1, '')")
        assert store.pictures() == []


def test_a_database_that_cannot_be_written_says_so(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemforge.dataset.store._BUSY", 0.05)
    with open_store(out) as store, open_store(out) as other:
        with (
            other.change(),
            pytest.raises(ConfigurationError, match=r"locked.*end what else holds it"),
            store.change(),
        ):
            pass
        store.db.execute("PRAGMA max_page_count = 1")  # as a full disk
        with pytest.raises(ConfigurationError, match=r"full.*see to the disk"), store.change() as db:
            for digit in "abcdef":
                add_picture(db, picture(digit))
                db.execute("UPDATE pictures SET mime = ?", ("x" * 10_000,))
        assert not store.pictures()
        with pytest.raises(sqlite3.OperationalError, match="syntax"), store.change() as db:
            db.execute("NONSENSE")


def test_the_manifest_is_written_once_and_every_key_counts(out: Path) -> None:
    manifest = open_manifest(out)
    assert (manifest.trigger, manifest.size) == ("tsuki_advtr", 512)
    assert open_manifest(out) == manifest
    file = out / "dataset.toml"
    file.write_text('trigger = "t"\nsizes = 256\n')
    with pytest.raises(ConfigurationError, match="sizes is no setting; did you mean size"):
        open_manifest(out)
    file.write_text('trigger = "t"\ntemplate = "{trigger}, {name}"\n')
    with pytest.raises(ConfigurationError, match=r"\{name\} is no part of a caption"):
        open_manifest(out)
