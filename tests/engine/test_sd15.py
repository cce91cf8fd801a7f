"""The full Stable Diffusion 1.5: its names and shapes, from a public list, and a picture of its size.

`tests/data/sd15_keys.json` says where the list comes from. Nothing here has weights but the slow test,
which makes them up.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from itemforge.contract import Scheduler
from itemforge.engine.checkpoint import (
    SCHEDULER,
    TEXT,
    UNET,
    VAE,
    text_config,
    text_keys,
    unet_config,
    unet_keys,
    vae_config,
    vae_keys,
)
from itemforge.engine.components import Components
from itemforge.engine.loop import Engine
from itemforge.engine.lora_keys import KeyTable
from itemforge.engine.model import Model
from itemforge.engine.rows import Row
from itemforge.styles.models import starter_dir

LIST = json.loads((Path(__file__).parents[1] / "data" / "sd15_keys.json").read_text())
SHAPES = {name: tuple(shape) for name, shape in LIST["tensors"].items()}
#: Not a weight: older transformers wrote it into the files.
POSITIONS = f"{TEXT}text_model.embeddings.position_ids"


@pytest.fixture(scope="module")
def sd15() -> Components:
    """The three models as the shapes of the list say they are, without weights."""
    with torch.device("meta"):
        return Components(
            UNet2DConditionModel.from_config(unet_config(SHAPES)),
            AutoencoderKL.from_config(vae_config(SHAPES)),
            CLIPTextModel(CLIPTextConfig(**text_config(SHAPES))),
            None,
            SCHEDULER,
        )


def names(sd15) -> dict[str, dict[str, str]]:
    """For each part, the name in the file of each of our names."""
    return {
        "unet": unet_keys(sd15.unet),
        "vae": vae_keys(sd15.vae),
        "text_encoder": text_keys(sd15.text_encoder, SHAPES),
    }


def test_the_list_is_whole():
    counts = [sum(name.startswith(prefix) for name in SHAPES) for prefix in (UNET, VAE, TEXT)]
    assert counts == [686, 248, 197]  # 196 weights and the positions


def test_the_configuration_is_that_of_sd15():
    unet, vae, text = unet_config(SHAPES), vae_config(SHAPES), text_config(SHAPES)
    assert unet["block_out_channels"] == (320, 640, 1280, 1280)
    assert unet["down_block_types"] == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    assert (unet["layers_per_block"], unet["cross_attention_dim"], unet["sample_size"]) == (2, 768, 64)
    assert vae["block_out_channels"] == (128, 256, 512, 512)
    assert (vae["latent_channels"], vae["scaling_factor"]) == (4, 0.18215)
    assert (text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]) == (768, 12, 12)
    assert (text["vocab_size"], text["bos_token_id"], text["eos_token_id"]) == (49408, 49406, 49407)


def test_every_weight_of_the_file_is_one_of_ours_and_has_its_shape(sd15):
    found = {}
    for part, keys in names(sd15).items():
        weights = getattr(sd15, part).state_dict()
        for ours, theirs in keys.items():
            assert theirs not in found, f"{theirs} is used twice"
            found[theirs] = tuple(weights[ours].shape)
    assert found.keys() == SHAPES.keys() - {POSITIONS}
    for name, shape in found.items():
        listed = SHAPES[name]
        # The VAE's attention has 1x1 convolutions in the file and linear layers in diffusers.
        assert listed == shape or listed == (*shape, 1, 1), name


def test_our_names_are_those_that_diffusers_converts_to(sd15):
    # Another's conversion of the same list, whose tensors tell where they came from by their identity.
    tensors = {name: torch.empty(shape, device="meta") for name, shape in SHAPES.items()}
    source = {id(tensor): name for name, tensor in tensors.items()}
    unet = convert_ldm_unet_checkpoint(dict(tensors), dict(sd15.unet.config))
    assert {ours: source[id(tensor)] for ours, tensor in unet.items()} == unet_keys(sd15.unet)

    marked = {name: torch.full(shape, n) for n, (name, shape) in enumerate(small(SHAPES).items())}
    vae = convert_ldm_vae_checkpoint(dict(marked), dict(sd15.vae.config))
    listed = list(marked)
    assert {k: listed[int(t.flatten()[0])] for k, t in vae.items()} == vae_keys(sd15.vae)


def small(shapes):
    """The VAE's names with tensors of one value each, of as many dimensions (diffusers reshapes some)."""
    return {name: (1,) * len(shape) for name, shape in shapes.items() if name.startswith(VAE)}


@pytest.mark.parametrize(
    ("stem", "module"),
    [
        ("input_blocks_1_1_proj_in", "down_blocks.0.attentions.0.proj_in"),
        (
            "input_blocks_8_1_transformer_blocks_0_attn2_to_k",
            "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k",
        ),
        ("middle_block_1_proj_out", "mid_block.attentions.0.proj_out"),
        ("output_blocks_3_1_proj_in", "up_blocks.1.attentions.0.proj_in"),
        (
            "output_blocks_11_1_transformer_blocks_0_ff_net_2",
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2",
        ),
        ("output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_4_0_skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
    ],
)
def test_a_lora_in_the_original_names_reaches_the_right_module(stem, module, sd15):
    table = KeyTable(sd15.unet, sd15.text_encoder)
    keys = [f"lora_unet_{stem}.lora_{part}.weight" for part in ("down", "up")]
    (target,) = table.resolve(keys)
    assert (target.component, target.module) == ("unet", module)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_full_size_random_weights_draw_two_steps_at_512():
    torch.manual_seed(0)
    with init_empty_weights(include_buffers=False):
        parts = Components(
            UNet2DConditionModel.from_config(unet_config(SHAPES)),
            AutoencoderKL.from_config(vae_config(SHAPES)),
            CLIPTextModel(CLIPTextConfig(**text_config(SHAPES))),
            CLIPTokenizer.from_pretrained(starter_dir() / "tokenizer"),
            SCHEDULER,
        )
    for module in (parts.unet, parts.vae, parts.text_encoder):
        weights = {n: random_weight(n, tuple(t.shape)) for n, t in module.state_dict().items()}
        module.load_state_dict(weights, assign=True)
        module.requires_grad_(False).eval()
    model = Model("sd15-random", "0" * 64, Path(), parts, 8, 512, 512)
    calls = []
    engine = Engine(model, on_unet_call=lambda ids, timesteps: calls.append(list(timesteps)))

    drawn = engine.draw(Row("r", "a red apple", "blurry", 2, 7.5, 1, Scheduler.DDIM, 512, 512))

    assert drawn.pixels.shape == (512, 512, 3)
    assert drawn.pixels.dtype == np.uint8
    assert drawn.pixels.std() > 1  # not flat
    assert len(calls) == 2


def random_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights under which values neither vanish nor explode: norms as they begin, others by their fan-in."""
    if len(shape) == 1:
        return torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)
    return torch.randn(shape) / torch.tensor(shape[1:]).prod().float().sqrt()
