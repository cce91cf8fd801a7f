"""The learning of a LoRA: noise prediction on cached latents with cached text, one optimizer step after another.

All chance of a picture in an epoch is drawn from the seed, the epoch and the picture's place, so it does not depend on
how the step is divided into batches, accumulated or spread over devices, and a run that was killed goes on exactly.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from peft import LoraConfig as PeftConfig
from torch import Tensor, nn
from torch.nn import functional

from itemforge.errors import ConfigurationError, ModelError
from itemforge.training.ema import Ema
from itemforge.training.learner import attention
from itemforge.training.lora_config import LoraConfig

#: What is kept of validation pictures' chance; training epochs count from 0.
_VALIDATION = -1
#: On a CPU a step's micro-batches are joined up to so many numbers of latents: eight pictures of the starter, none of SD 1.5.
_AT_ONCE = 8 * 4 * 16 * 16


@dataclass(frozen=True)
class Lessons:
    """What is learnt from, on the CPU.

    `latents` (flips, N, 2, C, h, w): mean and deviation; `texts` (N, tuple of (77, D)): the states of each phrasing;
    `nothing` (77, D): those of the empty prompt; `masks` (flips, N, 1, h, w) or None.
    """

    latents: Tensor
    texts: Sequence[Sequence[Tensor]]
    nothing: Tensor
    masks: Tensor | None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class _Drawn:
    """One picture's part of a batch."""

    latents: Tensor
    text: Tensor
    noise: Tensor
    time: Tensor
    mask: Tensor | None


