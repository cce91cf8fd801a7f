"""Single-file checkpoints turn into the model that they were made from."""

import json
import shutil
import struct
from pathlib import Path

import ldm_files as ldm
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from itemforge.engine.checkpoint import (
    SCHEDULER,
    TEXT,
    UNET,
    VAE,
    open_checkpoint,
    text_config,
    unet_config,
    vae_config,
)
from itemforge.engine.components import Components
from itemforge.errors import ModelError
from itemforge.styles.models import describe, starter_dir


def pipeline(parts) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler.from_config(dict(parts.scheduler)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(parts) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    picture = pipeline(parts)(
        "a red apple", num_inference_steps=3, guidance_scale=4.0, generator=generator, output_type="np"
    ).images[0]
    return picture * 255


@pytest.fixture(scope="module")
def starter() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(starter_dir(), dtype=torch.float32, safety_checker=None)


@pytest.fixture(scope="module")
def tiny(starter) -> Components:
    """A random model shaped as SD 1.5 is (four levels, attention in the first three, 8 pixels a latent)."""
    torch.manual_seed(0)
    cross = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64, 64, 96),
        down_block_types=cross,
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    vocabulary = len(starter.tokenizer)
    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=1,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    parts = Components(unet, vae, CLIPTextModel(text), starter.tokenizer, SCHEDULER)
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.eval()
    return parts


def test_the_starter_as_a_checkpoint_draws_the_same_picture(starter, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", starter.unet, starter.vae, starter.text_encoder)
    # Sizes come from its weights; heads, groups and scaling of this small model only from its configurations.
    for name in ("unet", "vae", "text_encoder", "scheduler"):
        config = "scheduler_config.json" if name == "scheduler" else "config.json"
        (tmp_path / "m" / name).mkdir(parents=True)
        shutil.copy(starter_dir() / name / config, tmp_path / "m" / name / config)
    shutil.copytree(starter_dir() / "tokenizer", tmp_path / "tokenizer")

    parts = open_checkpoint(file)

    wanted = Components(
        starter.unet, starter.vae, starter.text_encoder, starter.tokenizer, dict(starter.scheduler.config)
    )
    assert np.array_equal(draw(parts), draw(wanted))


def test_a_model_shaped_as_sd15_needs_no_configuration(tiny, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", tiny.unet, tiny.vae, tiny.text_encoder)
    ldm.write_configs(tmp_path, tokenizer=tiny.tokenizer)

    parts = open_checkpoint(file)

    for name in ("unet", "vae", "text_encoder"):
        weights, wanted = getattr(parts, name).state_dict(), getattr(tiny, name).state_dict()
        assert weights.keys() == wanted.keys()
        assert all(torch.equal(weights[key], wanted[key]) for key in wanted)
    assert np.array_equal(draw_small(parts), draw_small(tiny))
    facts = describe(str(file), tmp_path / "home")
    assert (facts.width, facts.height, facts.vae_scale_factor) == (512, 512, 8)


def draw_small(parts) -> np.ndarray:
    return pipeline(parts)(
        "an apple",
        num_inference_steps=2,
        height=128,
        width=64,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images[0]


def test_configurations_are_read_from_shapes(tiny, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", tiny.unet, tiny.vae, tiny.text_encoder)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(file).items()}
    for inferred, config in (
        (unet_config(shapes), tiny.unet.config),
        (vae_config(shapes), tiny.vae.config),
        (text_config(shapes), tiny.text_encoder.config.to_dict()),
    ):
        for key, value in inferred.items():
            assert (tuple(value) if isinstance(value, list) else value) == config[key], key


def test_float16_files_and_the_oldest_text_encoder_names_are_read(tiny, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", tiny.unet, tiny.vae, tiny.text_encoder)
    ldm.write_configs(tmp_path, tokenizer=tiny.tokenizer)
    renamed = {
        name.replace("transformer.text_model.", "transformer."): tensor.half()
        if tensor.is_floating_point()
        else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(renamed, file)

    parts = open_checkpoint(file)

    assert next(parts.unet.parameters()).dtype == torch.float32
    wanted = tiny.text_encoder.state_dict()
    for key, tensor in parts.text_encoder.state_dict().items():
        assert torch.equal(tensor, wanted[key].half().float())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("model.diffusion_model.out.2.bias"), r"lacks 1 weights, such as .*out\.2\.bias"),
        (lambda t: t.update({"first_stage_model.extra": torch.ones(1)}), r"does not have, such as .*extra"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("first_stage_model.")], "has no VAE"),
        (lambda t: t.update({"conditioner.embedders.0.x": torch.ones(1)}), "XL checkpoint"),
        (lambda t: t.update({"cond_stage_model.model.x": torch.ones(1)}), r"2\.x checkpoint"),
        (
            lambda t: t.update({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 9, 3, 3)}),
            "inpainting",
        ),
        (
            lambda t: t.update({"first_stage_model.decoder.mid.block_1.conv1.bias": torch.ones(3)}),
            "has the shape",
        ),
    ],
)
def test_what_cannot_be_drawn_with_is_an_error_that_says_why(change, says, tiny, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", tiny.unet, tiny.vae, tiny.text_encoder)
    ldm.write_configs(tmp_path, tokenizer=tiny.tokenizer)
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(ModelError, match=says):
        open_checkpoint(file)


def test_a_checkpoint_without_tokenizer_says_where_to_put_one(tiny, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", tiny.unet, tiny.vae, tiny.text_encoder)
    with pytest.raises(ModelError, match=r"copy the folder `tokenizer`"):
        open_checkpoint(file)


def test_a_file_that_is_no_safetensors_is_an_error(tmp_path):
    file = Path(tmp_path / "m.safetensors")
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ModelError, match="no readable safetensors file"):
        open_checkpoint(file)


def test_the_tokenizer_beside_the_file_is_the_one_that_is_used(tiny, tmp_path):
    file = ldm.write_checkpoint(tmp_path / "m.safetensors", tiny.unet, tiny.vae, tiny.text_encoder)
    ldm.write_configs(tmp_path, tokenizer=tiny.tokenizer)
    tokenizer = open_checkpoint(file).tokenizer
    assert isinstance(tokenizer, CLIPTokenizer)
    assert tokenizer("a red apple").input_ids == tiny.tokenizer("a red apple").input_ids


def _entry(*shape: int) -> dict:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    "header",
    [
        {"model.diffusion_model.a": 5},
        {"model.diffusion_model.a": {}},
        {f"{prefix}a": _entry(2**40) for prefix in (UNET, VAE, TEXT)},
        {f"{prefix}a": _entry(0) for prefix in (UNET, VAE, TEXT)},
        {f"{UNET}input_blocks.1.0.op.weight": _entry(0)}
        | {f"{prefix}a": _entry(0) for prefix in (VAE, TEXT)},
        [],
    ],
)
def test_a_file_with_a_header_that_lies_is_a_clear_error(header, tmp_path):
    shutil.copytree(starter_dir() / "tokenizer", tmp_path / "tokenizer")
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match=str(path)):
        open_checkpoint(path)
