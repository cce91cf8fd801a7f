"""The names that the original latent-diffusion code gave to the weights of SD 1.x.

Single-file checkpoints and many LoRAs use them. Each map goes from a module's name in diffusers to its
name there, and is derived from the model's own blocks, so it fits any size of SD 1.x. Naming after
CompVis/stable-diffusion: ldm/modules/diffusionmodules/{openaimodel,model}.py.
"""

from collections.abc import Iterable, Mapping
from typing import Any

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "nin_shortcut",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_TEXT = "text_model."


def unet_names(modules: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """LDM name of each UNet module that has weights; `config` is the UNet's."""
    prefixes = _unet_prefixes(config)
    return {name: _renamed(name, prefixes, _RESNET) for name in modules}


def _unet_prefixes(config: Mapping[str, Any]) -> dict[str, str]:
    """LDM name of each block: there, blocks are numbered through, whatever level they belong to."""
    prefixes = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    layers, last = config["layers_per_block"], len(config["down_block_types"]) - 1
    number = 1
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            prefixes[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            if kind.startswith("CrossAttn"):
                prefixes[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level != last:
            prefixes[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for level, kind in enumerate(config["up_block_types"]):
        attention = kind.startswith("CrossAttn")
        for layer in range(layers + 1):
            prefixes[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            if attention:
                prefixes[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            if layer == layers and level != last:
                place = 2 if attention else 1
                prefixes[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{number}.{place}.conv"
            number += 1
    return prefixes


def vae_names(modules: Iterable[str], levels: int) -> dict[str, str]:
    """LDM name of each VAE module that has weights; there, the decoder's levels count from the end."""
    prefixes = {}
    for side, kind, change, ldm_change in (
        ("encoder", "down", "downsamplers", "downsample"),
        ("decoder", "up", "upsamplers", "upsample"),
    ):
        prefixes[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        prefixes[f"{side}.mid_block.resnets.0"] = f"{side}.mid.block_1"
        prefixes[f"{side}.mid_block.resnets.1"] = f"{side}.mid.block_2"
        prefixes[f"{side}.mid_block.attentions.0"] = f"{side}.mid.attn_1"
        for level in range(levels):
            there = level if kind == "down" else levels - 1 - level
            prefixes[f"{side}.{kind}_blocks.{level}.{change}.0"] = f"{side}.{kind}.{there}.{ldm_change}"
            prefixes[f"{side}.{kind}_blocks.{level}.resnets"] = f"{side}.{kind}.{there}.block"
    return {name: _renamed(name, prefixes, _VAE_RESNET | _VAE_ATTENTION) for name in modules}


def text_name(module: str) -> str:
    """LDM name of a text encoder's module: transformers 5 has no `text_model.` in front of it."""
    return _TEXT + module.removeprefix(_TEXT)


def _renamed(name: str, prefixes: Mapping[str, str], inner: Mapping[str, str]) -> str:
    """`name` with its longest known prefix replaced, and what follows a resnet or attention as well."""
    prefix = name
    while prefix and prefix not in prefixes:
        prefix = prefix.rpartition(".")[0]
    rest = name[len(prefix) :].lstrip(".")
    number, _, tail = rest.partition(".")
    if number.isdigit() and tail in inner:  # the place of a VAE resnet within its level
        return f"{prefixes[prefix]}.{number}.{inner[tail]}"
    if not prefix:
        return name
    return ".".join(part for part in (prefixes[prefix], inner.get(rest, rest)) if part)
