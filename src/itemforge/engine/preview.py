"""A quick look at a row: latents to a small JPEG by a linear map, without the VAE.

The map is fitted once to the VAE at hand, so it works for any: pictures are encoded, decoded again, and
each latent pixel's channels are matched to the mean colour that it decodes to.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from itemforge.engine.model import Model
from itemforge.errors import ModelError

#: A preview is at most this long, so that its base64 form stays under 6,900 characters.
MAX_BYTES = 5000
#: Longer side in pixels and JPEG quality, tried in this order; the last always fits.
_SIZES = ((128, 80), (128, 50), (96, 40), (64, 30), (32, 30))
#: Latent pixels of one side of the pictures that the map is fitted to, and how many pictures.
_FIT_SIDE, _FIT_PICTURES = 16, 4


class PreviewMap:
    """Linear map from denoised latents to colours: `weights` is (channels + 1, 3), the last row constant."""

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    @torch.inference_mode()
    def jpegs(self, latents: Tensor) -> list[bytes]:
        """Previews of N rows from their denoised estimates (N, C, h, w)."""
        flat = latents.float().permute(0, 2, 3, 1)
        colours = flat @ self._weights[:-1] + self._weights[-1]
        array = colours.clamp(0, 1).mul(255).round().nan_to_num().to(torch.uint8).cpu().numpy()
        return [_jpeg(Image.fromarray(np.ascontiguousarray(picture))) for picture in array]


@torch.inference_mode()
def fit_preview(model: Model) -> PreviewMap:
    """Fit the map to the model's VAE by least squares.

    Raises:
        ModelError: the VAE is broken.
    """
    vae, scale = model.parts.vae, model.vae_scale_factor
    generator = torch.Generator().manual_seed(0)
    # Coloured squares on white are nearer to game items than noise is, and the fit is much better for it.
    cells = (_FIT_PICTURES, 3, _FIT_SIDE // 4, _FIT_SIDE // 4)
    colours = torch.rand(cells, generator=generator) * 2 - 1
    white = torch.rand(_FIT_PICTURES, 1, *cells[2:], generator=generator) < 0.5
    pictures = functional.interpolate(colours.masked_fill(white, 1.0), size=_FIT_SIDE * scale)
    latents = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mean
    decoded = vae.decode(latents, return_dict=False)[0].float().cpu()
    means = functional.avg_pool2d((decoded / 2 + 0.5).clamp(0, 1), scale).permute(0, 2, 3, 1).reshape(-1, 3)
    known = (latents.float().cpu() * vae.config.scaling_factor).permute(0, 2, 3, 1).flatten(0, 2)
    known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
    if not (known.isfinite().all() and means.isfinite().all()):
        raise ModelError(f"the VAE of {model.name} gives not-a-number: its files are damaged, get them again")
    weights = torch.linalg.lstsq(known, means).solution
    return PreviewMap(weights.to(model.device))


def _jpeg(small: Image.Image) -> bytes:
    data = b""
    for side, quality in _SIZES:
        factor = side / max(small.size)
        size = (max(round(small.width * factor), 1), max(round(small.height * factor), 1))
        buffer = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality, optimize=True)
        if len(data := buffer.getvalue()) <= MAX_BYTES:
            break
    return data
