"""`itemforge train lora`: its settings, and the presets that they may begin with.

| preset | from |
|---|---|
| `tsuki-original` | the original notebook: rate 1e-5, gamma 3 |
| `tsuki` | the usual rate of LoRAs whose alpha is their rank (1e-4), gamma 5, a little noise offset for whiter grounds |
| `quick` | a first look: fewer epochs at a higher rate |
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from itemforge.contract import Guidance, Steps
from itemforge.errors import ConfigurationError
from itemforge.styles.pack import Defaults, Size, StylePack
from itemforge.training.config import Count, Rate, Section, Share, read_config

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

_ORIGINAL: dict[str, Any] = {
    "rank": 32,
    "alpha": 32.0,
    "optimizer": "adamw8bit",
    "learning_rate": 1e-5,
    "restarts": 3,
    "warmup": 100,
    "min_snr_gamma": 3.0,
    "noise_offset": 0.0,
    "ema": 0.999,
    "clip": 0.5,
    "accumulation": 4,
    "batch_size": 1,
    "epochs": 20,
    "precision": "float16",
    "seed": 42,
    "validation": 0.1,
    "flip": True,
    "size": 512,
}
PRESETS: dict[str, dict[str, Any]] = {
    "tsuki-original": _ORIGINAL,
    "tsuki": _ORIGINAL | {"learning_rate": 1e-4, "min_snr_gamma": 5.0, "noise_offset": 0.04},
    "quick": _ORIGINAL
    | {
        "learning_rate": 3e-4,
        "min_snr_gamma": 5.0,
        "epochs": 4,
        "restarts": 1,
        "warmup": 20,
        "rank": 16,
        "alpha": 16.0,
    },
}


class LoraConfig(Section):
    """Steps are the optimizer's: one for `batch_size` x `accumulation` pictures, on however many devices.

    `base` is a model's name or place, `data` a folder of captioned pictures, `run` the run's folder, `name` the
    style's id. Every caption must begin with `trigger`; `template`, `negative`,
    `num_inference_steps` and `guidance_scale` are the published style's. `min_snr_gamma` and `clip` 0 switch them off.
    From timestep `keep_above` of the thousand on, where pictures are composed, the LoRA learns to say what the base says;
    1000 switches that off.
    """

    preset: Literal["tsuki-original", "tsuki", "quick"] | None = None
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    base: str
    data: Path
    run: Path
    trigger: Annotated[str, Field(min_length=1, max_length=100)]
    licence: str = ""
    template: str = "{prompt}"
    negative: str = ""
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=8)]
    rank: Annotated[int, Field(ge=1, le=320)]
    alpha: Annotated[float, Field(gt=0)]
    targets: tuple[str, ...] = _ATTENTION
    optimizer: Literal["adamw", "adamw8bit"]
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    restarts: Count
    warmup: Annotated[int, Field(ge=0)]
    min_snr_gamma: Annotated[float, Field(ge=0)]
    noise_offset: Annotated[float, Field(ge=0, le=1)]
    keep_above: Annotated[int, Field(ge=0, le=1000)] = 1000
    caption_dropout: Share = 0.0
    background_weight: Share = 0.2
    ema: Annotated[float, Field(ge=0, lt=1)]
    clip: Annotated[float, Field(ge=0)]
    batch_size: Count
    accumulation: Count
    epochs: Count
    precision: Literal["float32", "float16", "bfloat16"]
    seed: int
    validation: Annotated[float, Field(ge=0, lt=1)]
    flip: bool
    drop_bad: bool = False
    sample_every: Annotated[int, Field(ge=0)] = 5
    sample_prompts: tuple[str, ...] = ()
    wandb: Literal["online", "offline", "disabled"] = "disabled"
    wandb_project: str = "itemforge"

    @property
    def pictures_a_step(self) -> int:
        return self.batch_size * self.accumulation


def pack_of(config: LoraConfig, base: str) -> StylePack:
    """The style as it would be published, without its LoRA; `base` identifies the base model."""
    return StylePack(
        id=config.name,
        version=1,
        base=base,
        licence=config.licence,
        trigger=config.trigger,
        template=config.template,
        negative=config.negative,
        size=Size(
            width=config.size, height=config.size, min=max(8, config.size // 16 * 8), max=config.size * 2
        ),
        defaults=Defaults(
            num_inference_steps=config.num_inference_steps, guidance_scale=config.guidance_scale
        ),
    )


def read_lora_config(path: Path) -> LoraConfig:
    """The file, on top of its preset.

    Raises:
        ConfigurationError: as `read_config`.
    """
    try:
        preset = tomllib.loads(path.read_text(encoding="utf-8")).get("preset")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    known = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
    return read_config(path, LoraConfig, known)
