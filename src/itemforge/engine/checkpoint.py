"""Single-file checkpoints of SD 1.x in the layout of the original code, converted without the network.

The sizes are read from the tensors' shapes. What shapes cannot tell (attention heads, groups of the
normalisation, scaling of the latents, the noise schedule, native size) is what SD 1.x has, unless a JSON
configuration beside the file says otherwise: `NAME/unet/config.json` for `NAME.safetensors`, or
`unet/config.json` in its folder, and so for `vae`, `text_encoder`, `scheduler` and `tokenizer`. The file
holds no tokenizer, so that one has to lie there.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from itemforge.engine.components import Components
from itemforge.engine.ldm_names import text_name, unet_names, vae_names
from itemforge.errors import ModelError
from itemforge.styles.models import component_beside, safetensors_header

log = structlog.get_logger(__name__)

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
#: The noise schedule of SD 1.x.
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

Shapes = Mapping[str, tuple[int, ...]]


def open_checkpoint(path: Path) -> Components:
    """Convert a checkpoint file, in float32 on the CPU.

    Raises:
        ModelError: it is no text-to-image checkpoint of SD 1.x, or something is missing.
    """
    try:
        with safe_open(path, framework="pt"):  # it checks every shape against the length of the file
            entries = safetensors_header(path)
    except (SafetensorError, OSError):
        raise ModelError(f"{path} is no readable safetensors file; download it again") from None
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    _check_kind(path, shapes)
    tokenizer = _tokenizer(path)
    configs: dict[str, Callable[[], dict[str, Any]]] = {
        "unet": lambda: unet_config(shapes),
        "vae": lambda: vae_config(shapes),
        "text_encoder": lambda: text_config(shapes),
        "scheduler": lambda: dict(SCHEDULER),
    }
    try:
        chosen = {name: _beside(path, name) or infer() for name, infer in configs.items()}
        with init_empty_weights(include_buffers=False):
            unet = UNet2DConditionModel.from_config(chosen["unet"])
            vae = AutoencoderKL.from_config(chosen["vae"])
            text_encoder = CLIPTextModel(CLIPTextConfig(**chosen["text_encoder"]))
        with safe_open(path, framework="pt") as file:
            _fill(path, unet, unet_keys(unet), shapes, file.get_tensor)
            _fill(path, vae, vae_keys(vae), shapes, file.get_tensor)
            _fill(path, text_encoder, text_keys(text_encoder, shapes), shapes, file.get_tensor)
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be converted: {type(error).__name__}: {error}") from error
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return Components(unet, vae, text_encoder, tokenizer, chosen["scheduler"])


def unet_keys(unet: nn.Module) -> dict[str, str]:
    """Key in the file of each of the UNet's tensors."""
    config: Any = unet.config
    return _keys(unet, UNET, lambda modules: unet_names(modules, config))


def vae_keys(vae: nn.Module) -> dict[str, str]:
    """Key in the file of each of the VAE's tensors."""
    config: Any = vae.config
    return _keys(vae, VAE, lambda modules: vae_names(modules, len(config["block_out_channels"])))


def text_keys(text_encoder: nn.Module, shapes: Shapes) -> dict[str, str]:
    """Key in the file of each of the text encoder's tensors; the oldest files lack a `text_model.`."""
    old = any(key.startswith(f"{TEXT}embeddings.") for key in shapes)
    return _keys(
        text_encoder,
        TEXT,
        lambda modules: {m: text_name(m).removeprefix("text_model." if old else "") for m in modules},
    )


def _keys(model: nn.Module, prefix: str, names: Callable[[set[str]], dict[str, str]]) -> dict[str, str]:
    keys = [key for key in model.state_dict() if not key.endswith("position_ids")]
    found = names({key.rpartition(".")[0] for key in keys})
    return {key: f"{prefix}{found[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}" for key in keys}


