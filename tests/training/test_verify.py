"""A LoRA file is what other programs will take it for, or the verdict says that it is not."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from itemforge.engine.model import load_model
from itemforge.errors import InvalidInput, ModelError
from itemforge.training.lora_config import LoraConfig
from itemforge.training.lora_files import Story, factors_of, write_files
from itemforge.training.lora_stage import add_lora
from itemforge.training.verify import verify

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that nobody trained: random, and strong enough to be seen."""
    folder = tmp_path_factory.mktemp("lora")
    config = LoraConfig(
        name="s", base=str(base), data=folder, run=folder, trigger="trg", size=32, rank=4, alpha=2.0,
        optimizer="adamw", learning_rate=1e-4, restarts=1, warmup=0, min_snr_gamma=5.0, noise_offset=0.0, ema=0.9,
        clip=0.5, batch_size=1, accumulation=1, epochs=1, precision="float32", seed=1, validation=0.0, flip=False,
    )  # fmt: skip
    unet = load_model(base, CPU, torch.float32).parts.unet
    for parameter in add_lora(unet, config):
        torch.nn.init.normal_(parameter, std=0.3)
    write_files(factors_of(unet, 2.0), config, Story(1, 0, 1, 1, 0.0, {}, "d", "b"), folder)
    return folder


@pytest.mark.parametrize(
    "name", ["s.safetensors", "pytorch_lora_weights.safetensors", "lora_adapter.safetensors"]
)
def test_every_file_that_we_write_is_good(base: Path, files: Path, name: str) -> None:
    found = verify(files / name, load_model(base, CPU, torch.float32), "a red apple")
    assert found.good and found.rank == 4 and found.effect > 3 and found.difference <= 2
    if name == "s.safetensors":
        assert (found.alpha, found.trigger) == (2.0, "trg")
        assert "engine and diffusers differ by at most" in found.told()


def test_a_lora_that_does_nothing_is_not_good(base: Path, files: Path, tmp_path: Path) -> None:
    tensors = {k: t * (0 if "lora_up" in k else 1) for k, t in load_file(files / "s.safetensors").items()}
    save_file(tensors, tmp_path / "nothing.safetensors")
    assert not verify(tmp_path / "nothing.safetensors", load_model(base, CPU, torch.float32), "a key").good


def test_keys_that_fit_nothing_and_files_that_are_none_are_errors(
    base: Path, files: Path, tmp_path: Path
) -> None:
    tensors = {f"x{k}": t for k, t in load_file(files / "s.safetensors").items()}
    save_file(tensors, tmp_path / "other.safetensors")
    model = load_model(base, CPU, torch.float32)
    with pytest.raises(ModelError, match="fit nothing"):
        verify(tmp_path / "other.safetensors", model, "a key")
    (tmp_path / "none.safetensors").write_bytes(b"pickle")
    with pytest.raises(InvalidInput, match="no safetensors file"):
        verify(tmp_path / "none.safetensors", model, "a key")
