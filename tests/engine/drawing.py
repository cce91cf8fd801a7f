"""Shared by the engine's tests: rows, the diffusers pipeline as the reference, runs of the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from itemforge.contract import Scheduler
from itemforge.engine.components import Components
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model
from itemforge.engine.rows import Event, Finished, Row

#: What the original SD 1.5 repository says, and no more: the rest are the schedulers' own defaults.
SD15_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
REFERENCES: dict[Scheduler, tuple[Any, dict[str, Any]]] = {
    Scheduler.DDIM: (DDIMScheduler, {}),
    Scheduler.DPMPP_2M_KARRAS: (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    Scheduler.EULER: (EulerDiscreteScheduler, {}),
}


def row(row_id: str = "a", **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "prompt": "a red apple, white background",
        "negative_prompt": "",
        "steps": 4,
        "guidance": 4.0,
        "seed": 7,
        "scheduler": Scheduler.DDIM,
        "width": 64,
        "height": 64,
    }
    return Row(row_id, **{**fields, **changes})


def reference(model: Model, row: Row, **instead_of_prompt: Any) -> np.ndarray:
    """The diffusers pipeline's picture of a row, float 0..1 (height, width, 3)."""
    parts = model.parts
    scheduler, options = REFERENCES[row.scheduler]
    pipeline = StableDiffusionPipeline(
        vae=parts.vae,
        unet=parts.unet,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler=scheduler.from_config(dict(parts.scheduler), **options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    prompt = instead_of_prompt or {"prompt": row.prompt, "negative_prompt": row.negative_prompt}
    return pipeline(
        **prompt,
        num_inference_steps=row.steps,
        guidance_scale=row.guidance,
        width=row.width,
        height=row.height,
        generator=torch.Generator().manual_seed(row.seed),
        output_type="np",
    ).images[0]


def levels_apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two pictures in levels of 255; uint8 or float 0..1."""
    a, b = (p.astype(np.float64) * (1 if p.dtype == np.uint8 else 255) for p in (one, other))
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


def run(engine: Engine, before_step: Callable[[int], None] = lambda n: None) -> list[Event]:
    """Step until nothing is left; `before_step` gets the number of the step."""
    events: list[Event] = []
    for n in range(10_000):
        before_step(n)
        if not engine.busy:
            return events
        events += engine.step()
    raise AssertionError("the engine never came to an end")


def pictures(events: list[Event]) -> dict[str, np.ndarray]:
    return {event.row_id: event.pixels for event in events if isinstance(event, Finished)}


def of(events: list[Event], row_id: str) -> list[Event]:
    return [event for event in events if event.row_id == row_id]


@dataclass
class Calls:
    """Every UNet call; raises what is in `errors` instead of making the calls of those numbers."""

    made: list[tuple[tuple[str, ...], tuple[float, ...]]] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)

    def __call__(self, row_ids: tuple[str, ...], timesteps: tuple[float, ...]) -> None:
        self.made.append((row_ids, timesteps))
        if (error := self.errors.get(len(self.made) - 1)) is not None:
            raise error


def tiny_sd15(tokenizer: Any, **scheduler: Any) -> Model:
    """SD 1.5's structure with random weights: four UNet levels, a VAE of eight pixels a latent."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        sample_size=64,
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.18215,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False).eval()
    parts = Components(unet, vae, text_encoder, tokenizer, {**SD15_SCHEDULER, **scheduler})
    return Model("tiny", "0" * 64, Path("golden.png"), parts, 8, 64, 64)
