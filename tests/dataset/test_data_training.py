"""From pictures to a LoRA by the commands alone, and what the doctor says on the way."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from fake_wiki import FakeWiki
from item_pictures import data, thing
from small_set import USABLE, refused, said, set_captions

from itemforge.dataset.manifest import open_manifest
from itemforge.dataset.processed import Processed, all_processed, save_processed
from itemforge.dataset.steps.processing import recipe_label
from itemforge.dataset.store import open_store
from itemforge.dataset.store_captions import captions, save_caption
from itemforge.training.captioned import read_samples


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Accelerate keeps its precision for a whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def wiki() -> Iterator[FakeWiki]:
    served = FakeWiki()
    yield served
    served.close()


def _config(folder: Path, data_folder: Path, trigger: str = "tsuki_advtr", **more: object) -> Path:
    told = {
        "name": "tiny", "base": "starter", "data": str(data_folder), "run": str(folder / "run"), "trigger": trigger,
        "size": 64, "rank": 4, "alpha": 4.0, "optimizer": "adamw", "learning_rate": 1e-3, "restarts": 1, "warmup": 1,
        "min_snr_gamma": 5.0, "noise_offset": 0.0, "ema": 0.9, "clip": 1.0, "batch_size": 4, "accumulation": 1,
        "epochs": 1, "precision": "float32", "seed": 1, "validation": 0.0, "flip": False, **more,
    }  # fmt: skip
    path = folder / "lora.toml"
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in told.items()))
    return path


def test_from_a_wiki_to_a_lora(wiki: FakeWiki, tmp_path: Path) -> None:
    names = ("Iron Sword.png", "Golden Key.png", "Red Apple.png", "Old Map.png", "Bell.png", "Drum.png")
    for number, name in enumerate(names):
        wiki.add(name, data(thing(number, 100)), category="Category:Items")
    items = tmp_path / "items"
    crawled = ("--out", items, "--contact", "tests@example.org", "--delay", 0, "--allow-private")
    said("data", "crawl", f"{wiki.url}/wiki/Category:Items", *crawled)
    manifest = items / "dataset.toml"
    manifest.write_text(
        manifest.read_text()
        .replace("size = 512", "size = 64")
        .replace("validation = 0.1", "validation = 0.3")
    )
    text = refused("data", "doctor", items)
    assert "6 × not processed" in text and f"itemforge data process {items}" in text
    said("data", "process", items)
    assert "6 × no caption" in refused("data", "doctor", items)
    said("data", "caption", items)
    assert "6 × caption auto, not approved" in refused("data", "doctor", items)
    config = _config(tmp_path, items)
    assert "no caption of" in refused("train", "lora", "--cpu", "--config", config)
    set_captions(items)
    told = said("data", "doctor", items)
    with open_store(items) as store:
        held = sum(each.held_out for each in all_processed(store).values())
    assert f"{6 - held} pictures to train on, {held} for validation" in told

    other = _config(tmp_path, items, "other_style")
    assert "make them the same" in refused("data", "doctor", "--config", other)
    config = _config(tmp_path, items)
    assert f"{6 - held} pictures to train on, {held} for validation" in said(
        "data", "doctor", "--config", config
    )
    assert "the LoRA is in" in said("train", "lora", "--cpu", "--config", config)
    assert (tmp_path / "run/lora/tiny.safetensors").is_file()


def test_training_takes_the_approved_with_their_masks_and_sides(items: Path) -> None:
    manifest = items / "dataset.toml"
    manifest.write_text(manifest.read_text().replace("validation = 0.1", "validation = 0.4"))
    said("data", "process", items)
    said("data", "caption", items)
    set_captions(items)
    with open_store(items) as store:
        left = captions(store)[0]
        save_caption(
            store,
            left.sha256,
            left.fields,
            provider="",
            prompt_version="",
            state="edited",
            who="me",
            seen=left.version,
        )
        known = all_processed(store)
    samples = read_samples(items)
    assert len(samples) == USABLE - 1
    by_picture = {f"{items}/{made.picture}": made for made in known.values()}
    for sample in samples:
        made = by_picture[str(sample.path)]
        assert sample.held_out == made.held_out and sample.mask == items / made.mask
        assert made.sha256 != left.sha256 and sample.captions[0].startswith("tsuki_advtr, ")
    assert {sample.held_out for sample in samples} == {True, False}
    manifest.write_text(manifest.read_text().replace("tsuki_advtr", "pstl"))
    assert all(sample.captions[0].startswith("pstl, ") for sample in read_samples(items))


def test_the_doctor_tells_everything_and_how_to_mend_it(items: Path) -> None:
    said("data", "caption", items)
    set_captions(items)
    assert "flagged" not in said("data", "doctor", items), "an approved one is decided"
    told = said("data", "doctor", items)
    assert "note: 1 × set aside, too small: speck" in told
    assert f"note: {USABLE} × no licence is known" in told
    manifest = open_manifest(items)
    with open_store(items) as store:
        known = [made for made in all_processed(store).values() if made.usable]
        groups = [made for made in known if sum(each.group == made.group for each in known) == 2]
        busy = next(made for made in known if made.state == "flagged")
        _set(items, busy.sha256, "auto", {"object": "busy"})
        _set(items, known[0].sha256, "approved", {"object": "thing", "text": "very " * 90})
        changed = groups[0].__dict__ | {"held_out": not groups[0].held_out}
        save_processed(store, Processed(**changed), recipe_label(manifest))
        picture = store.picture(groups[1].sha256)
        assert picture is not None
        store.path(picture).unlink()
        (items / groups[1].mask).unlink()
    text = refused("data", "doctor", items)
    for line in (
        "1 × flagged, a background that is not plain: busy",
        "approve or reject it: itemforge data review",
        "1 × caption auto, not approved",
        "2 × variants of one thing in training and in validation",
        "1 × the original is missing",
        "1 × the processed picture is missing",
        "note: 1 × a caption of more than 75 tokens, shortened",
    ):
        assert line in text
    settings = items / "dataset.toml"
    settings.write_text(
        settings.read_text()
        .replace("{trigger}, {description}", "{description}, {trigger}")
        .replace("= 64", "= 72")
    )
    text = refused("data", "doctor", items)
    assert "the trigger is not first" in text and "processed by other settings than dataset.toml's" in text


def _set(items: Path, sha256: str, state: str, fields: dict[str, str]) -> None:
    with open_store(items) as store:
        seen = next(each.version for each in captions(store) if each.sha256 == sha256)
        save_caption(
            store, sha256, fields, provider="", prompt_version="", state=state, who="me", seen=seen  # type: ignore[arg-type]
        )  # fmt: skip


def test_the_doctor_needs_something_to_look_at(tmp_path: Path) -> None:
    assert "name a dataset's folder" in refused("data", "doctor")
    assert "there is no dataset in" in refused("data", "doctor", tmp_path)