def add_lora(unet: Any, config: LoraConfig) -> list[nn.Parameter]:
    """Freeze the UNet and give its layers a LoRA, in float32 whatever the rest is.

    Raises:
        ConfigurationError: a target names no layer.
    """
    unet.requires_grad_(False)
    names = [name for name, _ in unet.named_modules()]
    if lost := [t for t in config.targets if not any(n.endswith(f".{t}") for n in names)]:
        raise ConfigurationError(
            f"targets: this UNet has no layer {', '.join(lost)}; SD 1.5 has to_q, to_k, to_v, to_out.0"
        )
    torch.manual_seed(config.seed)  # of the first factors
    unet.add_adapter(
        PeftConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=list(config.targets),
            init_lora_weights="gaussian",
        )
    )
    learning = [p for p in unet.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.data = parameter.data.float()
    return learning


def rate_at(config: LoraConfig, step: int, steps: int) -> float:
    """Share of the learning rate: a warm-up, then `restarts` cosines from one to zero, in optimizer steps."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    through = (step - config.warmup) / max(1, steps - config.warmup)
    return 0.0 if through >= 1 else 0.5 * (1 + math.cos(math.pi * (through * config.restarts % 1.0)))


class LoraStage:
    """`on_step` hears the figures of each step, `on_epoch` at the end of each epoch how many are through."""

    name = "lora"

    def __init__(
        self,
        unet: Any,
        train: Lessons,
        validation: Lessons | None,
        config: LoraConfig,
        accelerator: Accelerator,
        on_epoch: Callable[[int], None] = lambda epochs: None,
        on_step: Callable[[int, dict[str, float]], None] = lambda done, figures: None,
    ) -> None:
        self._train, self._validation, self._config = train, validation, config
        self._accelerator, self._device = accelerator, accelerator.device
        self._on_epoch, self._on_step = on_epoch, on_step
        self.parameters = add_lora(unet, config)
        self.steps_an_epoch = math.ceil(len(train) / config.pictures_a_step)
        self.steps, self.done = self.steps_an_epoch * config.epochs, 0
        alphas = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
        ).alphas_cumprod
        self._signal, self._noise = alphas.sqrt(), (1 - alphas).sqrt()
        snr = alphas / (1 - alphas)
        gamma = config.min_snr_gamma
        self._importance = snr.clamp(max=gamma) / snr if gamma else torch.ones_like(snr)
        self.ema = Ema(self.parameters, config.ema)
        self._unet, self._optimizer = accelerator.prepare(
            unet, _optimizer(self.parameters, config, self._device)
        )
        self.rate = 0.0
        self._at_once = config.batch_size
        if self._device.type == "cpu":
            # Few latents at once leave a CPU's cores and its fast convolutions idle. The sum is the same.
            joined = _AT_ONCE // train.latents[0, 0, 0].numel()
            self._at_once = max(self._at_once, min(joined, config.pictures_a_step))

    def step(self) -> dict[str, float]:
        """One step of the optimizer over its micro-batches.

        Raises:
            ModelError: the loss is not a number.
        """
        epoch, place = divmod(self.done, self.steps_an_epoch)
        order = torch.randperm(len(self._train), generator=self._chance(epoch, len(self._train)))
        chosen = order[place * self._config.pictures_a_step :][: self._config.pictures_a_step].tolist()
        batches = [chosen[at : at + self._at_once] for at in range(0, len(chosen), self._at_once)]
        total = 0.0
        self._optimizer.zero_grad()
        for n, batch in enumerate(batches):
            with self._together(last=n == len(batches) - 1):
                loss = self._loss(self._train, self._own(batch), epoch) * (len(batch) / len(chosen))
                self._accelerator.backward(loss)
            total += float(loss.detach())
        if not math.isfinite(total):
            raise ModelError(
                f'the loss is not a number at step {self.done}; lower learning_rate, or use precision = "float32"'
            )
        if self._config.clip:
            self._accelerator.clip_grad_norm_(self.parameters, self._config.clip)
        self.rate = self._config.learning_rate * rate_at(self._config, self.done, self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.step()
        self.ema.update(self.done)
        self.done += 1
        figures = {"loss": total, "lr": self.rate}
        self._on_step(self.done, figures)
        if self.done % self.steps_an_epoch == 0:
            self._on_epoch(self.done // self.steps_an_epoch)
        return figures

    @torch.no_grad()
    def validate(self) -> float | None:
        """Mean loss over the validation pictures, with the same noise and timesteps every time."""
        held_out = self._validation
        if held_out is None or not len(held_out):
            return None
        size = self._at_once
        total = 0.0
        for at in range(0, len(held_out), size):
            batch = list(range(at, min(at + size, len(held_out))))
            total += float(self._loss(held_out, batch, _VALIDATION)) * len(batch)
        return total / len(held_out)

    def _own(self, batch: list[int]) -> list[int]:
        """This process's part of a batch; the mean over processes is the mean over the batch."""
        count = self._accelerator.num_processes
        if count == 1:
            return batch
        padded = batch + batch[: -len(batch) % count] if len(batch) >= count else batch * count
        return padded[self._accelerator.process_index :: count]

    def _together(self, last: bool) -> AbstractContextManager[Any]:
        """Devices exchange gradients once a step, not once a micro-batch."""
        context: AbstractContextManager[Any] = (
            torch.enable_grad() if last else self._accelerator.no_sync(self._unet)
        )
        return context

    def _loss(self, lessons: Lessons, batch: list[int], epoch: int) -> Tensor:
        drawn = [self._draw(lessons, n, epoch) for n in batch]
        times = torch.stack([each.time for each in drawn])
        noise = torch.stack([each.noise for each in drawn]).to(self._device)
        latents = torch.stack([each.latents for each in drawn]).to(self._device)
        signal, spread = (_wide(table[times]).to(self._device) for table in (self._signal, self._noise))
        texts = torch.stack([each.text for each in drawn]).to(self._device)
        asked = latents * signal + noise * spread, times.to(self._device), texts
        wanted = noise
        if (kept := times.to(self._device) >= self._config.keep_above).any():
            wanted = noise.clone()
            wanted[kept] = self._without_lora(*(part[kept] for part in asked))
        errors = functional.mse_loss(self._predicted(*asked), wanted, reduction="none")
        masks = [each.mask for each in drawn]
        weighted = [
            error.mean()
            if mask is None
            else (error * (m := mask.to(self._device))).sum() / (m.sum() * error.shape[0])
            for error, mask in zip(errors, masks, strict=True)
        ]
        return (torch.stack(weighted) * self._importance[times].to(self._device)).mean()

    def _predicted(self, latents: Tensor, times: Tensor, texts: Tensor) -> Tensor:
        half = self._accelerator.mixed_precision != "no"
        with self._accelerator.autocast(), attention(self._device) if half else nullcontext():
            predicted: Tensor = self._unet(latents, times, texts, return_dict=False)[0]
        return predicted.float()

    @torch.no_grad()
    def _without_lora(self, latents: Tensor, times: Tensor, texts: Tensor) -> Tensor:
        """What the base predicts."""
        unet = self._accelerator.unwrap_model(self._unet)
        unet.disable_adapters()
        try:
            return self._predicted(latents, times, texts)
        finally:
            unet.enable_adapters()

    def _draw(self, lessons: Lessons, n: int, epoch: int) -> _Drawn:
        """A picture with its chance: which side round, which phrasing, which noise at which time."""
        chance = self._chance(epoch, n)
        flip = int(torch.randint(len(lessons.latents), (1,), generator=chance))
        phrasing = int(torch.randint(2**31, (1,), generator=chance)) % len(lessons.texts[n])
        dropped = float(torch.rand(1, generator=chance)) < self._config.caption_dropout
        time = torch.randint(len(self._signal), (1,), generator=chance)[0]
        mean, deviation = lessons.latents[flip, n]
        latents = mean + deviation * torch.randn(mean.shape, generator=chance)
        noise = torch.randn(mean.shape, generator=chance)
        offset = torch.randn((mean.shape[0], 1, 1), generator=chance)
        mask = None
        if lessons.masks is not None:
            least = self._config.background_weight
            mask = least + (1 - least) * lessons.masks[flip, n]
        text = lessons.nothing if dropped and epoch != _VALIDATION else lessons.texts[n][phrasing]
        return _Drawn(latents, text, noise + self._config.noise_offset * offset, time, mask)

    def _chance(self, epoch: int, n: int) -> torch.Generator:
        return torch.Generator().manual_seed(hash((self._config.seed, epoch, n)) % 2**63)

    def state(self) -> dict[str, Any]:
        scaler = self._accelerator.scaler
        return {
            "done": self.done,
            "parameters": [p.detach().cpu() for p in self.parameters],
            "averages": [a.cpu() for a in self.ema.averages],
            "optimizer": self._optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for own, saved in zip(self.parameters, state["parameters"], strict=True):
                own.copy_(saved)
        self.ema.restore(state["averages"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._accelerator.scaler is not None and state["scaler"]:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        self.done = int(state["done"])


def _optimizer(
    parameters: list[nn.Parameter], config: LoraConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW; in 8 bits where that was asked for and bitsandbytes is there, which saves 38 MB at rank 32 and no more."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw8bit" and device.type == "cuda":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            pass
        else:
            made: torch.optim.Optimizer = AdamW8bit(parameters, **settings)
            return made
    return torch.optim.AdamW(parameters, **settings)


def _wide(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]
