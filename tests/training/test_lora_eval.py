"""`itemforge train eval`, from checkpoints to the page and to what is published."""

import asyncio
import json
import re
from pathlib import Path

import pytest
import wandb
from lora_set import tiny_lora, write_toml
from typer.testing import CliRunner

from itemforge.cli.app import app
from itemforge.engine.rows import LoraRef
from itemforge.errors import InvalidInput
from itemforge.storage.folder import FolderStore
from itemforge.styles.catalog import Catalog
from itemforge.training.judge import Figures
from itemforge.training.lora_eval import (
    Candidate,
    Judged,
    choose,
    find_candidates,
    read_best,
    read_weights,
)


def _said(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(base: Path, pictures: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of a run of two epochs that holds two pictures out."""
    folder = tmp_path_factory.mktemp("trained")
    told = tiny_lora(base, pictures, folder)
    changed = told.model_copy(
        update={"learning_rate": 3e-2, "validation": 0.5, "template": "{prompt}, icon", "licence": "CC0-1.0"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITEMFORGE_HOME", str(home))
        _said("train", "lora", "--cpu", "--config", str(write_toml(changed, folder / "c.toml")))
    return folder / "c.toml"


@pytest.fixture(autouse=True)
def environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ITEMFORGE_HOME", str(home))
    monkeypatch.setenv("ITEMFORGE_STORAGE_URL", (tmp_path / "objects").as_uri())
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # another test's client may have read its environment already, and reads it once
    return tmp_path / "objects"


def test_every_checkpoint_is_compared_and_the_best_is_published(
    trained: Path, home: Path, tmp_path: Path, environment: Path
) -> None:
    run = trained.parent / "run"
    doctor = re.search(r"(\d+) for validation", _said("data", "doctor", "--config", str(trained)))
    held_out = int(doctor[1]) if doctor else 0
    assert held_out > 0
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a gold <thing> --s 3\na teal thing --s 3 --d 5\n")
    arguments = ("train", "eval", "--config", str(trained), "--weights", "0.5,1", "--prompts", str(prompts))
    said = _said(*arguments, "--captions", "9")
    page = (run / "eval/report.html").read_text()
    grid = page[page.index("class=grid") :]
    candidates, asked = 2 * 2 * 2, 2 + held_out  # epochs, raw and ema, weights; prompts, captions
    assert f"{candidates} candidates, {asked} prompts" in page
    assert len(re.findall(r"id=p\d+-\d+ ", grid)) == candidates * asked
    assert len(re.findall(r"id=base-\d+ ", grid)) == asked
    assert "a gold &lt;thing&gt;" in page and "a gold <thing>" not in page
    assert "http" not in re.sub(r"data:[^']+", "", page)  # it needs nobody
    best = json.loads((run / "eval/best.json").read_text())
    assert best["name"] in said and best["figures"]["copied"] is not None

    drawn = {path: path.stat().st_mtime_ns for path in (run / "eval/pictures").rglob("*.png")}
    assert len(drawn) == (candidates + 1) * asked
    _said(*arguments, "--captions", "9")
    assert drawn == {path: path.stat().st_mtime_ns for path in (run / "eval/pictures").rglob("*.png")}

    said = _said("train", "publish", "--config", str(trained), "--wandb", "items")
    assert f"{best['file']}, weight {best['weight']:g}" in said and "W&B artifact style-tsuki" in said
    assert list((run / "shared").glob("wandb/offline-run-*"))
    shared = run / "shared/tsuki@1"
    assert (shared / "tsuki.safetensors").read_bytes() == Path(best["file"]).read_bytes()
    assert "instance_prompt: tsuki_advtr" in (shared / "README.md").read_text()
    made = asyncio.run(_pack(environment, home))
    assert (made.loras[0].sha256, made.loras[0].weight) == (best["sha256"], best["weight"])


async def _pack(objects: Path, home: Path):  # type: ignore[no-untyped-def]
    return await Catalog(FolderStore(objects), home).get("tsuki")


def test_a_checkpoint_that_changed_since_is_not_published(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"other")
    best = tmp_path / "best.json"
    best.write_text(json.dumps({"file": str(file), "sha256": "0" * 64, "weight": 1}))
    with pytest.raises(InvalidInput, match="not what was evaluated"):
        read_best(best)
    best.write_text("{")
    with pytest.raises(InvalidInput, match="evaluate again"):
        read_best(best)
    assert read_best(tmp_path / "none.json") is None


def test_candidates_are_every_so_many_epochs_and_the_last(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 4, 5):
        for kind in ("raw", "ema"):
            folder = tmp_path / f"checkpoints/{epoch:03d}-{kind}"
            folder.mkdir(parents=True)
            (folder / f"x-{epoch:03d}.safetensors").write_bytes(b"")
            (folder / "lora_adapter.safetensors").write_bytes(b"")
    found = find_candidates(tmp_path, [1.0], every=2)
    assert [(each.epoch, each.kind) for each in found] == [(e, k) for e in (2, 4, 5) for k in ("ema", "raw")]
    assert {each.lora.path.name for each in found} == {f"x-00{n}.safetensors" for n in (2, 4, 5)}
    with pytest.raises(InvalidInput, match="train the LoRA first"):
        find_candidates(tmp_path / "other", [1.0])


def _judged(epoch: int, style: float, copied: float | None, weight: float = 1.0) -> Judged:
    lora = LoraRef(Path("x"), "0", weight)
    return Judged(Candidate(epoch, "ema", weight, lora), Figures(0, None, copied, {}), [], style, None)


def test_the_best_is_honest_early_and_not_better_than_real() -> None:
    assert choose([_judged(1, 0.5, 0.5), _judged(2, 0.7, 0.5)]).candidate.epoch == 2
    assert choose([_judged(1, 0.5, 0.5), _judged(2, 0.9, 0.9)]).candidate.epoch == 1  # it copies
    assert choose([_judged(1, 0.5, 0.9), _judged(2, 0.9, 0.9)]).candidate.epoch == 2  # all do
    assert choose([_judged(1, 1.0, None), _judged(2, 1.4, None)]).candidate.epoch == 1
    assert choose([_judged(1, 0.5, None, 1.0), _judged(1, 0.5, None, 0.6)]).candidate.weight == 0.6


def test_weights_are_numbers() -> None:
    assert read_weights("0.6,1") == [0.6, 1.0]
    for text in ("", "a", "0.6,0", "9"):
        with pytest.raises(InvalidInput, match="write numbers"):
            read_weights(text)