def _fill(
    path: Path, model: nn.Module, keys: Mapping[str, str], shapes: Shapes, read: Callable[[str], Tensor]
) -> None:
    """Give `model` its weights; none may be missing, none left over."""
    if missing := [key for key in keys.values() if key not in shapes]:
        raise ModelError(f"{path} lacks {len(missing)} weights, such as {missing[0]}; download it again")
    state = {}
    for name, weight in model.state_dict().items():
        if name not in keys:
            continue
        # The VAE's attention is 1x1 convolutions there and linear layers here.
        shape = shapes[keys[name]]
        if shape[: weight.ndim] != tuple(weight.shape) or set(shape[weight.ndim :]) - {1}:
            raise ModelError(
                f"{path}: {keys[name]} has the shape {shape}, {tuple(weight.shape)} is wanted; does the "
                "configuration beside it belong to it?"
            )
        # A copy, since the file is only mapped into memory and may go away.
        state[name] = read(keys[name]).to(torch.float32, copy=True).reshape(weight.shape)
    model.load_state_dict(state, strict=False, assign=True)
    prefix = next(p for p in (UNET, VAE, TEXT) if next(iter(keys.values())).startswith(p))
    known = {*keys.values(), f"{TEXT}text_model.embeddings.position_ids", f"{TEXT}embeddings.position_ids"}
    if left := sorted(key for key in shapes if key.startswith(prefix) and key not in known):
        if prefix != TEXT:
            raise ModelError(f"{path} has {len(left)} weights that SD 1.x does not have, such as {left[0]}")
        log.warning("checkpoint_weights_ignored", file=path.name, count=len(left), first=left[0])


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """Configuration of a UNet, from the shapes of its weights."""
    levels: list[list[int]] = [[]]  # the numbers of the input blocks that belong to each level
    number = 1
    while any(
        f"{UNET}input_blocks.{number}.0.{kind}" in shapes for kind in ("op.weight", "in_layers.0.weight")
    ):
        if f"{UNET}input_blocks.{number}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(number)
        number += 1
    attention = [f"{UNET}input_blocks.{level[0]}.1.norm.weight" in shapes for level in levels]
    middle = f"{UNET}middle_block.1."
    return {
        "sample_size": 64,
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "block_out_channels": tuple(
            shapes[f"{UNET}input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels
        ),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "layers_per_block": len(levels[0]),
        "cross_attention_dim": shapes[f"{middle}transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": 8,  # diffusers' name for the number of heads
        "use_linear_projection": len(shapes[f"{middle}proj_in.weight"]) == 2,
    }


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Configuration of a VAE, from the shapes of its weights."""
    widths = _along(shapes, f"{VAE}encoder.down.{{}}.block.0.conv1.weight")
    return {
        "sample_size": 512,
        "in_channels": shapes[f"{VAE}encoder.conv_in.weight"][1],
        "out_channels": shapes[f"{VAE}decoder.conv_out.weight"][0],
        "latent_channels": shapes[f"{VAE}decoder.conv_in.weight"][1],
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": len(_along(shapes, f"{VAE}encoder.down.0.block.{{}}.conv1.weight")),
        "mid_block_add_attention": f"{VAE}encoder.mid.attn_1.q.weight" in shapes,
        "scaling_factor": 0.18215,
        "force_upcast": True,  # black pictures in float16 otherwise
    }


def text_config(shapes: Shapes) -> dict[str, Any]:
    """Configuration of a text encoder, from the shapes of its weights."""
    prefix = TEXT if f"{TEXT}embeddings.token_embedding.weight" in shapes else f"{TEXT}text_model."
    vocabulary, width = shapes[f"{prefix}embeddings.token_embedding.weight"]
    layers = _along(shapes, f"{prefix}encoder.layers.{{}}.mlp.fc1.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": layers[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": shapes[f"{prefix}embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def _along(shapes: Shapes, pattern: str) -> list[int]:
    """First dimension of the weights `pattern` with 0, 1, 2, … in it, as far as they go."""
    found: list[int] = []
    while (shape := shapes.get(pattern.format(len(found)))) is not None:
        found.append(shape[0])
    return found


def _check_kind(path: Path, shapes: Shapes) -> None:
    for mark, kind in (
        ("conditioner.embedders.", "a Stable Diffusion XL checkpoint"),
        ("cond_stage_model.model.", "a Stable Diffusion 2.x checkpoint"),
        ("lora_", "a LoRA, not a base model"),
    ):
        if any(key.startswith(mark) for key in shapes):
            raise ModelError(f"{path} is {kind}; only Stable Diffusion 1.x checkpoints can be used here")
    for prefix, part in ((UNET, "UNet"), (VAE, "VAE"), (TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in shapes):
            raise ModelError(f"{path} has no {part} (no {prefix}* weights); use a full SD 1.x checkpoint")
    channels, latents = shapes.get(f"{UNET}input_blocks.0.0.weight"), shapes.get(f"{UNET}out.2.weight")
    if channels and latents and channels[1] != latents[0]:
        raise ModelError(
            f"{path} is an inpainting or editing checkpoint; only text-to-image ones can be used"
        )


def _beside(path: Path, component: str) -> dict[str, Any] | None:
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    if (folder := component_beside(path, component, name)) is None:
        return None
    content = json.loads((folder / name).read_text())
    return content if isinstance(content, dict) else None


def _tokenizer(path: Path) -> Any:
    for name in ("tokenizer.json", "vocab.json"):
        if (folder := component_beside(path, "tokenizer", name)) is not None:
            try:
                return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # the library documents no common base
                raise ModelError(f"cannot load {folder}: {type(error).__name__}: {error}") from error
    raise ModelError(
        f"{path.name} needs CLIP's tokenizer, which no checkpoint file holds: copy the folder `tokenizer` of "
        f"any Stable Diffusion 1.x directory to {path.parent / 'tokenizer'}"
    )
