"""The parts of a Stable Diffusion 1.x model, however it was stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Components:
    """What a diffusers directory and a single-file checkpoint both turn into.

    `unet` is a UNet2DConditionModel, `vae` an AutoencoderKL, `text_encoder` a CLIPTextModel, `tokenizer` a
    CLIPTokenizer, all of diffusers and transformers, which ship no types. `scheduler` is the content of
    the model's scheduler_config.json.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Mapping[str, Any]
