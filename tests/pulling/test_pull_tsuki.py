"""The pack `tsuki`: pulled, found by LocalPacks, and drawn with on the starter."""

from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub
from model_files import UNNEEDED, lora, sd15, write
from safetensors.torch import save_file
from typer.testing import CliRunner

from itemforge.cli.app import app
from itemforge.errors import ConfigurationError, InvalidInput, ModelError
from itemforge.imaging.png import read_recipe as read_recipe_of
from itemforge.pulling.recipe import pull_pack, read_recipe
from itemforge.pulling.source import PACKS, PackSource, parse_model_source
from itemforge.styles.files import file_sha256
from itemforge.styles.local import LocalPacks
from itemforge.styles.models import base_sha256, find_model, safetensors_header, starter_dir, weight_files

TSUKI = PackSource("tsuki")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write(tmp_path, {"adapter.safetensors": lora()}) / "adapter.safetensors"


@pytest.fixture
def starter_lora(tmp_path: Path) -> Path:
    """A LoRA for the starter's attention, in diffusers' layout."""
    files = [file for file in weight_files(starter_dir() / "unet") if file.suffix == ".safetensors"]
    tensors = {}
    for key, tensor in (each for file in files for each in safetensors_header(file).items()):
        if key.endswith("to_q.weight"):
            stem, (out, into) = f"unet.{key.removesuffix('.weight')}", tensor["shape"]
            tensors |= {
                f"{stem}.lora_A.weight": torch.ones(2, into) / into,
                f"{stem}.lora_B.weight": torch.ones(out, 2),
            }
    assert tensors
    save_file(tensors, tmp_path / "made.safetensors")
    return tmp_path / "made.safetensors"


def test_every_pack_has_a_recipe() -> None:
    for name in PACKS:
        recipe = read_recipe(name)
        assert recipe.id == name
        parse_model_source(recipe.lora)
    tsuki = read_recipe("tsuki")
    assert tsuki.base == "sd15"
    assert tsuki.lora.startswith("wandb:hienntt-0109/sd1.5-lora-tsuki/lora-adapter-epoch-20-xjdg9lfg:v0/")


def test_the_pack_brings_base_and_lora(hub: FakeHub, home: Path, means, adapter: Path) -> None:
    pulled = pull_pack(TSUKI, means(), lora=str(adapter))
    local = LocalPacks(home).find("tsuki")
    assert local is not None
    assert local.pack == pulled.pack
    assert local.pack.name == "tsuki@1"
    assert local.pack.base == base_sha256(find_model("sd15", home))
    assert local.pack.loras[0].sha256 == file_sha256(adapter)
    found = local.lora_file(local.pack.loras[0])
    assert found is not None
    assert found.read_bytes() == (home / "loras/tsuki.safetensors").read_bytes() == adapter.read_bytes()
    assert local.pack.compose("a dog") == (
        "tsuki_advtr, a dog, white background, thick outlines, pastel color, cartoon style, hand-drawn, 2D icon, "
        "game item, 2D game style, minimalist"
    )


def test_a_repeated_pull_changes_nothing(hub: FakeHub, home: Path, means, adapter: Path) -> None:
    pull_pack(TSUKI, means(), lora=str(adapter))
    before, sent = {p: p.stat().st_mtime_ns for p in (home / "styles").rglob("*")}, hub.total()
    again = pull_pack(TSUKI, means(), lora=str(adapter))
    assert again.pack.version == 1
    assert not again.lora.fresh
    assert {p: p.stat().st_mtime_ns for p in (home / "styles").rglob("*")} == before
    assert hub.total() == sent


def test_another_lora_is_another_version_and_the_old_one_stays(home: Path, means, tmp_path: Path) -> None:
    write(tmp_path, {"one.safetensors": lora(), "two.safetensors": lora(seed=4)})
    pull_pack(TSUKI, means(), lora=str(tmp_path / "one.safetensors"), base="starter")
    second = pull_pack(TSUKI, means(), lora=str(tmp_path / "two.safetensors"), base="starter")
    assert second.pack.version == 2
    packs = LocalPacks(home)
    for name, data in (("tsuki@1", lora()), ("tsuki@2", lora(seed=4)), ("tsuki", lora(seed=4))):
        local = packs.find(name)
        assert local is not None
        file = local.lora_file(local.pack.loras[0])
        assert file is not None
        assert file.read_bytes() == data


def test_without_the_key_for_the_lora_no_base_is_downloaded(hub: FakeHub, home: Path, means) -> None:
    def refuses(reference: str, into: Path, choose: object, api_key: str | None) -> None:
        raise ConfigurationError(f"{reference} wants WANDB_API_KEY")

    with pytest.raises(ConfigurationError, match="tsuki/lora-adapter-epoch-20-xjdg9lfg:v0 wants"):
        pull_pack(TSUKI, means(artifact=refuses))
    assert hub.seen == []


def test_a_base_that_was_put_there_by_hand_is_used(hub: FakeHub, home: Path, means, adapter: Path) -> None:
    write(home / "models/sd15", {name: data for name, data in sd15().items() if name not in UNNEEDED})
    pulled = pull_pack(TSUKI, means(), lora=str(adapter))
    assert pulled.base is None
    assert pulled.pack.base == base_sha256(home / "models/sd15")
    assert hub.seen == []


def test_a_model_is_no_lora_and_a_source_is_no_base(home: Path, means, tmp_path: Path, adapter: Path) -> None:
    folder = write(tmp_path / "model", sd15())
    with pytest.raises(ModelError, match="LoRA is needed"):
        pull_pack(TSUKI, means(), lora=str(folder), base="starter")
    with pytest.raises(InvalidInput, match="by itself first"):
        pull_pack(TSUKI, means(), lora=str(adapter), base="hf:a/b")
    with pytest.raises(ModelError, match="no model 'none'"):
        pull_pack(TSUKI, means(), lora=str(adapter), base="none")
    assert not list(home.glob("styles/**/*.toml"))
    assert not list(home.glob("loras/*.safetensors"))


def test_the_setting_names_the_lora_and_the_style_draws(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starter_lora: Path
) -> None:
    monkeypatch.setenv("ITEMFORGE_TSUKI_LORA", str(starter_lora))
    done = CliRunner().invoke(app, ["models", "pull", "tsuki", "--base", "starter"])
    assert done.exit_code == 0, done.output
    assert "--style tsuki --model starter" in done.output
    out = tmp_path / "apple.png"
    asked = ["generate", "an apple", "--style", "tsuki", "--model", "starter", "--device", "cpu"]
    done = CliRunner().invoke(app, [*asked, "--seed", "7", "--steps", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    recipe = read_recipe_of(out.read_bytes())
    assert [lora.sha256 for lora in recipe.loras] == [file_sha256(starter_lora)]
    assert recipe.prompt.startswith("tsuki_advtr, an apple, white background")
    assert recipe.base == base_sha256(starter_dir())
