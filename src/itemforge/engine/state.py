"""What the engine knows of a row on its way: its plan, its text, its latents, where it stands."""

import math
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from itemforge.engine.prompt import Chunk, PromptEncoder
from itemforge.engine.quality import Approximation
from itemforge.engine.rows import Row
from itemforge.engine.samplers import Plan, Plans
from itemforge.errors import InvalidInput

#: What rows must share to stand in one UNet call: latent height, latent width, chunks of text.
Shape = tuple[int, int, int]


@dataclass(eq=False)
class RowState:
    """One row. Tensors are None until its first step begins; `step` counts the steps that are done.

    `latents` and `denoised` are (C, h, w) in float32, `text` and `negative_text` (tokens, hidden). A row
    with guidance has two places in the UNet's batch, one without has one (`negative` is None).
    """

    row: Row
    plan: Plan
    prompt: tuple[Chunk, ...]
    negative: tuple[Chunk, ...] | None
    shape: Shape
    step: int = 0
    latents: Tensor | None = None
    denoised: Tensor | None = None
    text: Tensor | None = None
    negative_text: Tensor | None = None
    finite: bool = True
    cancelled: bool = False
    watched: bool = False
    previewed: float = -math.inf

    @property
    def steps(self) -> int:
        return len(self.plan.steps)

    @property
    def guided(self) -> bool:
        return self.negative is not None

    @property
    def started(self) -> bool:
        return self.latents is not None

    @property
    def style(self) -> Hashable:
        """What is merged into the weights for this row."""
        return tuple((lora.sha256, lora.weight) for lora in self.row.loras)

    @property
    def lane(self) -> Hashable:
        """Rows of one lane may be in the making at the same time: same merged weights, nobody alone."""
        return self.style, self.row.row_id if self.row.alone else None


def admit(
    row: Row, plans: Plans, encoder: PromptEncoder, vae_scale_factor: int, approximation: Approximation
) -> RowState:
    """Check a row and plan its way.

    Raises:
        InvalidInput: the engine cannot draw it; the text names the parameter.
    """
    if not 1 <= row.steps <= plans.max_steps:
        raise InvalidInput(f"num_inference_steps must be 1 to {plans.max_steps}, it is {row.steps}")
    if not math.isfinite(row.guidance):
        raise InvalidInput("guidance_scale must be a finite number")
    for name, side in (("width", row.width), ("height", row.height)):
        if side < 1 or side % vae_scale_factor:
            raise InvalidInput(f"{name} must be a multiple of {vae_scale_factor}, it is {side}")
    prompt = encoder.chunks(row.prompt)
    negative = encoder.chunks(row.negative_prompt) if row.guidance > 1 else None
    shape = (
        row.height // vae_scale_factor,
        row.width // vae_scale_factor,
        max(len(prompt), len(negative or ())),
    )
    plan = plans.plan(row.scheduler, approximation.steps(row.steps))
    return RowState(row, plan, prompt, negative, shape)
