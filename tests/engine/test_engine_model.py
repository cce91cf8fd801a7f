"""Loading a diffusers directory: what is wrong with one is said, and nothing is made up."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from drawing import levels_apart, row, tiny_sd15
from safetensors.torch import load_file, save_file

from itemforge.engine.loop import Engine
from itemforge.engine.model import Model, load_model, place
from itemforge.errors import ModelError

CPU = torch.device("cpu")


@pytest.fixture
def directory(starter: Model, tmp_path: Path) -> Path:
    """A small model as `save_pretrained` writes it."""
    model, path = tiny_sd15(starter.parts.tokenizer), tmp_path / "tiny"
    model.parts.unet.save_pretrained(path / "unet", max_shard_size="100KB")
    model.parts.vae.save_pretrained(path / "vae")
    model.parts.text_encoder.save_pretrained(path / "text_encoder")
    model.parts.tokenizer.save_pretrained(path / "tokenizer")
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(model.parts.scheduler)))
    return path


def test_a_directory_gives_back_the_weights_that_were_saved(starter: Model, directory: Path) -> None:
    saved = tiny_sd15(starter.parts.tokenizer)
    assert len(list((directory / "unet").glob("*.safetensors"))) > 1, "the UNet is in shards"

    model = load_model(directory, CPU, torch.float32)

    assert (model.name, model.width, model.height, model.vae_scale_factor) == ("tiny", 64, 64, 8)
    wanted = row(steps=2)
    assert levels_apart(Engine(model).draw(wanted).pixels, Engine(saved).draw(wanted).pixels) == 0


def test_files_of_the_fp16_variant_are_loaded(starter: Model, directory: Path) -> None:
    weights = directory / "vae" / "diffusion_pytorch_model.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(half, directory / "vae" / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    weights.unlink()

    model = load_model(directory, CPU, torch.float32)

    assert torch.equal(model.parts.vae.decoder.conv_in.weight, half["decoder.conv_in.weight"].float())


def test_a_missing_weight_is_an_error_and_not_random(directory: Path) -> None:
    weights = directory / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["decoder.conv_in.weight"]
    save_file(tensors, weights, {"format": "pt"})

    with pytest.raises(ModelError, match=r"decoder\.conv_in\.weight"):
        load_model(directory, CPU, torch.float32)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(directory: Path, part: str) -> None:
    shutil.rmtree(directory / part)

    with pytest.raises(ModelError, match=part):
        load_model(directory, CPU, torch.float32)


def test_a_truncated_file_is_named(directory: Path) -> None:
    weights = directory / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(ModelError, match="text_encoder"):
        load_model(directory, CPU, torch.float32)


def test_pickled_weights_are_never_read(directory: Path) -> None:
    weights = directory / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), directory / "vae" / "diffusion_pytorch_model.bin")
    weights.unlink()

    with pytest.raises(ModelError, match="pickled"):
        load_model(directory, CPU, torch.float32)


def test_an_inpainting_model_is_refused(directory: Path) -> None:
    from diffusers import UNet2DConditionModel

    config = json.loads((directory / "unet" / "config.json").read_text())
    shutil.rmtree(directory / "unet")
    UNet2DConditionModel.from_config({**config, "in_channels": 9}).save_pretrained(directory / "unet")

    with pytest.raises(ModelError, match="inpainting"):
        load_model(directory, CPU, torch.float32)


def test_a_vae_that_overflows_in_float16_stays_in_float32(starter: Model) -> None:
    model = tiny_sd15(starter.parts.tokenizer)

    place(model, CPU, torch.float16, torch.channels_last)

    assert (model.dtype, model.parts.vae.dtype) == (torch.float16, torch.float32)
    place(model, CPU, torch.bfloat16, torch.contiguous_format)
    assert (model.dtype, model.parts.vae.dtype) == (torch.bfloat16, torch.bfloat16)
