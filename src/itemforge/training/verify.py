"""`itemforge train verify`: whether a LoRA file is what other programs will take it for.

Its keys are looked up in the map of all names that the base model's layers have; it is loaded by our engine and by
diffusers, and both draw the same picture with it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.lora_keys import KeyTable
from itemforge.engine.model import Model
from itemforge.engine.rows import LoraRef, Row
from itemforge.errors import InvalidInput
from itemforge.styles.files import file_sha256

#: Levels of 255 by which the two pictures may differ anywhere: they round at other places.
TOLERANCE = 2
STEPS, GUIDANCE, SEED = 4, 4.0, 7
_PEFT = "base_model.model."


@dataclass(frozen=True)
class Verdict:
    """`effect` and `difference` are the largest, in levels of 255: of the LoRA, and between engine and diffusers."""

    layers: int
    parameters: int
    rank: int
    alpha: float | None
    trigger: str
    effect: int
    difference: int

    @property
    def good(self) -> bool:
        return self.difference <= TOLERANCE and self.effect > self.difference

    def told(self) -> str:
        """One line."""
        alpha = "in no key" if self.alpha is None else f"{self.alpha:g}"
        return (
            f"{self.layers} layers, {self.parameters:,} parameters, rank {self.rank}, alpha {alpha}, "
            f"trigger {self.trigger or 'not told'}; it changes pictures by up to {self.effect} levels of 255, engine and "
            f"diffusers differ by at most {self.difference}"
        )


def verify(path: Path, model: Model, prompt: str) -> Verdict:
    """Load the file twice and draw with it.

    Raises:
        InvalidInput: it is no safetensors file, or diffusers refuses it.
        ModelError: keys that fit nothing in this base, or are incomplete.
    """
    try:
        with safe_open(path, "pt") as file:
            keys, header = list(file.keys()), file.metadata() or {}
            shapes = {key: file.get_slice(key).get_shape() for key in keys}
            alphas = {float(file.get_tensor(key)) for key in keys if key.endswith(".alpha")}
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"{path} is no safetensors file: {error}") from error
    found = KeyTable(model.parts.unet, model.parts.text_encoder).resolve(keys)
    ranks = {shapes[parts["down"]][0] for parts in found.values()}
    row = Row("verify", prompt, "", STEPS, GUIDANCE, SEED, Scheduler.DDIM, model.width, model.height)
    # Diffusers first: the engine merges into the weights that both use.
    theirs = _by_diffusers(path, model, prompt)
    engine = Engine(model)
    plain = engine.draw(row).pixels.astype(np.int16)
    lora = LoraRef(path, file_sha256(path), 1.0)
    ours = engine.draw(Row(**{**vars(row), "row_id": "with", "loras": (lora,)})).pixels.astype(np.int16)
    return Verdict(
        len(found),
        sum(_count(shapes[parts[part]]) for parts in found.values() for part in ("down", "up")),
        max(ranks),
        alphas.pop() if len(alphas) == 1 else None,
        header.get("modelspec.trigger_phrase", ""),
        int(np.abs(ours - plain).max()),
        int(np.abs(ours - theirs).max()),
    )


def _as_diffusers_reads(path: Path) -> Path | dict[str, Tensor]:
    """Diffusers knows no keys of PEFT alone; the original worker loads such a file by peft, under these names."""
    with safe_open(path, "pt") as file:
        if not all(key.startswith(_PEFT) for key in file.keys()):  # noqa: SIM118 - it is no mapping
            return path
        return {f"unet.{key.removeprefix(_PEFT)}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _count(shape: list[int]) -> int:
    return int(np.prod(shape))


def _by_diffusers(path: Path, model: Model, prompt: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    parts = model.parts
    pipeline = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler.from_config(parts.scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline.load_lora_weights(_as_diffusers_reads(path))
    except (ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(f"diffusers cannot load {path}: {str(error)[:300]}") from error
    try:
        drawn = pipeline(
            prompt,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(SEED),
            output_type="np",
        ).images[0]
    finally:
        pipeline.unload_lora_weights()
    return np.asarray((drawn * 255).round(), dtype=np.int16)
