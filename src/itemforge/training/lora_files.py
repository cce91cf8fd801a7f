"""A trained LoRA as files that other programs read.

Three layouts of the same numbers: kohya's, which A1111, ComfyUI, InvokeAI and our worker read; diffusers'
`pytorch_lora_weights.safetensors`; and the PEFT-style `lora_adapter.safetensors` of the original worker. Whoever takes
the strength from `.alpha` (kohya) or from the header (diffusers) gets the same picture; where a layout has no place for
it (PEFT keys alone), alpha / rank is multiplied into the weights.

Headers: sd-scripts' `ss_*`, and ModelSpec 1.0.1.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from itemforge.styles.files import write_atomic
from itemforge.training.lora_config import LoraConfig

#: Names of the files in a folder.
DIFFUSERS, PEFT = "pytorch_lora_weights.safetensors", "lora_adapter.safetensors"
_THUMBNAIL = 256


@dataclass(frozen=True)
class Factors:
    """Of each layer: down (rank, in) and up (out, rank), float32."""

    layers: Mapping[str, tuple[Tensor, Tensor]]
    alpha: float

    @property
    def rank(self) -> int:
        return int(next(iter(self.layers.values()))[0].shape[0])

    @property
    def parameters(self) -> int:
        return sum(down.numel() + up.numel() for down, up in self.layers.values())


def factors_of(unet: nn.Module, alpha: float) -> Factors:
    """The LoRA that peft has put into a UNet."""
    layers = {}
    for name, module in unet.named_modules():
        if hasattr(module, "lora_A") and len(module.lora_A):
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            layers[name] = (down.detach().float().cpu().clone(), up.detach().float().cpu().clone())
    return Factors(layers, alpha)


@dataclass(frozen=True)
class Story:
    """What the headers tell beside the settings."""

    pictures: int
    held_out: int
    steps: int
    epochs: int
    started: float
    tags: Mapping[str, int]
    data_sha256: str
    base_sha256: str
    thumbnail: Image.Image | None = None


def write_files(
    factors: Factors, config: LoraConfig, story: Story, out: Path, stem: str | None = None
) -> Path:
    """Write the three files (kohya's as `STEM.safetensors`); returns kohya's."""
    stem = stem or config.name
    kohya = _kohya(factors)
    path = out / f"{stem}.safetensors"
    write_atomic(path, save(kohya, _header(factors, config, story, stem, kohya)))
    adapter = {
        "r": factors.rank,
        "lora_alpha": factors.alpha,
        "target_modules": sorted(config.targets),
        "peft_type": "LORA",
    }
    twin = {
        f"unet.{name}.lora_{part}.weight": t
        for name, pair in factors.layers.items()
        for part, t in zip("AB", pair, strict=True)
    }
    metadata = {
        "lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in adapter.items()}),
        "format": "pt",
    }
    write_atomic(out / DIFFUSERS, save(_half(twin), metadata))
    scale = factors.alpha / factors.rank
    peft = {}
    for name, (down, up) in factors.layers.items():
        peft[f"base_model.model.{name}.lora_A.weight"] = down
        peft[f"base_model.model.{name}.lora_B.weight"] = up * scale
    write_atomic(out / PEFT, save(_half(peft), {"format": "pt"}))
    return path


def _kohya(factors: Factors) -> dict[str, Tensor]:
    made = {}
    for name, (down, up) in factors.layers.items():
        stem = f"lora_unet_{name.replace('.', '_')}"
        made[f"{stem}.lora_down.weight"], made[f"{stem}.lora_up.weight"] = down, up
        made[f"{stem}.alpha"] = torch.tensor(float(factors.alpha))
    return _half(made)


def _half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half().contiguous() for name, tensor in tensors.items()}


def _header(
    factors: Factors, config: LoraConfig, story: Story, title: str, tensors: Mapping[str, Tensor]
) -> dict[str, str]:
    """All values are texts, as the format wants."""
    count = story.pictures
    told: dict[str, Any] = {
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": factors.rank,
        "ss_network_alpha": factors.alpha,
        "ss_output_name": title,
        "ss_sd_model_name": config.base,
        "ss_clip_skip": "None",
        "ss_training_started_at": story.started,
        "ss_learning_rate": config.learning_rate,
        "ss_lr_scheduler": "cosine_with_restarts",
        "ss_optimizer": config.optimizer,
        "ss_seed": config.seed,
        "ss_min_snr_gamma": config.min_snr_gamma or "None",
        "ss_noise_offset": config.noise_offset or "None",
        "ss_num_train_images": count,
        "ss_num_validation_images": story.held_out,
        "ss_num_epochs": config.epochs,
        "ss_epoch": story.epochs,
        "ss_steps": story.steps,
        "ss_resolution": f"({config.size}, {config.size})",
        "ss_tag_frequency": json.dumps({config.name: dict(story.tags)}),
        "ss_dataset_dirs": json.dumps({config.name: {"n_repeats": 1, "img_count": count}}),
        "ss_bucket_info": json.dumps(
            {"buckets": {"0": {"resolution": [config.size, config.size], "count": count}}}
        ),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{config.size}x{config.size}",
        "modelspec.date": datetime.fromtimestamp(story.started, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "modelspec.trigger_phrase": config.trigger,
        "modelspec.prediction_type": "epsilon",
        "modelspec.tags": ", ".join(list(story.tags)[:10]),
        "modelspec.license": config.licence or "unknown",
        "itemforge.base_sha256": story.base_sha256,
        "itemforge.data_sha256": story.data_sha256,
    }
    if story.thumbnail is not None:
        told["modelspec.thumbnail"] = _data_url(story.thumbnail)
    # As sd-scripts: of the tensors' bytes, so that another header is the same LoRA.
    body = save(dict(tensors))
    digest = hashlib.sha256(body[8 + int.from_bytes(body[:8], "little") :]).hexdigest()
    told |= {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": digest[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }
    return {key: str(value) for key, value in told.items()}


def _data_url(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    out = BytesIO()
    small.save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
