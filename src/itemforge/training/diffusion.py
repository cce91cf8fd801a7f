"""UNet and text encoder learn together: noise prediction on cached latents.

Weights of the timesteps are min-SNR's for epsilon prediction, min(SNR, gamma) / SNR (Hang et al. 2023, section 3.4).
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional

from itemforge.dataset.metadata import Line
from itemforge.errors import InvalidInput
from itemforge.training.config import Diffusion
from itemforge.training.learner import Learner, Learning, autocast
from itemforge.training.stage import generator
from itemforge.training.words import Lesson

#: SD 1.x's noise.
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@dataclass(frozen=True)
class Phrasings:
    """All captions as tokens, (M, 77) int32, the last one empty; those of picture n are `first[n]` to `first[n + 1]`."""

    tokens: Tensor
    first: Tensor

    @classmethod
    def of(cls, lines: list[Line], tokenizer: Any) -> "Phrasings":
        texts = [text for line in lines for text in line.phrasings]
        made = tokenizer([*texts, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
        counts = torch.tensor([0, *(len(line.phrasings) for line in lines)])
        return cls(made.to(torch.int32), counts.cumsum(0))

    def choose(self, places: Tensor, dropout: float, chance: torch.Generator) -> Tensor:
        """One phrasing of each picture, or none: (B, 77) int64."""
        first, counts = self.first[places], self.first[places + 1] - self.first[places]
        chosen = first + (torch.rand(len(places), generator=chance) * counts).long()
        dropped = torch.rand(len(places), generator=chance) < dropout
        return self.tokens[torch.where(dropped, len(self.tokens) - 1, chosen)].long()


class DiffusionStage(Learning):
    """`latents` are (2, N, C, h, w), scaled to a standard deviation of one.

    Raises:
        InvalidInput: a weight is of a set that has no picture.
    """

    name = "diffusion"

    def __init__(
        self,
        unet: Any,
        text_encoder: Any,
        latents: Tensor,
        phrasings: Phrasings,
        lines: list[Line],
        config: Diffusion,
        seed: int,
        device: torch.device,
        precision: torch.dtype,
        lesson: Lesson | None = None,
    ) -> None:
        self.steps, self.done = config.steps, 0
        self._unet, self._text_encoder = unet, text_encoder
        self._latents, self._phrasings, self._lesson = latents, phrasings, lesson
        self._weights = _weights(lines, config)
        self._config, self._seed, self._device, self._precision = config, seed, device, precision
        alphas = DDPMScheduler(**NOISE).alphas_cumprod
        self._signal, self._noise = alphas.sqrt().to(device), (1 - alphas).sqrt().to(device)
        snr = alphas / (1 - alphas)
        self._importance = (snr.clamp(max=config.min_snr_gamma) / snr).to(device)
        for module in (unet, text_encoder):
            module.requires_grad_(True).train()
        modules = [unet, text_encoder] + ([lesson.head] if lesson else [])
        self.learner = Learner(modules, config, config.ema)

    def step(self) -> dict[str, float]:
        chance = generator(self._seed, self.done)
        size = self._config.batch_size
        places = torch.multinomial(self._weights, size, replacement=True, generator=chance)
        flips = torch.randint(2 if self._config.flip else 1, (size,), generator=chance)
        tokens = self._phrasings.choose(places, self._config.caption_dropout, chance)
        times = torch.randint(len(self._signal), (size,), generator=chance)
        noise = torch.randn((size, *self._latents.shape[2:]), generator=chance).to(self._device)
        latents = self._latents[flips, places].to(self._device).float()
        times = times.to(self._device)
        noisy = latents * _wide(self._signal[times]) + noise * _wide(self._noise[times])
        with autocast(self._device, self._precision):
            states = self._text_encoder(tokens.to(self._device)).last_hidden_state
            predicted = self._unet(noisy, times, states, return_dict=False)[0]
        errors = functional.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        loss = (errors * self._importance[times]).mean()
        losses = {"loss": float(loss.detach())}
        if self._lesson is not None and self._lesson.weight:
            with autocast(self._device, self._precision):
                learnt = self._lesson.loss(self._text_encoder, chance, size)
            loss = loss + self._lesson.weight * learnt
            losses["words"] = float(learnt.detach())
        losses["norm"] = self.learner.finish(loss, self.done)
        self.done += 1
        return losses

    def finish(self) -> None:
        """Leave the averages in the networks."""
        self.learner.ema.swap()
        for module in (self._unet, self._text_encoder):
            module.requires_grad_(False).eval()


def _weights(lines: list[Line], config: Diffusion) -> Tensor:
    """How often each picture is taken, to once for a copy in another colour."""
    known = {line.set for line in lines}
    if unknown := sorted(set(config.set_weights) - known):
        raise InvalidInput(f"set_weights names {', '.join(unknown)}; the sets are {', '.join(sorted(known))}")
    originals = [1.0 if line.colour else config.original_weight for line in lines]
    return torch.tensor(
        [w * config.set_weights.get(line.set, 1.0) for w, line in zip(originals, lines, strict=True)]
    )


def _wide(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]
