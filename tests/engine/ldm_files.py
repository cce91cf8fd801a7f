"""Checkpoint files in the layout of the original code, written from diffusers models.

The naming is written here a second time, block by block from the original code's own loops, so that the
conversion is tested against something else than its own inverse.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

Weights = dict[str, torch.Tensor]


def write_checkpoint(path: Path, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module) -> Path:
    tensors = {f"model.diffusion_model.{n}": t for n, t in unet_weights(unet).items()}
    tensors |= {f"first_stage_model.{n}": t for n, t in vae_weights(vae).items()}
    for name, tensor in text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    # Files of that time carry these as well.
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["alphas_cumprod"] = torch.ones(1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def write_configs(folder: Path, **models: object) -> None:
    """`config.json` of each model, and a tokenizer, in folders of their names."""
    for name, model in models.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        if name == "tokenizer":
            model.save_pretrained(target)
        elif name == "scheduler":
            (target / "scheduler_config.json").write_text(json.dumps(dict(model.config)))
        else:
            config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
            (target / "config.json").write_text(json.dumps(config))


def unet_weights(unet: nn.Module) -> Weights:
    found: Weights = {}
    take(found, unet.conv_in, "input_blocks.0.0")
    take(found, unet.time_embedding.linear_1, "time_embed.0")
    take(found, unet.time_embedding.linear_2, "time_embed.2")
    take(found, unet.conv_norm_out, "out.0")
    take(found, unet.conv_out, "out.2")
    block = 1
    for down in unet.down_blocks:
        for resnet, attention in layers(down):
            take_resnet(found, resnet, f"input_blocks.{block}.0")
            take(found, attention, f"input_blocks.{block}.1")
            block += 1
        if down.downsamplers:
            take(found, down.downsamplers[0].conv, f"input_blocks.{block}.0.op")
            block += 1
    take_resnet(found, unet.mid_block.resnets[0], "middle_block.0")
    take(found, unet.mid_block.attentions[0], "middle_block.1")
    take_resnet(found, unet.mid_block.resnets[1], "middle_block.2")
    block = 0
    for up in unet.up_blocks:
        for resnet, attention in layers(up):
            take_resnet(found, resnet, f"output_blocks.{block}.0")
            take(found, attention, f"output_blocks.{block}.1")
            block += 1
        if up.upsamplers:
            place = 1 if attention is None else 2
            take(found, up.upsamplers[0].conv, f"output_blocks.{block - 1}.{place}.conv")
    assert len(found) == len(unet.state_dict())
    return found


def vae_weights(vae: nn.Module) -> Weights:
    found: Weights = {}
    for side, coder, blocks in (
        ("encoder", vae.encoder, vae.encoder.down_blocks),
        ("decoder", vae.decoder, list(reversed(vae.decoder.up_blocks))),
    ):
        kind, change = ("down", "downsample") if side == "encoder" else ("up", "upsample")
        take(found, coder.conv_in, f"{side}.conv_in")
        take(found, coder.conv_norm_out, f"{side}.norm_out")
        take(found, coder.conv_out, f"{side}.conv_out")
        for level, part in enumerate(blocks):
            for n, resnet in enumerate(part.resnets):
                take_vae_resnet(found, resnet, f"{side}.{kind}.{level}.block.{n}")
            changers = part.downsamplers if side == "encoder" else part.upsamplers
            if changers:
                take(found, changers[0].conv, f"{side}.{kind}.{level}.{change}.conv")
        take_vae_resnet(found, coder.mid_block.resnets[0], f"{side}.mid.block_1")
        take_vae_resnet(found, coder.mid_block.resnets[1], f"{side}.mid.block_2")
        if len(coder.mid_block.attentions) and coder.mid_block.attentions[0] is not None:
            attention = coder.mid_block.attentions[0]
            take(found, attention.group_norm, f"{side}.mid.attn_1.norm")
            for letter, linear in (
                ("q", attention.to_q),
                ("k", attention.to_k),
                ("v", attention.to_v),
                ("proj_out", attention.to_out[0]),
            ):
                found[f"{side}.mid.attn_1.{letter}.weight"] = linear.weight.detach()[:, :, None, None]
                found[f"{side}.mid.attn_1.{letter}.bias"] = linear.bias.detach()
    take(found, vae.quant_conv, "quant_conv")
    take(found, vae.post_quant_conv, "post_quant_conv")
    assert len(found) == len(vae.state_dict())
    return found


def layers(block: nn.Module) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    yield from zip(block.resnets, attentions, strict=True)


def take(found: Weights, module: nn.Module | None, name: str) -> None:
    for key, tensor in (module.state_dict() if module is not None else {}).items():
        found[f"{name}.{key}"] = tensor


def take_resnet(found: Weights, resnet: nn.Module, name: str) -> None:
    take(found, resnet.norm1, f"{name}.in_layers.0")
    take(found, resnet.conv1, f"{name}.in_layers.2")
    take(found, resnet.time_emb_proj, f"{name}.emb_layers.1")
    take(found, resnet.norm2, f"{name}.out_layers.0")
    take(found, resnet.conv2, f"{name}.out_layers.3")
    take(found, resnet.conv_shortcut, f"{name}.skip_connection")


def take_vae_resnet(found: Weights, resnet: nn.Module, name: str) -> None:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        take(found, getattr(resnet, part), f"{name}.{part}")
    take(found, resnet.conv_shortcut, f"{name}.nin_shortcut")
