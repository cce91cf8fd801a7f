"""The same random LoRA, written in each of the layouts that people share."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from itemforge.engine.rows import LoraRef

RANK = 4
ALPHA = 2.0
#: Modules of the UNet that the LoRA touches: attention, feed-forward and both kinds of convolution.
UNET_ENDINGS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in")
CONV_ENDINGS = (*UNET_ENDINGS, "conv1", "conv_shortcut")
TEXT_ENDINGS = ("q_proj", "k_proj", "v_proj", "out_proj")

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def random_pairs(model: nn.Module, endings: tuple[str, ...], seed: int) -> Pairs:
    """A down and an up matrix for each module of `model` whose name ends so."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or not name.endswith(endings):
            continue
        shape = module.weight.shape
        down = torch.randn(RANK, *shape[1:], generator=generator) * 0.3 / shape[1:].numel() ** 0.5
        up = torch.randn(shape[0], RANK, *[1] * (len(shape) - 2), generator=generator) * 0.3
        pairs[name] = (down, up)
    assert pairs
    return pairs


def old(name: str) -> str:
    """A text encoder's module as files name it, whatever the transformers version."""
    return "text_model." + name.removeprefix("text_model.")


def kohya(unet: Pairs, text: Pairs) -> dict[str, torch.Tensor]:
    stems = {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in unet.items()}
    stems |= {f"lora_te_{old(name).replace('.', '_')}": pair for name, pair in text.items()}
    return _written(stems, "{}.lora_down.weight", "{}.lora_up.weight", "{}.alpha")


def diffusers(unet: Pairs, text: Pairs) -> dict[str, torch.Tensor]:
    return _written(_dotted(unet, text), "{}.lora_A.weight", "{}.lora_B.weight")


def diffusers_old(unet: Pairs, text: Pairs) -> dict[str, torch.Tensor]:
    tensors = _written(_dotted(unet, {}), "{}.lora.down.weight", "{}.lora.up.weight")
    linear = "{}.lora_linear_layer"
    return tensors | _written(_dotted({}, text), f"{linear}.down.weight", f"{linear}.up.weight")


def diffusers_first(unet: Pairs, text: Pairs) -> dict[str, torch.Tensor]:
    """`attn1.processor.to_q_lora.down.weight`, attention of the UNet only."""
    stems = {}
    for name, pair in unet.items():
        attention, _, projection = name.removesuffix(".0").rpartition(".")
        stems[f"unet.{attention}.processor.{projection}_lora"] = pair
    text_names = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    for name, pair in text.items():
        attention, _, projection = old(name).rpartition(".")
        stems[f"text_encoder.{attention}.{text_names[projection]}_lora"] = pair
    return _written(stems, "{}.down.weight", "{}.up.weight")


def peft(pairs: Pairs) -> dict[str, torch.Tensor]:
    stems = {f"base_model.model.{name}": pair for name, pair in pairs.items()}
    return _written(stems, "{}.lora_A.weight", "{}.lora_B.weight")


def save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict | None = None) -> Path:
    """Write a LoRA file; `metadata` is diffusers' record of PEFT's settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(metadata)} if metadata else {})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=header)
    return path


def ref(path: Path, weight: float = 1.0) -> LoraRef:
    return LoraRef(path, hashlib.sha256(path.read_bytes()).hexdigest(), weight)


def _dotted(unet: Pairs, text: Pairs) -> Pairs:
    return {f"unet.{n}": p for n, p in unet.items()} | {f"text_encoder.{old(n)}": p for n, p in text.items()}


def _written(stems: Pairs, down: str, up: str, alpha: str | None = None) -> dict[str, torch.Tensor]:
    tensors = {}
    for stem, (a, b) in stems.items():
        tensors |= {down.format(stem): a, up.format(stem): b}
        if alpha:
            tensors[alpha.format(stem)] = torch.tensor(ALPHA)
    return tensors
