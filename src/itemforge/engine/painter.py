"""The tensor work on a batch of rows: begin, one denoising step, decode.

Each function is all or nothing: a row's state changes only after the tensors of the whole batch are
there, so a call that ran out of memory can be made again with fewer rows. No operation mixes rows, and
each row's numbers are its own, which is why a picture does not depend on its neighbours.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itemforge.engine.cores import Cores
from itemforge.engine.model import Model
from itemforge.engine.prompt import PromptEncoder
from itemforge.engine.samplers import SCALE, TIMESTEP, advance, numbers_of
from itemforge.engine.state import RowState

#: Called before each UNet call with the rows' ids and their timesteps.
OnUnetCall = Callable[[tuple[str, ...], tuple[float, ...]], None]


class Painter:
    """One model on one device."""

    def __init__(
        self,
        model: Model,
        encoder: PromptEncoder,
        noise_device: Literal["cpu", "cuda"],
        on_unet_call: OnUnetCall,
        cores: Cores,
    ) -> None:
        self.cores = cores
        self._model = model
        self._encoder = encoder
        self._noise_device = noise_device
        self._on_unet_call = on_unet_call
        self._scaling = float(model.parts.vae.config.scaling_factor)

    @torch.inference_mode()
    def begin(self, states: Sequence[RowState]) -> None:
        """Encode the text of rows of one shape, whose style is merged now, and draw their noise."""
        prompts = [prompt for s in states for prompt in (s.prompt, s.negative) if prompt is not None]
        texts = iter(self._encoder.encode(states[0].style, prompts, states[0].shape[2]))
        conditions = [(next(texts), next(texts) if s.guided else None) for s in states]
        noise = [self._noise(state) for state in states]
        for state, (text, negative_text), start in zip(states, conditions, noise, strict=True):
            state.text, state.negative_text, state.latents = text, negative_text, start
            state.denoised = torch.zeros_like(start)

    @torch.inference_mode()
    def step(self, states: Sequence[RowState]) -> None:
        """One denoising step of rows of one shape, each at its own timestep, in one UNet call."""
        # Guided rows come first, so that their two halves of the UNet's batch are plain slices.
        rows = sorted(states, key=lambda state: not state.guided)
        guided = sum(state.guided for state in rows)
        numbers = numbers_of([(state.plan, state.step) for state in rows])
        self._on_unet_call(tuple(s.row.row_id for s in rows), tuple(numbers[:, TIMESTEP].tolist()))
        numbers = numbers.to(self._model.device)
        latents = torch.stack([_there(state.latents) for state in rows])
        previous = torch.stack([_there(state.denoised) for state in rows])
        texts = [*(_there(s.negative_text) for s in rows[:guided]), *(_there(s.text) for s in rows)]
        sample = latents * numbers[:, SCALE, None, None, None]
        output = self._unet(
            torch.cat([sample[:guided], sample]),
            torch.cat([numbers[:guided, TIMESTEP], numbers[:, TIMESTEP]]),
            torch.stack(texts),
        )
        output = _guide(output, guided, [state.row.guidance for state in rows[:guided]])
        following, denoised = advance(latents, output, previous, numbers)
        finite = following.isfinite().flatten(1).all(1).tolist()
        for n, state in enumerate(rows):
            state.latents, state.denoised, state.finite = following[n], denoised[n], finite[n]
            state.step += 1

    @torch.inference_mode()
    def decode(self, states: Sequence[RowState]) -> list[NDArray[np.uint8] | None]:
        """Pictures of rows of one size, uint8 (height, width, 3); None for one that is not finite."""
        vae = self._model.parts.vae
        latents = torch.stack([_there(state.latents) for state in states]) / self._scaling
        pictures = self.cores(
            lambda some: vae.decode(some, return_dict=False)[0], latents.to(vae.dtype)
        ).float()
        finite = pictures.isfinite().flatten(1).all(1).tolist()
        pixels = (pictures / 2 + 0.5).clamp(0, 1).mul(255).round().nan_to_num()
        array = pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [np.ascontiguousarray(p) if ok else None for p, ok in zip(array, finite, strict=True)]

    def _unet(self, sample: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        unet = self._model.parts.unet

        def predict(sample: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
            output: Tensor = unet(sample, timesteps, encoder_hidden_states=text, return_dict=False)[0]
            return output

        return self.cores(predict, sample.to(self._model.dtype), timesteps, text).float()

    def _noise(self, state: RowState) -> Tensor:
        """Noise of one image from its own seed, as the pipeline draws it: (C, h, w)."""
        height, width, _ = state.shape
        # The original service draws on the GPU, in the model's dtype; on the CPU it is float32 always.
        on_gpu = self._noise_device == "cuda"
        dtype = self._model.dtype if on_gpu else torch.float32
        device = self._model.device if on_gpu else torch.device("cpu")
        generator = torch.Generator(device).manual_seed(state.row.seed)
        size = (1, self._model.latent_channels, height, width)
        noise = torch.randn(size, generator=generator, device=device, dtype=dtype)
        return noise[0].float().to(self._model.device) * state.plan.start


def _guide(output: Tensor, guided: int, guidance: list[float]) -> Tensor:
    """Classifier-free guidance of the first `guided` rows; the others have the conditional half alone."""
    without, with_text = output[:guided], output[guided:]
    scale = torch.tensor(guidance, dtype=torch.float32)[:, None, None, None].to(output.device)
    return torch.cat([without + scale * (with_text[:guided] - without), with_text[guided:]])


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "a row was stepped before it was begun"  # noqa: S101 - a bug, not an input
    return tensor
