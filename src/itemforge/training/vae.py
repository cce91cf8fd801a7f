"""The autoencoder: first as a whole, and, when the UNet has learnt its latents, the decoder alone for sharpness."""

from typing import Any, Literal

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.nn import functional

from itemforge.training.config import Steps
from itemforge.training.learner import Learner, autocast
from itemforge.training.pictures import Pictures
from itemforge.training.stage import generator

#: Weights of the loss beside the plain difference: of edges, and of the latents' distance from a normal distribution.
_EDGES, _KL = 1.0, 1e-6
#: Latents are encoded so many pictures at a time.
_CHUNK = 256


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 to float32 from -1 to 1."""
    return pixels.float() / 127.5 - 1.0


class VaeStage:
    """`part` is what learns; the encoder stays as it is when the decoder learns alone."""

    def __init__(
        self,
        name: str,
        vae: Any,
        part: Literal["all", "decoder"],
        pictures: Pictures,
        config: Steps,
        seed: int,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.name, self.steps, self.done = name, config.steps, 0
        self._vae, self._config, self._seed, self._device = vae, config, seed, device
        self._precision = precision
        self._all = part == "all"
        self._pixels = pictures.pixels
        self._identity = pictures.sha256
        vae.requires_grad_(False)
        modules = [vae] if self._all else [vae.decoder, vae.post_quant_conv]
        for module in modules:
            module.requires_grad_(True)
        self.learner = Learner(modules, config)

    def step(self) -> dict[str, float]:
        chance = generator(self._seed, self.done)
        places = torch.randint(len(self._pixels), (self._config.batch_size,), generator=chance)
        flipped = torch.rand(len(places), generator=chance) < 0.5
        noise_seed = int(torch.randint(2**31, (1,), generator=chance))
        pixels = to_unit(self._pixels[places].to(self._device))
        pixels = torch.where(flipped.to(self._device)[:, None, None, None], pixels.flip(3), pixels)
        with torch.set_grad_enabled(self._all), autocast(self._device, self._precision):
            moments = self._vae.quant_conv(self._vae.encoder(pixels))
        posterior = DiagonalGaussianDistribution(moments.float())
        noise = torch.Generator(self._device).manual_seed(noise_seed)
        latents = posterior.sample(noise) if self._all else posterior.mode()
        with autocast(self._device, self._precision):
            drawn = self._vae.decode(latents).sample.float()
        plain, edges = functional.l1_loss(drawn, pixels), _edges(drawn, pixels)
        loss = plain + _EDGES * edges
        losses = {"l1": float(plain.detach()), "edges": float(edges.detach())}
        if self._all:
            kl = posterior.kl().mean()
            loss = loss + _KL * kl
            losses["kl"] = float(kl.detach())
        self.learner.finish(loss, self.done)
        self.done += 1
        return losses

    def state(self) -> dict[str, Any]:
        return {"done": self.done, "data": self._identity, **self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.learner.restore(state)
        self.done = int(state["done"])

    def finish(self) -> None:
        """Leave the averages in the network."""
        self.learner.ema.swap()
        self._vae.requires_grad_(False).eval()


def _edges(drawn: Tensor, pixels: Tensor) -> Tensor:
    """Difference of the differences between neighbours: blur costs here what it does not cost in the mean."""
    losses = [functional.l1_loss(drawn.diff(dim=dim), pixels.diff(dim=dim)) for dim in (2, 3)]
    return losses[0] + losses[1]


@torch.inference_mode()
def encode(vae: Any, pixels: Tensor, device: torch.device) -> Tensor:
    """Latents of pictures and of their mirror images, (2, N, C, h, w) in float16, not scaled.

    A mirror image's latents are not the mirrored latents: the encoder is not symmetric.
    """
    flips = []
    for flipped in (False, True):
        parts = []
        for some in torch.split(pixels, _CHUNK):
            batch = to_unit(some.to(device))
            parts.append(vae.encode(batch.flip(3) if flipped else batch).latent_dist.mode().half().cpu())
        flips.append(torch.cat(parts))
    return torch.stack(flips)
