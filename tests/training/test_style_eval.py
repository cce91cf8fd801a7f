"""A style of the starter, from its set to the figures of `train eval-starter`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lora_set import tiny_lora, write_toml
from PIL import Image
from typer.testing import CliRunner

from itemforge.cli.app import app
from itemforge.errors import InvalidStyle
from itemforge.training.measures import signatures
from itemforge.training.starter_eval import Icons, Question
from itemforge.training.style_eval import kept_things, style_figures, styles_of


def _said(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_style_is_published_beside_the_model_and_measured(
    base: Path, icons: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ITEMFORGE_HOME", str(home))
    model = tmp_path / "model"
    shutil.copytree(base, model)
    told = tiny_lora(model, icons / "styles/openmoji", tmp_path)
    changed = {"name": "openmoji", "trigger": "emoji", "num_inference_steps": 4, "epochs": 1}
    config = write_toml(told.model_copy(update=changed), tmp_path / "c.toml")
    _said("train", "lora", "--cpu", "--config", str(config))
    said = _said("train", "publish", "--config", str(config), "--folder", str(model / "styles"))
    assert "openmoji@1 lies in" in said
    arguments = ("--data", str(icons), "--model", str(model), "--out", str(tmp_path / "eval"))
    text = _said("train", "eval-starter", *arguments)
    figures = {each["what"]: each for each in json.loads((tmp_path / "eval/figures.json").read_text())}
    styled = [what for what in figures if what.startswith("openmoji: ")]
    assert len(styled) == 4 and all(what in text for what in styled)
    assert figures["openmoji: dark outline pixels, times the base's"]["wanted"] == 2.0
    for name in ("sheet", "openmoji"):
        with Image.open(tmp_path / f"eval/{name}.png") as sheet:
            assert min(sheet.size) > 100
    assert "openmoji:" not in _said("train", "eval-starter", *arguments, "--no-styles")


def test_a_pack_without_its_lora_is_refused(base: Path, icons: Path, tmp_path: Path) -> None:
    (tmp_path / "cel.toml").write_text(
        f'id = "cel"\nversion = 1\n[lora]\nsource = "no.safetensors"\nsha256 = "{"a" * 64}"\n'
    )
    (tmp_path / "other.toml").write_text('id = "other"\nversion = 1\n')  # it has no set
    with pytest.raises(InvalidStyle, match="does not lie in"):
        list(styles_of(tmp_path, icons))


def test_pictures_of_the_set_are_nearer_to_it_but_a_set_without_a_look_of_its_own_has_no_ceiling() -> None:
    light = [np.full((32, 32, 3), 255 - 6 * n, np.uint8) for n in range(8)]
    dark = [np.full((32, 32, 3), 6 * n, np.uint8) for n in range(8)]
    icons = Icons(light, signatures(light), [str(n) for n in range(8)], ["x"] * 8)
    *nearer, outline = style_figures(light, dark, icons, dark)
    assert [(each.value, each.ceiling) for each in nearer] == [(1.0, 1.0)] * 2
    assert outline.value == outline.ceiling
    *nearer, _ = style_figures(light, light, icons, dark)
    assert [(each.value, each.ceiling) for each in nearer] == [(0.0, 1.0)] * 2
    nearest, *_ = style_figures(light, dark, icons, light)
    assert nearest.ceiling == 0.0, "each has its like among the base's"


def test_the_mean_over_a_set_is_not_led_by_one_picture_that_is_like_another() -> None:
    light, dark = (np.full((32, 32, 3), tone, np.uint8) for tone in (230, 20))
    icons = Icons([light, light, dark], signatures([light, light, dark]), ["a", "b", "c"], ["x"] * 3)
    own = [dark + np.uint8(n) for n in range(2, 6)]
    nearest, mean, _ = style_figures([light], [dark], icons, own)
    assert (nearest.value, mean.value) == (0.0, 1.0)


def test_a_thing_is_kept_if_its_icon_in_the_style_is_near() -> None:
    dice = np.random.default_rng(3)
    plain = [dice.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(12)]
    styled = [dice.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(12)]
    names = [str(n) for n in range(12)]
    icons, own = (Icons(each, signatures(each), names, ["x"] * 12) for each in (plain, styled))
    asked = [Question(name, name) for name in names]
    figure = kept_things(asked, plain, styled, icons, own)
    assert (figure.value, figure.wanted) == (1.0, pytest.approx(0.9))
    assert kept_things(asked, plain, plain[6:] + plain[:6], icons, own).value < 1.0
