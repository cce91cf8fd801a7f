"""A LoRA trained the way of diffusers' own example for it (train_text_to_image_lora.py), for `train_speed.py` to compare with.

Written anew, and plainly, with the same libraries: every pass opens the pictures again, and encodes pixels and captions again. Nothing is
kept from step to step, no average of the weights, and chance is the global one.
"""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params, compute_snr
from peft import LoraConfig as PeftConfig
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from itemforge.engine.components import Components
from itemforge.training.captioned import Sample
from itemforge.training.lora_config import LoraConfig


class Captioned(Dataset[dict[str, Tensor]]):
    """Opens and prepares a picture, and takes its caption to tokens, whenever it is asked for."""

    def __init__(self, samples: list[Sample], tokenizer: Any, size: int, flip: bool) -> None:
        self._samples, self._tokenizer, self._size, self._flip = samples, tokenizer, size, flip

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        sample = self._samples[n]
        with Image.open(sample.path) as opened:
            picture = opened.convert("RGB").resize((self._size, self._size), Image.Resampling.LANCZOS)
        if self._flip and torch.rand(()) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
        tokens = self._tokenizer(
            sample.captions[0], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return {"pixels": pixels, "tokens": tokens[0]}


class Example:
    """The example's run. Afterwards the UNet has the LoRA."""

    def __init__(self, parts: Components, samples: list[Sample], config: LoraConfig, cuda: bool) -> None:
        self._config, self._parts = config, parts
        self._accelerator = Accelerator(
            mixed_precision="fp16" if cuda else "no",
            gradient_accumulation_steps=config.accumulation,
            cpu=not cuda,
        )
        set_seed(config.seed)
        # Frozen weights are kept in the precision that they are used in, those that learn in float32.
        self._dtype = torch.float16 if cuda else torch.float32
        for module in (parts.vae, parts.text_encoder, parts.unet):
            module.requires_grad_(False).to(self._accelerator.device, self._dtype)
        parts.unet.add_adapter(
            PeftConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                target_modules=list(config.targets),
                init_lora_weights="gaussian",
            )
        )
        if cuda:
            cast_training_params(parts.unet, dtype=torch.float32)
        self._scheduler = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
        )
        self.parameters = [p for p in parts.unet.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        pictures = Captioned(samples, parts.tokenizer, config.size, config.flip)
        loader = DataLoader(pictures, batch_size=config.batch_size, shuffle=True)
        rate = get_scheduler("constant", optimizer)
        self._unet, self._optimizer, self._loader, self._rate = self._accelerator.prepare(
            parts.unet, optimizer, loader, rate
        )
        parts.unet.train()

    def epoch(self) -> list[float]:
        """One pass over the pictures; the loss of each batch."""
        losses = []
        for batch in self._loader:
            with self._accelerator.accumulate(self._unet):
                latents = self.latents(batch["pixels"]).sample() * self._parts.vae.config.scaling_factor
                noise = torch.randn_like(latents)
                if self._config.noise_offset:
                    offset = torch.randn((*latents.shape[:2], 1, 1), device=latents.device)
                    noise = noise + self._config.noise_offset * offset
                times = torch.randint(1000, (len(latents),), device=latents.device)
                loss = self.loss(latents, noise, times, self.states(batch["tokens"]))
                losses.append(loss.item())
                self._accelerator.backward(loss)
                if self._accelerator.sync_gradients:
                    self._accelerator.clip_grad_norm_(self.parameters, self._config.clip)
                self._optimizer.step()
                self._rate.step()
                self._optimizer.zero_grad()
        return losses

    def latents(self, pixels: Tensor) -> Any:
        """Their distribution, unscaled."""
        return self._parts.vae.encode(pixels.to(dtype=self._dtype)).latent_dist

    def states(self, tokens: Tensor) -> Tensor:
        states: Tensor = self._parts.text_encoder(tokens).last_hidden_state
        return states

    def loss(self, latents: Tensor, noise: Tensor, times: Tensor, states: Tensor) -> Tensor:
        noisy = self._scheduler.add_noise(latents, noise, times)
        predicted = self._unet(noisy, times, states, return_dict=False)[0]
        errors = functional.mse_loss(predicted.float(), noise.float(), reduction="none")
        snr = compute_snr(self._scheduler, times)
        weights = snr.clamp(max=self._config.min_snr_gamma) / snr
        return (errors.mean(dim=(1, 2, 3)) * weights).mean()
