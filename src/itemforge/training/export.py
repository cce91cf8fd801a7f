"""A trained model as a diffusers directory in float16, with the golden picture that engines check themselves by."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from itemforge.engine.golden import golden_row
from itemforge.engine.loop import Engine
from itemforge.engine.model import load_model
from itemforge.imaging.png import encode_png
from itemforge.styles.files import write_atomic
from itemforge.training.diffusion import NOISE

#: Largest file, so that hosts of source code take it.
SHARD = "13MB"


@dataclass(frozen=True)
class Networks:
    """`scale` brings latents to a standard deviation of one."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scale: float


def export(networks: Networks, out: Path) -> Path:
    """Write the model to `out`; a model that is there is replaced."""
    networks.vae.register_to_config(scaling_factor=networks.scale)
    for name, module in (
        ("unet", networks.unet),
        ("vae", networks.vae),
        ("text_encoder", networks.text_encoder),
    ):
        folder = out / name
        for old in folder.glob("*"):
            old.unlink()
        # Of the weights themselves: diffusers passes over a state_dict that it is given.
        module.to("cpu", torch.float16).save_pretrained(folder, max_shard_size=SHARD, safe_serialization=True)
        _tidy(folder / "config.json")
    networks.tokenizer.save_pretrained(out / "tokenizer")
    _compact(out / "tokenizer/tokenizer.json")
    _write(out / "scheduler/scheduler_config.json", _SCHEDULER)
    _write(out / "model_index.json", _INDEX)
    (out / "golden.png").unlink(missing_ok=True)
    model = load_model(out, torch.device("cpu"), torch.float32)
    drawn = Engine(model).draw(golden_row(model))
    write_atomic(out / "golden.png", encode_png(drawn.pixels, drawn.recipe))
    return out


_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    **NOISE,
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _tidy(config: Path) -> None:
    """Where it was trained is nobody's business, and the weights are what they were saved as."""
    told = json.loads(config.read_text(encoding="utf-8"))
    told.pop("_name_or_path", None)
    if "dtype" in told:
        told["dtype"] = "float16"
    _write(config, told)


def _compact(file: Path) -> None:
    """Without spaces, which are more than half of a tokenizer's file: what ships has to be small."""
    told = json.loads(file.read_text(encoding="utf-8"))
    write_atomic(file, json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode())


def _write(path: Path, told: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(told, indent=2, sort_keys=True) + "\n").encode())
